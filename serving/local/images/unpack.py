"""Layers as streams: decompress, count, verify, hand each member to the tree. Blocking.

Nothing is held in memory but one chunk and one tar header. The digest of the uncompressed bytes (`diff_id`) is
compared at the end of each layer; the caller shows the tree to nobody before `unpack` has returned.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import IO, BinaryIO, Self, cast

import zstandard

from serving.local.images.errors import refused
from serving.local.images.limits import MIB, Limits
from serving.local.images.protocol import ImageError
from serving.local.images.tree import TreeWriter

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW = 128 * MIB
_CHUNK = 1 << 20
_EXTENDED = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
BROKEN = (tarfile.TarError, EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile, ValueError)


class Cancelled(Exception):
    """Nobody wants the result any more."""


class LayerStream(io.RawIOBase):
    """The uncompressed bytes of a layer, counted and hashed on the way."""

    def __init__(self, packed: BinaryIO, *, limits: Limits, allowance: int, what: str, stop: Event) -> None:
        super().__init__()
        self._packed = packed
        self._plain = open_compressed(packed)
        self._limits = limits
        self._allowance = allowance
        self._what = what
        self._stop = stop
        self._hasher = hashlib.sha256()
        self.count = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._stop.is_set():
            raise Cancelled
        data = self._plain.read(size if 0 <= size <= _CHUNK else _CHUNK)
        self.count += len(data)
        self._hasher.update(data)
        if self.count > self._allowance:
            raise refused(f"{self._what}: refusing to unpack: more than {self._allowance} bytes unpacked")
        if self.count > self._limits.ratio_grace and self.count > self._limits.ratio * self._packed.tell():
            raise refused(f"{self._what}: refusing to unpack: expands more than {self._limits.ratio}-fold")
        return data

    def drain(self) -> str:
        """Read to the end; the digest of everything."""
        while self.read(_CHUNK):
            pass
        return "sha256:" + self._hasher.hexdigest()


def open_compressed(packed: IO[bytes]) -> IO[bytes]:
    """The plain bytes of a gzip, zstd or plain file, told apart by its first bytes; `packed` itself when plain."""
    magic = packed.read(4)
    packed.seek(0)
    if magic.startswith(_GZIP_MAGIC):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=packed, mode="rb"))
    if magic == _ZSTD_MAGIC:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        return cast("IO[bytes]", decompressor.stream_reader(packed, read_across_frames=True, closefd=False))
    return packed


class _BoundedHeader(tarfile.TarInfo):
    """Refuses extended headers that would have to be held in memory whole."""

    limit = MIB

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED and header.size > cls.limit:
            raise refused(
                f"refusing to unpack: a tar header of {header.size} bytes, at most {cls.limit} are allowed"
            )
        if header.size < 0:
            raise refused("refusing to unpack: a tar member of negative size")
        return header


def unpack(
    layers: Sequence[tuple[Path, str]], tree: Path, *, limits: Limits, own: bool, what: str, stop: Event
) -> TreeWriter:
    """Apply layers (blob, diff_id), bottom first, to the empty directory `tree`. `own`: set owners and set-uid
    bits, which needs root. Raises ImageError; Cancelled soon after `stop` is set."""
    writer = TreeWriter(tree, limits=limits, own=own, what=what)
    allowance = 2 * limits.unpacked_bytes  # headers and padding included
    for path, diff_id in layers:
        with path.open("rb") as packed:
            stream = LayerStream(packed, limits=limits, allowance=allowance, what=what, stop=stop)
            found = _apply(stream, writer, limits=limits, what=what)
            allowance -= stream.count
        if found != diff_id:
            raise refused(f"{what}: layer {path.name} unpacks to {found}, its configuration says {diff_id}")
    writer.finish()
    return writer


def _apply(stream: LayerStream, writer: TreeWriter, *, limits: Limits, what: str) -> str:
    header = type("Header", (_BoundedHeader,), {"limit": limits.header_bytes})
    writer.begin_layer()
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=256 * 1024, tarinfo=header) as archive:
            while (member := archive.next()) is not None:
                writer.add(member, archive.extractfile(member) if member.isreg() else None)
                setattr(archive, "members", [])  # noqa: B010 - it would keep every header; typeshed hides the field
        return stream.drain()
    except (ImageError, Cancelled):
        raise
    except BROKEN as error:
        raise refused(f"{what}: a layer is damaged: {error or type(error).__name__}") from error
    except OSError as error:
        raise ImageError("ErrImagePull", f"{what}: cannot unpack: {error.strerror or error}") from error
