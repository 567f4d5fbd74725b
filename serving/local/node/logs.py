"""Container logs as `kubectl logs` shows them, out of files in CRI format.

A line is `<RFC3339Nano> stdout|stderr F|P <text>`; `P` pieces belong to the line that a later `F` of the same
stream ends. Pure, but for what it is told to read.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from serving.api.timestamps import parse_nanos


class LogOptions(msgspec.Struct, frozen=True, kw_only=True):
    """As the query of a log request. `since_nanos`: Unix nanoseconds; None = no bound."""

    follow: bool = False
    tail_lines: int | None = None
    since_nanos: int | None = None
    timestamps: bool = False
    limit_bytes: int | None = None


class LogLine(NamedTuple):
    stamp: bytes
    stream: bytes
    partial: bool
    text: bytes


def parse_line(line: bytes) -> LogLine | None:
    """One line without its newline; None when it is not in CRI format (a torn write)."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr") or parts[2] not in (b"F", b"P"):
        return None
    return LogLine(parts[0], parts[1], parts[2] == b"P", parts[3] if len(parts) > 3 else b"")


class LogFilter:
    """Turns chunks of a log file into the bytes to send."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._rest = b""
        self._late = options.since_nanos is None
        self._left = options.limit_bytes
        self._open: set[bytes] = set()

    @property
    def done(self) -> bool:
        """The limit is reached; nothing more will come."""
        return self._left is not None and self._left <= 0

    def feed(self, chunk: bytes) -> bytes:
        lines = (self._rest + chunk).split(b"\n") if self._rest else chunk.split(b"\n")
        self._rest = lines.pop()
        out = bytearray()
        for line in lines:
            parsed = parse_line(line)
            if parsed is not None and self._wanted(parsed.stamp):
                self._write(parsed, out)
        if self._left is not None:
            del out[max(self._left, 0) :]
            self._left -= len(out)
        return bytes(out)

    def restart(self) -> None:
        """Another file follows: what was left of the last one is torn."""
        self._rest = b""

    def _write(self, line: LogLine, out: bytearray) -> None:
        if self._options.timestamps and line.stream not in self._open:
            out += line.stamp + b" "
        out += line.text
        if line.partial:
            self._open.add(line.stream)
        else:
            self._open.discard(line.stream)
            out += b"\n"

    def _wanted(self, stamp: bytes) -> bool:
        if not self._late:
            try:
                at = parse_nanos(stamp.decode())
            except ValueError:
                return False
            self._late = at >= (self._options.since_nanos or 0)
        return self._late


def tail_text(raw: bytes, *, lines: int) -> str:
    """Text of the last `lines` lines of a piece of a log file."""
    kept = [parsed for line in raw.split(b"\n") if (parsed := parse_line(line)) is not None][-lines:]
    out = bytearray()
    for line in kept:
        out += line.text + (b"" if line.partial else b"\n")
    return out.decode(errors="replace")
