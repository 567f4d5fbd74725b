"""Reading and writing descriptors of pipes and terminals in the event loop."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from typing import Final

CHUNK: Final = 32 * 1024


async def copy_out(fd: int, write: Callable[[bytes], Awaitable[None]], *, ended: asyncio.Event) -> None:
    """Read until the end. Once `ended` is set, only what is there already: a program that was left running in the
    background may hold the other end open. Raises what `write` raises."""
    os.set_blocking(fd, False)
    while True:
        complete = ended.is_set()  # asked before reading: what was written before the end is read
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            if complete:
                return
            await _readable(fd, ended)
            continue
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that nobody has open any more
                raise
            return
        if not data:
            return
        await write(data)


async def copy_in(fd: int, data: bytes) -> None:
    """Write all of it. Raises OSError, BrokenPipeError when nobody will read."""
    os.set_blocking(fd, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _writable(fd)


async def _readable(fd: int, ended: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _settle, ready)
    waiting = asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((ready, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        loop.remove_reader(fd)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
