"""Connects a client's session with a program's streams: exec and attach."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import struct
import termios
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.sandbox.descriptors import copy_in, copy_out
from serving.local.sandbox.protocol import Execution, Sandbox, SandboxError, Streams
from serving.local.streaming.session import (
    STDERR,
    STDOUT,
    RemoteSession,
    TerminalSize,
    exited,
    failed,
    succeeded,
)

_END_OF_INPUT: Final = b"\x04"
"""What a terminal's user types to end a program's input."""


async def serve(session: RemoteSession, work: Callable[[], Awaitable[JsonObject]]) -> None:
    """Do the work and tell its status, unless the client goes first."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(_once_open(session, work))
        serving = group.create_task(session.run())
        serving.add_done_callback(lambda _: working.cancel())
        await asyncio.wait((working,))
        if not working.cancelled() and working.exception() is None:
            status = working.result()
            if status is not None:
                await session.finish(status)
        serving.cancel()


async def _once_open(session: RemoteSession, work: Callable[[], Awaitable[JsonObject]]) -> JsonObject | None:
    """None = there is nobody to tell it to."""
    try:
        await session.opened()
        return await work()
    except (ConnectionError, TimeoutError):
        return None


async def execute(session: RemoteSession, start: Callable[[], Awaitable[Execution]]) -> JsonObject:
    """A client that goes takes its program with it. Raises ConnectionError."""
    try:
        execution = await start()
    except SandboxError as error:
        return failed(f"error executing command in container: {error}")
    try:
        return await _run(session, execution)
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    finally:
        execution.kill()
        execution.streams.close()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    return next(
        (error for error in errors.exceptions if not isinstance(error, ConnectionError)), errors.exceptions[0]
    )


async def _run(session: RemoteSession, execution: Execution) -> JsonObject:
    streams, ended = execution.streams, asyncio.Event()
    async with asyncio.TaskGroup() as group:
        outputs = [group.create_task(copy) for copy in _outputs(session, streams, ended)]
        inputs = [group.create_task(_feed(session, streams)), group.create_task(_resize(session, streams))]
        try:
            status = exited(await execution.wait())
        except SandboxError as error:
            status = failed(f"error executing command in container: {error}")
        ended.set()
        if outputs:
            await asyncio.wait(outputs)
        for task in inputs:
            task.cancel()
    return status


async def attach(session: RemoteSession, sandbox: Sandbox, name: str, *, stdin: bool, once: bool) -> JsonObject:
    """Until the container ends. `stdin`: it takes input; `once`: from nobody after this client.

    Raises ConnectionError.
    """
    try:
        streams = await sandbox.attach(name)
    except SandboxError as error:
        return failed(f"error attaching to container: {error}")
    try:
        async with asyncio.TaskGroup() as group:
            outputs = [group.create_task(copy) for copy in _outputs(session, streams, asyncio.Event())]
            inputs = [group.create_task(_resize(session, streams))]
            if stdin and session.wanted.stdin:
                inputs.append(group.create_task(_attached_input(session, streams, sandbox, name, once=once)))
            await asyncio.wait(outputs)
            for task in inputs:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    finally:
        streams.close()
    return succeeded()


def _outputs(session: RemoteSession, streams: Streams, ended: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
    copies = []
    for fd, channel, wanted in (
        (streams.stdout, STDOUT, session.wanted.stdout),
        (streams.stderr, STDERR, session.wanted.stderr),
    ):
        if fd is not None:
            write = functools.partial(session.write, channel) if wanted else _drop
            copies.append(copy_out(fd, write, ended=ended))
    return copies


async def _drop(data: bytes) -> None:
    """Nobody wants it, but the program must not wait."""


async def _feed(session: RemoteSession, streams: Streams) -> None:
    """Until the client's input ends, which ends the program's. What comes for a program that reads no more is
    thrown away: the connection must go on."""
    open_ = True
    while data := await session.read_stdin():
        open_ = open_ and await _take(streams, data)
    if streams.terminal and open_:
        await _take(streams, _END_OF_INPUT)
    streams.close_stdin()


async def _take(streams: Streams, data: bytes) -> bool:
    """False when the program does not read any more."""
    if streams.stdin is None:
        return False
    try:
        await copy_in(streams.stdin, data)
    except OSError:
        streams.close_stdin()
        return False
    return True


async def _attached_input(
    session: RemoteSession, streams: Streams, sandbox: Sandbox, name: str, *, once: bool
) -> None:
    try:
        open_ = True
        while data := await session.read_stdin():
            open_ = open_ and await _take(streams, data)
    finally:
        if once:
            streams.close_stdin()  # ours, besides the one that the container's keeper has
            await asyncio.shield(sandbox.close_stdin(name))


async def _resize(session: RemoteSession, streams: Streams) -> None:
    while size := await session.read_size():
        if streams.terminal and streams.stdin is not None:
            _set_size(streams.stdin, size)


def _set_size(fd: int, size: TerminalSize) -> None:
    try:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.height, size.width, 0, 0))
    except OSError:  # the program is gone
        return
