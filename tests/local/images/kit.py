"""Making layers, images and layouts for tests, with nothing of the code under test."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import zstandard

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One member; `type` as in tarfile, default a file."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    header.mode = 0o644
    for key, value in fields.items():
        setattr(header, key, value)
    return header, content


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.LNKTYPE, linkname=target)


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for header, content in members:
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def compress(data: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    if how == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    return data


class FakeImage:
    """An image in memory: blobs by digest and the descriptor of its manifest."""

    def __init__(
        self,
        layers: Iterable[bytes],
        *,
        compression: str = "gzip",
        config: Mapping[str, Any] | None = None,
        docker: bool = False,
        architecture: str = ARCHITECTURE,
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        plain = list(layers)
        packed = [compress(layer, compression) for layer in plain]
        self.config = {
            "architecture": architecture,
            "os": "linux",
            "config": dict(config or {"Cmd": ["/run"]}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in plain]},
        }
        raw_config = json.dumps(self.config).encode()
        layer_type = (
            "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else f"{OCI_LAYER}+{compression}"
        )
        self.media_type = "application/vnd.docker.distribution.manifest.v2+json" if docker else OCI_MANIFEST
        manifest = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.add(raw_config, OCI_CONFIG),
            "layers": [self.add(layer, layer_type) for layer in packed],
        }
        self.platform = {"architecture": architecture, "os": "linux"}
        self.descriptor = self.add(json.dumps(manifest).encode(), self.media_type)
        self.digest: str = self.descriptor["digest"]
        self.layer_digests = [digest_of(layer) for layer in packed]

    def add(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}


def index_of(*images: FakeImage, media_type: str = OCI_INDEX) -> bytes:
    manifests: list[Any] = [image.descriptor | {"platform": image.platform} for image in images]
    attestation = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"none"), "size": 4}
    manifests.insert(0, attestation | {"platform": {"architecture": "unknown", "os": "unknown"}})
    return json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).encode()


def write_layout(path: Path, images: Mapping[str, FakeImage]) -> Path:
    """An OCI layout with images by tag."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    manifests = []
    for tag, image in images.items():
        for digest, data in image.blobs.items():
            (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        manifests.append(image.descriptor | {"annotations": {"org.opencontainers.image.ref.name": tag}})
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return path


def write_docker_archive(path: Path, layers: list[bytes], tags: list[str], *, compression: str = "") -> Path:
    """As `docker save` wrote them for ten years."""
    config = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": {"Cmd": ["/run"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }
    names = [f"{position}/layer.tar" for position in range(len(layers))]
    members = [entry(name, layer) for name, layer in zip(names, layers, strict=True)]
    members.append(entry("config.json", json.dumps(config).encode()))
    manifest = [{"Config": "config.json", "RepoTags": tags, "Layers": names}]
    members.append(entry("manifest.json", json.dumps(manifest).encode()))
    path.write_bytes(compress(tar(members), compression))
    return path
