"""Programs with streams in a pod that a shim holds: exec, attach, and connections to its ports."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Any

from serving.local.sandbox.channel import Channel, ChannelClosed
from serving.local.sandbox.protocol import SandboxError, Streams


class ShimExecution:
    """Implements `Execution`."""

    def __init__(self, channel: Channel, identifier: int, reply: asyncio.Future[Any], streams: Streams) -> None:
        self._channel = channel
        self._identifier = identifier
        self._reply = reply
        self.streams = streams

    async def wait(self) -> int:
        code: int = (await asyncio.shield(self._reply))["exit_code"]
        return code

    def kill(self) -> None:
        if not self._channel.closed and not self._reply.done():
            self._channel.post("exec-kill", exec=self._identifier)


async def execute(
    channel: Channel, name: str, argv: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool
) -> ShimExecution:
    """With pipes, and nothing where no stream is wanted."""
    ours: dict[str, int] = {}
    theirs: list[int] = []
    try:
        for stream, wanted in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            if not wanted:
                theirs.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                continue
            read, write = os.pipe2(os.O_CLOEXEC)
            ours[stream], other = (write, read) if stream == "stdin" else (read, write)
            theirs.append(other)
        identifier, reply = channel.post("exec", fds=theirs, name=name, argv=list(argv))
    except BaseException:
        for fd in ours.values():
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return ShimExecution(
        channel,
        identifier,
        reply,
        Streams(stdin=ours.get("stdin"), stdout=ours.get("stdout"), stderr=ours.get("stderr")),
    )


async def execute_in_terminal(channel: Channel, name: str, argv: Sequence[str]) -> ShimExecution:
    """The program's process makes the terminal and sends its master side."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        identifier, reply = channel.post("exec", fds=[theirs.fileno()], name=name, argv=list(argv), tty=True)
        theirs.close()
        execution = ShimExecution(channel, identifier, reply, Streams(terminal=True))
        try:
            await _received(ours, reply)
            _, fds, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
        except BaseException:
            execution.kill()
            raise
    if not fds:
        # It failed before it had a terminal: the reply says why.
        await execution.wait()
        raise SandboxError("CreateContainerError", f"{argv[0]}: no terminal could be made")
    execution.streams = Streams(stdin=fds[0], stdout=fds[0], terminal=True)
    return execution


async def _received(link: socket.socket, reply: asyncio.Future[Any]) -> None:
    """Something came over the link, or it was closed, as it is when the program could not be started."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(link.fileno(), _settle, readable)
    try:
        await asyncio.wait((readable, reply), return_when=asyncio.FIRST_COMPLETED)
        if not readable.done():
            await reply  # raises what it failed with
            await readable
    finally:
        loop.remove_reader(link.fileno())


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def attach(channel: Channel, name: str) -> Streams:
    """The output from now on; its end is the container's."""
    out, out_theirs = socket.socketpair()
    err, err_theirs = socket.socketpair()
    with out_theirs, err_theirs, out, err:
        granted = await channel.request("attach", fds=[out_theirs.fileno(), err_theirs.fileno()], name=name)
        return Streams(
            stdin=granted[0] if granted else None,
            stdout=out.detach(),
            stderr=err.detach(),
            terminal=bool(granted) and os.isatty(granted[0]),
        )


async def close_stdin(channel: Channel, name: str) -> None:
    with contextlib.suppress(ChannelClosed):
        await channel.request("close-stdin", name=name)


async def tcp_socket(channel: Channel) -> socket.socket:
    """In the pod's network, not connected yet."""
    (fd,) = await channel.request("socket")
    made = socket.socket(fileno=fd)
    made.setblocking(False)
    return made
