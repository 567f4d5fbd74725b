"""The ledger of releases in a memory-mapped file, so that it outlives a killed agent.

Slots of containerConcurrency and drains depend on knowing which requests run. Load reports cannot tell: they
count held and released requests together and not by pod. A mapping costs two small copies a release and no
system call, and what was stored is safe the moment it is copied: the pages belong to the kernel, not to the
process. (After a crash of the machine Envoy's requests are gone too.)

Layout: a header, then records of a fixed size. The first byte of a record says whether it is live and is
written last, so a record is never seen half written. The file doubles when it is full.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from serving.activator.holds import Release

MAGIC = b"nodeless-ledger-1\n"
RECORD_BYTES = 512
FIRST_RECORDS = 2048
MAX_AGE_SECONDS = 24 * 3600.0
"""Older records are not restored: no time-out is longer, so they can only be left-overs."""

_LIVE = 1
_LENGTH = struct.Struct("<H")
_PAYLOAD_AT = 1 + _LENGTH.size


class LedgerBusy(RuntimeError):
    """Another agent has this ledger open. `path` names the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: in use by another gateway agent; stop it or give this one its own state directory"
        )
        self.path = path


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One live release on disk."""

    revision: str
    release: Release


class Journal:
    """Open ledger file. Not for several processes: the file is locked.

    Raises LedgerBusy when another process has it, OSError when the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "releases.ledger"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise LedgerBusy(self._path) from None
        self._map = self._open()
        self._encoder = msgspec.msgpack.Encoder()
        self._places: dict[int, int] = {}
        self._free = list(range(len(self._map) // RECORD_BYTES - 1, 0, -1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        return self._path

    def restore(self, now: float) -> Sequence[Entry]:
        """Live records of the earlier life, oldest first. Once, before anything is added. A record that
        cannot be read (another version's) is freed."""
        entries: list[Entry] = []
        for place, entry in self._scan():
            if entry is None or now - entry.release.at > MAX_AGE_SECONDS:
                self._map[place * RECORD_BYTES] = 0
                continue
            self._places[entry.release.id] = place
            entries.append(entry)
        used = set(self._places.values())
        self._free = [place for place in self._free if place not in used]
        return sorted(entries, key=lambda entry: entry.release.at)

    def add(self, revision: str, release: Release) -> None:
        """Store a release. A request id too long for a record is cut: it is only a hint."""
        payload = self._encoder.encode(Entry(revision, release))
        if len(payload) > RECORD_BYTES - _PAYLOAD_AT:
            hold = msgspec.structs.replace(release.hold, request_id="")
            payload = self._encoder.encode(Entry(revision, msgspec.structs.replace(release, hold=hold)))
        if len(payload) > RECORD_BYTES - _PAYLOAD_AT:
            raise ValueError(f"release of {revision!r} on {release.pod!r}: record of {len(payload)} bytes")
        if not self._free:
            self._grow()
        place = self._free.pop()
        start = place * RECORD_BYTES
        data = _LENGTH.pack(len(payload)) + payload
        self._map[start + 1 : start + 1 + len(data)] = data
        self._map[start] = _LIVE
        self._places[release.id] = place

    def remove(self, release_id: int) -> None:
        """The release is over. Unknown ids are nothing."""
        place = self._places.pop(release_id, None)
        if place is not None:
            self._map[place * RECORD_BYTES] = 0
            self._free.append(place)

    def close(self) -> None:
        """Records stay; the next agent reads them."""
        self._map.close()
        os.close(self._fd)

    def _open(self) -> mmap.mmap:
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, len(MAGIC), 0) != MAGIC:
            os.close(self._fd)
            raise ValueError(f"{self._path}: not a ledger of releases; move it away")
        wanted = max(size - size % RECORD_BYTES, (FIRST_RECORDS + 1) * RECORD_BYTES)
        os.ftruncate(self._fd, wanted)
        os.pwrite(self._fd, MAGIC, 0)
        return mmap.mmap(self._fd, wanted)

    def _grow(self) -> None:
        records = len(self._map) // RECORD_BYTES
        self._map.close()
        os.ftruncate(self._fd, 2 * records * RECORD_BYTES)
        self._map = mmap.mmap(self._fd, 2 * records * RECORD_BYTES)
        self._free = list(range(2 * records - 1, records - 1, -1))

    def _scan(self) -> Iterator[tuple[int, Entry | None]]:
        decoder = msgspec.msgpack.Decoder(Entry)
        for place in range(1, len(self._map) // RECORD_BYTES):
            start = place * RECORD_BYTES
            if self._map[start] != _LIVE:
                continue
            (length,) = _LENGTH.unpack_from(self._map, start + 1)
            try:
                yield place, decoder.decode(self._map[start + _PAYLOAD_AT : start + _PAYLOAD_AT + length])
            except msgspec.MsgspecError:
                yield place, None
