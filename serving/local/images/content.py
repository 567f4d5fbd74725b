"""Blobs, image records and names on disk.

    blobs/sha256/<hex>          manifests, configurations, layers; complete and verified, or not there
    partial/<hex>               a download that can be resumed
    images/<hex>/image.json     one image, by manifest digest
    images/<hex>/{erofs,directory}/   its root filesystem, once converted (rootfs.py)
    names/<hex>.json            one name, by hash of the name (names are longer than file names may be)
    tmp/                        everything here is garbage while nobody holds `content.lock`
    trash/                      always garbage
    locks/<hex>.pin             shared: in use; exclusive: being evicted
    locks/<hex>.convert         exclusive: being converted
    content.lock                shared: somebody adds or looks for content; exclusive: sweeping

Locks are taken in this order: content, convert, pin.

Everything appears by rename, so a reader sees all of it or nothing, at any moment of a crash. Blocking: call it
from a thread.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from serving.local.images.errors import inspect_failed, refused
from serving.local.images.limits import Limits
from serving.local.images.manifest import Manifest, parse_configuration, parse_document, sha256
from serving.local.images.records import ImageRecord, NameRecord, Origin

_CHUNK = 1 << 20
_T = TypeVar("_T")


class ContentStore:
    def __init__(self, root: Path, *, limits: Limits) -> None:
        self.root = root
        self.limits = limits
        self.content_lock = root / "content.lock"
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        self._images = root / "images"
        self._names = root / "names"
        self._locks = root / "locks"
        self._tmp = root / "tmp"
        self._trash = root / "trash"

    def create(self) -> None:
        """Make the directories. The root is closed to other users: images hold setuid programs."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (
            self._blobs,
            self._partial,
            self._images,
            self._names,
            self._locks,
            self._tmp,
            self._trash,
        ):
            directory.mkdir(parents=True, exist_ok=True)

    # blobs

    def blob_path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def partial_path(self, digest: str) -> Path:
        return self._partial / digest.removeprefix("sha256:")

    def has_blob(self, digest: str) -> bool:
        return self.blob_path(digest).is_file()

    def read_blob(self, digest: str, *, limit: int) -> bytes:
        """A small blob. Raises ImageError when it is missing or larger than `limit` bytes."""
        path = self.blob_path(digest)
        try:
            if path.stat().st_size > limit:
                raise refused(f"{digest} is larger than {limit} bytes")
            return path.read_bytes()
        except FileNotFoundError:
            raise inspect_failed(f"blob {digest} is missing from the image store {self.root}") from None

    def put_bytes(self, data: bytes) -> str:
        digest = sha256(data)
        if not self.has_blob(digest):
            with self.scratch() as directory:
                path = directory / "blob"
                path.write_bytes(data)
                self.commit_blob(path, digest)
        return digest

    def put_stream(self, stream: IO[bytes], *, digest: str = "", size: int | None = None, what: str) -> str:
        """Copy a blob in. Raises ImageError when its digest or size is not the given one."""
        if digest and self.has_blob(digest):
            return digest
        limit = self.limits.blob_bytes if size is None else size
        hasher = hashlib.sha256()
        copied = 0
        with self.scratch() as directory:
            path = directory / "blob"
            with path.open("xb") as target:
                while chunk := stream.read(_CHUNK):
                    copied += len(chunk)
                    if copied > limit:
                        raise refused(f"{what}: {digest or 'a layer'} is larger than {limit} bytes")
                    hasher.update(chunk)
                    target.write(chunk)
            found = "sha256:" + hasher.hexdigest()
            if (digest and found != digest) or (size is not None and copied != size):
                raise refused(f"{what}: {digest} is corrupt: {copied} bytes with digest {found}")
            self.commit_blob(path, found)
        return found

    def commit_blob(self, path: Path, digest: str) -> None:
        """Move a complete, verified file to its place."""
        sync_file(path)
        path.rename(self.blob_path(digest))

    # images

    def image_dir(self, digest: str) -> Path:
        return self._images / digest.removeprefix("sha256:")

    def pin_lock(self, digest: str) -> Path:
        return self._locks / f"{digest.removeprefix('sha256:')}.pin"

    def convert_lock(self, digest: str) -> Path:
        return self._locks / f"{digest.removeprefix('sha256:')}.convert"

    def put_image(self, manifest_digest: str, *, what: str) -> ImageRecord:
        """Register an image whose manifest and configuration are stored. Raises ImageError."""
        known = self.image(manifest_digest)
        if known is not None:
            return known
        raw = self.read_blob(manifest_digest, limit=self.limits.document_bytes)
        manifest = parse_document(raw, what=what, limits=self.limits)
        if not isinstance(manifest, Manifest):
            raise inspect_failed(f"{what}: {manifest_digest} is an index, not an image")
        configuration = parse_configuration(
            self.read_blob(manifest.config.digest, limit=self.limits.config_bytes), what=what
        )
        if len(configuration.diff_ids) != len(manifest.layers):
            raise inspect_failed(
                f"{what}: {len(manifest.layers)} layers but {len(configuration.diff_ids)} diff_ids"
            )
        record = ImageRecord(
            digest=manifest_digest,
            config_digest=manifest.config.digest,
            layers=manifest.layers,
            diff_ids=configuration.diff_ids,
            config=configuration.process,
            size_bytes=len(raw) + manifest.config.size + sum(layer.size for layer in manifest.layers),
            created_at=time.time(),
        )
        self.image_dir(manifest_digest).mkdir(exist_ok=True)
        self.write_json(self.image_dir(manifest_digest) / "image.json", record)
        return record

    def image(self, digest: str) -> ImageRecord | None:
        return read_json(self.image_dir(digest) / "image.json", ImageRecord)

    def images(self) -> Iterator[ImageRecord]:
        for entry in sorted(self._images.iterdir()):
            record = read_json(entry / "image.json", ImageRecord)
            if record is not None:
                yield record

    def missing_layers(self, record: ImageRecord) -> list[str]:
        return [layer.digest for layer in record.layers if not self.has_blob(layer.digest)]

    # names

    def _name_path(self, name: str) -> Path:
        return self._names / f"{hashlib.sha256(name.encode()).hexdigest()}.json"

    def set_name(
        self, name: str, *, digest: str, resolved: str = "", origin: Origin, fingerprint: str = ""
    ) -> NameRecord:
        record = NameRecord(
            name=name,
            digest=digest,
            resolved=resolved or digest,
            origin=origin,
            fingerprint=fingerprint,
            updated_at=time.time(),
        )
        self.write_json(self._name_path(name), record)
        return record

    def name(self, name: str) -> NameRecord | None:
        return read_json(self._name_path(name), NameRecord)

    def names(self) -> Iterator[NameRecord]:
        for path in sorted(self._names.iterdir()):
            record = read_json(path, NameRecord)
            if record is not None:
                yield record

    def remove_name(self, name: str) -> None:
        self._name_path(name).unlink(missing_ok=True)

    def by_digest(self, digest: str) -> ImageRecord | None:
        """An image by its own digest or by that of an index through which it was found."""
        record = self.image(digest)
        if record is not None:
            return record
        alias = self.name(alias_name(digest))
        return self.image(alias.digest) if alias is not None else None

    def set_alias(self, index_digest: str, digest: str) -> None:
        if index_digest != digest:
            self.set_name(alias_name(index_digest), digest=digest, origin="source")

    # files

    def scratch(self) -> Scratch:
        return Scratch(self._tmp)

    def blobs(self) -> Iterator[Path]:
        return self._blobs.iterdir()

    def scratches(self) -> Iterator[Path]:
        return self._tmp.iterdir()

    def partials(self) -> Iterator[Path]:
        return self._partial.iterdir()

    def discard(self, path: Path) -> None:
        """Put it out of sight at once; `empty_trash` deletes it."""
        if path.exists() or path.is_symlink():
            path.rename(self._trash / secrets.token_hex(8))

    def empty_trash(self) -> None:
        for path in list(self._trash.iterdir()):
            remove_tree(path)

    def write_json(self, path: Path, value: msgspec.Struct) -> None:
        with self.scratch() as directory:
            temporary = directory / "json"
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1))
            sync_file(temporary)
            temporary.rename(path)


class Scratch:
    """A private temporary directory in the store, removed at the end whatever it holds."""

    def __init__(self, parent: Path) -> None:
        self.path = parent / secrets.token_hex(8)

    def __enter__(self) -> Path:
        self.path.mkdir(mode=0o700)
        return self.path

    def __exit__(self, *_: object) -> None:
        remove_tree(self.path)


def alias_name(digest: str) -> str:
    return f"@{digest}"


def sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_json(path: Path, kind: type[_T]) -> _T | None:
    """None when it is not there. A record that cannot be read is an error, never an absence: treating it as
    absent would let the next write replace what a user stored."""
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError as error:
        raise inspect_failed(
            f"{path} is damaged ({error}); remove it and import or pull the image again"
        ) from error


def remove_tree(path: Path) -> None:
    """Remove a tree that an image described: its directories may deny their owner everything."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    if os.geteuid() != 0:
        path.chmod(0o700)
        for directory, names, _ in os.walk(path):
            for name in names:
                child = os.path.join(directory, name)
                if not os.path.islink(child):
                    os.chmod(child, 0o700)
    shutil.rmtree(path)
