"""An OCI image from a directory, without Docker. Blocking.

Reproducible: the same files give the same digest on every machine. Entries are sorted, times are zero, owners are
0:0, and the layer is not compressed, because compressors differ between versions. Zero times would make every
`.pyc` look stale to Python; those that are up to date now are stamped with time zero as well.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from serving.local.images.content import ContentStore
from serving.local.images.errors import pull_failed, refused
from serving.local.images.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest
from serving.local.images.protocol import ImageConfig
from serving.local.images.records import ImageRecord

_EPOCH = "1970-01-01T00:00:00Z"


class BuildSpec(msgspec.Struct, frozen=True, kw_only=True):
    directory: Path
    target: str = "/"
    """Where the directory's contents go in the image."""
    entrypoint: tuple[str, ...] | None = None
    """None keeps the base image's; setting it drops the base's cmd, as Docker does."""
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    """`NAME=value`, added to the base image's."""
    working_dir: str | None = None
    user: str | None = None
    exposed_ports: tuple[int, ...] | None = None
    keep_metadata: bool = False
    """Keep owners and times: for a directory that is a root filesystem already."""


def build_image(
    content: ContentStore, spec: BuildSpec, *, architecture: str, base: ImageRecord | None = None
) -> ImageRecord:
    """Build into the store. All layers of `base` must be present. Raises ImageError."""
    if not spec.directory.is_dir():
        raise pull_failed(f"{spec.directory} is not a directory")
    digest, size = _write_layer(content, spec)
    layer = Descriptor(media_type=OCI_LAYER, digest=digest, size=size)
    layers, diff_ids = (*(base.layers if base else ()), layer), (*(base.diff_ids if base else ()), digest)
    config = _config_document(_merge(base.config if base else ImageConfig(), spec), diff_ids, architecture)
    manifest = Manifest(
        media_type=OCI_MANIFEST,
        config=Descriptor(media_type=OCI_CONFIG, digest=content.put_bytes(config), size=len(config)),
        layers=layers,
    )
    manifest_digest = content.put_bytes(msgspec.json.encode(manifest, order="deterministic"))
    return content.put_image(manifest_digest, what=str(spec.directory))


def _merge(base: ImageConfig, spec: BuildSpec) -> ImageConfig:
    variables = {entry.partition("=")[0]: entry for entry in (*base.env, *spec.env)}
    cmd = spec.cmd if spec.cmd is not None else (base.cmd if spec.entrypoint is None else ())
    return ImageConfig(
        entrypoint=base.entrypoint if spec.entrypoint is None else spec.entrypoint,
        cmd=cmd,
        env=tuple(variables.values()),
        working_dir=base.working_dir if spec.working_dir is None else spec.working_dir,
        user=base.user if spec.user is None else spec.user,
        exposed_ports=base.exposed_ports if spec.exposed_ports is None else spec.exposed_ports,
        stop_signal=base.stop_signal,
    )


def _config_document(config: ImageConfig, diff_ids: tuple[str, ...], architecture: str) -> bytes:
    process: dict[str, object] = {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Env": list(config.env),
        "WorkingDir": config.working_dir,
        "User": config.user,
        "ExposedPorts": {f"{port}/tcp": {} for port in config.exposed_ports},
        "StopSignal": "" if config.stop_signal == "SIGTERM" else config.stop_signal,
    }
    document = {
        "created": _EPOCH,
        "architecture": architecture,
        "os": "linux",
        "config": {key: value for key, value in process.items() if value},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    return msgspec.json.encode(document, order="deterministic")


# the layer


class _HashingFile(io.BytesIO):
    """What tarfile writes to: a file that knows its digest."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._hasher = hashlib.sha256()

    def write(self, data: bytes, /) -> int:  # type: ignore[override]  # tarfile writes bytes
        self._hasher.update(data)
        return self._file.write(data)

    @property
    def digest(self) -> str:
        return "sha256:" + self._hasher.hexdigest()


def _write_layer(content: ContentStore, spec: BuildSpec) -> tuple[str, int]:
    with content.scratch() as scratch:
        path = scratch / "layer"
        try:
            with path.open("xb") as file:
                sink = _HashingFile(file)
                with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                    _add_tree(archive, spec)
        except OSError as error:
            raise pull_failed(
                f"{error.filename or spec.directory} cannot be read: {error.strerror or error}"
            ) from error
        size = path.stat().st_size
        if size > content.limits.blob_bytes:
            raise refused(f"{spec.directory}: {size} bytes, at most {content.limits.blob_bytes} are allowed")
        content.commit_blob(path, sink.digest)
        return sink.digest, size


def _add_tree(archive: tarfile.TarFile, spec: BuildSpec) -> None:
    prefix = spec.target.strip("/")
    for parent in _parents(prefix):
        archive.addfile(_directory_header(parent))
    linked: dict[tuple[int, int], str] = {}
    for path, status in walk(spec.directory):
        relative = path.relative_to(spec.directory).as_posix()
        name = f"{prefix}/{relative}" if prefix else relative
        header = _header(name, path, status, keep=spec.keep_metadata)
        if header is None:
            continue
        identity = (status.st_dev, status.st_ino)
        if header.isreg() and status.st_nlink > 1 and identity in linked:
            header.type, header.linkname, header.size = tarfile.LNKTYPE, linked[identity], 0
            archive.addfile(header)
        elif header.isreg():
            linked[identity] = name
            _add_file(archive, header, path, keep=spec.keep_metadata)
        else:
            archive.addfile(header)


def _parents(prefix: str) -> Iterator[str]:
    parts = prefix.split("/") if prefix else []
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def _directory_header(name: str) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.mode = tarfile.DIRTYPE, 0o755
    return header


def walk(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below, sorted, parents first, links not followed. Raises OSError."""
    pending = [directory]
    while pending:
        path = pending.pop()
        if path != directory:
            status = path.lstat()
            yield path, status
            if not stat.S_ISDIR(status.st_mode):
                continue
        pending.extend(sorted(path.iterdir(), reverse=True))


def _header(name: str, path: Path, status: os.stat_result, *, keep: bool) -> tarfile.TarInfo | None:
    """None for what has no place in an image: devices and sockets."""
    header = tarfile.TarInfo(name)
    header.mode = stat.S_IMODE(status.st_mode)
    if keep:
        header.uid, header.gid, header.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
    if stat.S_ISREG(status.st_mode):
        header.size = status.st_size
    elif stat.S_ISDIR(status.st_mode):
        header.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        header.type, header.linkname, header.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
    elif stat.S_ISFIFO(status.st_mode):
        header.type = tarfile.FIFOTYPE
    else:
        return None
    return header


def _add_file(archive: tarfile.TarFile, header: tarfile.TarInfo, path: Path, *, keep: bool) -> None:
    with path.open("rb") as file:
        stamped = None if keep or path.suffix != ".pyc" else _restamped(path, file.read(16))
        file.seek(0)
        archive.addfile(header, _Patched(file, stamped) if stamped else file)


class _Patched(io.BytesIO):
    """A file whose first bytes are others."""

    def __init__(self, file: BinaryIO, start: bytes) -> None:
        super().__init__()
        self._file = file
        self._start = start

    def read(self, size: int | None = -1) -> bytes:
        size = 1 << 62 if size is None or size < 0 else size
        head, self._start = self._start[:size], self._start[size:]
        if head:
            self._file.seek(len(head), os.SEEK_CUR)
        return head + self._file.read(size - len(head))


def _restamped(path: Path, start: bytes) -> bytes | None:
    """The 16 byte header of a time-checked, up-to-date `.pyc` with the source's time set to zero (PEP 552)."""
    if len(start) < 16 or start[4:8] != bytes(4) or path.parent.name != "__pycache__":
        return None
    source = path.parent.parent / (path.name.partition(".")[0] + ".py")
    if not source.is_file() or int(source.stat().st_mtime) & 0xFFFFFFFF != int.from_bytes(start[8:12], "little"):
        return None
    return start[:8] + bytes(4) + start[12:16]


def tree_fingerprint(directory: Path) -> str:
    """Changes whenever anything below changes; reads no file. Raises OSError."""
    hasher = hashlib.sha256()
    for path, status in walk(directory):
        facts = (status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_ctime_ns)
        hasher.update(f"{os.fsencode(path)!r}{facts}".encode())
    return hasher.hexdigest()
