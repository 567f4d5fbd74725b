"""Reads container logs from disk: tail, across rotation, and on as they grow.

The writer renames a full file to `<log>.1` and goes on in a new one. A follower keeps its file open, reads it to
the end and then turns to the new one. It sleeps on inotify, not on a clock.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from serving.local.node.logs import LogFilter, LogOptions

_CHUNK: Final = 64 * 1024
_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100


class DirectoryWatch:
    """`changed` is set whenever something in the directory is written, created or renamed."""

    def __init__(self, directory: Path) -> None:
        self.changed = asyncio.Event()
        self._directory = directory
        self._descriptor = -1

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
        if descriptor < 0 or libc.inotify_add_watch(descriptor, os.fsencode(self._directory), mask) < 0:
            number = ctypes.get_errno()
            if descriptor >= 0:
                os.close(descriptor)
            raise OSError(number, f"inotify: {os.strerror(number)}", str(self._directory))
        self._descriptor = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        os.read(self._descriptor, _CHUNK)
        self.changed.set()


async def read_log(
    path: Path,
    options: LogOptions,
    *,
    running: Callable[[], bool],
    listen: Callable[[Callable[[], None]], Callable[[], None]],
) -> AsyncGenerator[bytes, None]:
    """The log in pieces. A follower ends when the container is not `running` and all is read; `listen` registers
    a callback for a change of that and gives back how to unregister it."""
    log_filter = LogFilter(options)
    if options.limit_bytes == 0:
        return
    with DirectoryWatch(path.parent) as watch:
        unlisten = listen(watch.changed.set)
        try:
            async for chunk in _chunks(path, options, watch, running):
                if chunk is None:
                    log_filter.restart()
                    continue
                out = log_filter.feed(chunk)
                if out:
                    yield out
                if log_filter.done:
                    return
        finally:
            unlisten()


async def _chunks(
    path: Path, options: LogOptions, watch: DirectoryWatch, running: Callable[[], bool]
) -> AsyncGenerator[bytes | None, None]:
    """Raw bytes; None where one file ends and the next begins."""
    file: BinaryIO | None = None
    try:
        for older, offset in await asyncio.to_thread(_positions, path, options.tail_lines):
            if file is not None:
                file.close()
                yield None
            file = await asyncio.to_thread(_open, older, offset)
            while file is not None and (chunk := await asyncio.to_thread(file.read, _CHUNK)):
                yield chunk
        while options.follow:
            # Read after asking, so that what was written before the end is not missed.
            alive = running()
            watch.changed.clear()
            grown = False
            while file is not None and (chunk := await asyncio.to_thread(file.read, _CHUNK)):
                grown = True
                yield chunk
            if await asyncio.to_thread(_replaced, path, file):
                if file is not None:
                    # The last lines may have come between the end of the file and its renaming.
                    yield await asyncio.to_thread(file.read)
                    file.close()
                    yield None
                file = await asyncio.to_thread(_open, path, 0)
                continue
            if not alive and not grown:
                return
            if alive and not grown:
                await watch.changed.wait()
    finally:
        if file is not None:
            file.close()


def _positions(path: Path, tail_lines: int | None) -> list[tuple[Path, int]]:
    """The files to read, oldest first, and where to begin in each."""
    files = [older for older in (path.with_name(path.name + ".1"), path) if older.exists()]
    if tail_lines is None:
        return [(file, 0) for file in files]
    wanted, out = tail_lines, []
    for file in reversed(files):
        offset, found = _tail(file, wanted)
        out.append((file, offset))
        wanted -= found
        if wanted <= 0:
            break
    return out[::-1]


def _tail(path: Path, lines: int) -> tuple[int, int]:
    """(offset of the last `lines` lines, how many there are)."""
    with path.open("rb") as file:
        end = position = file.seek(0, os.SEEK_END)
        if lines <= 0:
            return end, 0
        found = 0
        while position > 0:
            step = min(_CHUNK, position)
            position -= step
            file.seek(position)
            block = file.read(step)
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                if position + at + 1 == end:
                    continue  # the newline that ends the file begins no line
                found += 1
                if found == lines:
                    return position + at + 1, found
        return 0, found + 1 if end else 0


def _open(path: Path, offset: int) -> BinaryIO | None:
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
    file.seek(offset)
    return file


def _replaced(path: Path, file: BinaryIO | None) -> bool:
    """Another file has the log's name now."""
    try:
        current = path.stat()
    except FileNotFoundError:
        return False
    if file is None:
        return True
    own = os.fstat(file.fileno())
    return (own.st_dev, own.st_ino) != (current.st_dev, current.st_ino)
