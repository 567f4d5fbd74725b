"""A container's log file in CRI format: `<RFC3339Nano> stdout|stderr F|P <text>` per line.

Written by the pod's shim, so that neither the node agent's nor the spawner's death loses a line. Rotated by size:
the full file becomes `<log>.1`, replacing the one before. A line longer than `MAX_LINE` is split into `P`
(partial) pieces and a last `F`. Timestamps are UTC.
"""

from __future__ import annotations

import os
import time

MAX_LINE = 16 * 1024
"""Bytes; the container runtimes' usual bound."""


class LogFile:
    """Opened for append; keeps working when the disk is full (lines are dropped, the container is not blocked)."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self.dropped = 0
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        view = memoryview(data)
        while view:
            try:
                written = os.write(self._fd, view)
            except OSError:
                self.dropped += 1
                return
            self._size += written
            view = view[written:]

    def _rotate(self) -> None:
        try:
            os.replace(self._path, self._path + ".1")
        except OSError:
            return
        previous = self._fd
        try:
            self._open()
        except OSError:
            self._fd = previous
        else:
            os.close(previous)

    def close(self) -> None:
        os.close(self._fd)


class LineFramer:
    """Bytes of one stream in, CRI lines out. Pure but for the timestamp that is passed in."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._full = f" {stream} F ".encode()
        self._partial = f" {stream} P ".encode()
        self._rest = b""

    def feed(self, data: bytes, stamp: bytes) -> bytes:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        out: list[bytes] = []
        for line in lines:
            self._emit(line, stamp, out)
        while len(self._rest) >= MAX_LINE:
            out += (stamp, self._partial, self._rest[:MAX_LINE], b"\n")
            self._rest = self._rest[MAX_LINE:]
        return b"".join(out)

    def _emit(self, line: bytes, stamp: bytes, out: list[bytes]) -> None:
        while len(line) > MAX_LINE:
            out += (stamp, self._partial, line[:MAX_LINE], b"\n")
            line = line[MAX_LINE:]
        out += (stamp, self._full, line, b"\n")

    def finish(self, stamp: bytes) -> bytes:
        """The last line, when the stream ended without a newline."""
        if not self._rest:
            return b""
        out: list[bytes] = []
        self._emit(self._rest, stamp, out)
        self._rest = b""
        return b"".join(out)


def timestamp() -> bytes:
    """Now as RFC3339Nano in UTC."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    moment = time.gmtime(seconds)
    return b"%04d-%02d-%02dT%02d:%02d:%02d.%09dZ" % (*moment[:6], nanoseconds)
