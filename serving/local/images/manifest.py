"""OCI and Docker schema 2 documents: manifests, indexes, configurations. Pure.

Documents are told apart by their content, not by the media type that somebody wrote beside them; compression
likewise by a layer's first bytes. What is read here decides what is fetched, so sizes and digests are checked.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterable
from typing import Any

import msgspec

from serving.local.images.errors import inspect_failed, refused
from serving.local.images.limits import Limits
from serving.local.images.protocol import ImageConfig
from serving.local.images.reference import is_digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))
TITLE = "org.opencontainers.image.ref.name"

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
    "loongarch64": "loong64",
}


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    media_type: str = ""
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    schema_version: int = 2
    media_type: str = OCI_MANIFEST
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    schema_version: int = 2
    media_type: str = OCI_INDEX
    manifests: tuple[Descriptor, ...]


class _Process(msgspec.Struct, frozen=True, rename="pascal"):
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    working_dir: str | None = None
    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    stop_signal: str | None = None


class _DiffIds(msgspec.Struct, frozen=True):
    type: str = "layers"
    diff_ids: tuple[str, ...] | None = None


class _Configuration(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    config: _Process | None = None
    rootfs: _DiffIds = _DiffIds()


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    process: ImageConfig
    diff_ids: tuple[str, ...]
    """Digests of the uncompressed layers, bottom first."""


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def go_architecture(machine: str) -> str:
    """`uname -m` in the words of images."""
    return _ARCHITECTURES.get(machine, machine)


def parse_document(raw: bytes, *, what: str, limits: Limits) -> Manifest | Index:
    """A manifest or an index. Raises ImageError(ErrImagePull)."""
    if len(raw) > limits.document_bytes:
        raise refused(f"{what}: the manifest has {len(raw)} bytes, at most {limits.document_bytes} are allowed")
    try:
        shape = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        if "manifests" in shape:
            return _checked_index(msgspec.json.decode(raw, type=Index), what)
        if "fsLayers" in shape:
            raise refused(f"{what}: Docker schema 1 manifests are not supported; push the image again")
        return _checked_manifest(msgspec.json.decode(raw, type=Manifest), what, limits)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise refused(f"{what}: not a valid image manifest: {error}") from error


def _checked_index(index: Index, what: str) -> Index:
    for descriptor in index.manifests:
        _check_descriptor(descriptor, what)
    return index


def _checked_manifest(manifest: Manifest, what: str, limits: Limits) -> Manifest:
    _check_descriptor(manifest.config, what)
    if manifest.config.size > limits.config_bytes:
        raise refused(
            f"{what}: the configuration has {manifest.config.size} bytes, "
            f"at most {limits.config_bytes} are allowed"
        )
    if len(manifest.layers) > limits.layers:
        raise refused(f"{what}: {len(manifest.layers)} layers, at most {limits.layers} are allowed")
    for layer in manifest.layers:
        _check_descriptor(layer, what)
        if "encrypted" in layer.media_type:
            raise refused(f"{what}: layer {layer.digest} is encrypted, which is not supported")
        if layer.size > limits.blob_bytes:
            raise refused(
                f"{what}: layer {layer.digest} has {layer.size} bytes, at most {limits.blob_bytes} are allowed"
            )
    total = sum(layer.size for layer in manifest.layers)
    if total > limits.image_bytes:
        raise refused(f"{what}: the layers have {total} bytes, at most {limits.image_bytes} are allowed")
    return manifest


def _check_descriptor(descriptor: Descriptor, what: str) -> None:
    if not is_digest(descriptor.digest):
        raise refused(f'{what}: digest "{descriptor.digest}" is not sha256:<64 hex digits>')
    if descriptor.size < 0:
        raise refused(f"{what}: {descriptor.digest} has a negative size")


def choose(index: Index, *, architecture: str, what: str) -> Descriptor:
    """The manifest for Linux on `architecture`. An entry without platform counts if it is the only one."""
    fitting = [entry for entry in index.manifests if _fits(entry.platform, architecture)]
    if fitting:
        return fitting[0]
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0]
    offered = ", ".join(sorted(_platform_names(index.manifests))) or "nothing"
    raise refused(f"{what}: no match for platform in manifest: linux/{architecture} wanted, {offered} offered")


def _fits(platform: Platform | None, architecture: str) -> bool:
    return platform is not None and platform.os == "linux" and platform.architecture == architecture


def _platform_names(manifests: Iterable[Descriptor]) -> set[str]:
    return {f"{entry.platform.os}/{entry.platform.architecture}" for entry in manifests if entry.platform}


def parse_configuration(raw: bytes, *, what: str) -> Configuration:
    """Raises ImageError(ImageInspectError)."""
    try:
        document = msgspec.json.decode(raw, type=_Configuration)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise inspect_failed(f"{what}: not a valid image configuration: {error}") from error
    diff_ids = document.rootfs.diff_ids or ()
    for diff_id in diff_ids:
        if not is_digest(diff_id):
            raise inspect_failed(f'{what}: diff_id "{diff_id}" is not sha256:<64 hex digits>')
    return Configuration(process=_process(document.config or _Process(), what), diff_ids=diff_ids)


def _process(process: _Process, what: str) -> ImageConfig:
    return ImageConfig(
        entrypoint=process.entrypoint or (),
        cmd=process.cmd or (),
        env=process.env or (),
        working_dir=process.working_dir or "",
        user=process.user or "",
        exposed_ports=tuple(sorted(_ports(process.exposed_ports or {}))),
        stop_signal=_signal_name(process.stop_signal or "SIGTERM", what),
    )


def _ports(exposed: Iterable[str]) -> Iterable[int]:
    for text in exposed:
        number, _, protocol = text.partition("/")
        if number.isascii() and number.isdigit() and 0 < int(number) < 65536 and protocol in ("", "tcp"):
            yield int(number)


def _signal_name(text: str, what: str) -> str:
    """`9`, `KILL` and `SIGKILL` are all in use."""
    try:
        if text.isascii() and text.isdigit():
            return signal.Signals(int(text)).name
        return signal.Signals["SIG" + text.upper().removeprefix("SIG")].name
    except (KeyError, ValueError):
        if text.upper().startswith(("SIGRTMIN", "RTMIN")):
            return "SIGRTMIN"
        raise inspect_failed(f'{what}: stop signal "{text}" is not known') from None
