"""Starts the spawner and asks it for shims. The node agent itself has threads and must never fork."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import serving
from serving.local.sandbox.channel import Channel, Event
from serving.local.sandbox.protocol import SandboxError

_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from serving.local.sandbox.spawner.main import main; main()"
)
_START_SECONDS = 20.0
_SHIM_SECONDS = 20.0


class _NoAnswer(SandboxError):
    """The connection ended before a shim said anything."""

    def __init__(self) -> None:
        super().__init__("CreatePodSandboxError", "the pod's process ended before it was ready")


class ShimHandle:
    """A fresh shim: its channel, pid and (isolated only) a descriptor of its network namespace, owned by the
    holder of the handle."""

    def __init__(self, channel: Channel, pid: int, netns: int) -> None:
        self.channel = channel
        self.pid = pid
        self.netns = netns


class SpawnerClient:
    """One spawner process, started on first use and again when it was killed."""

    def __init__(self, *, isolate: bool, rootless: bool, stage: Path) -> None:
        """`stage`: an existing directory to mount on, inside the spawner's own mount namespace."""
        self._options = json.dumps({"isolate": isolate, "rootless": rootless, "stage": str(stage)})
        self._lock = asyncio.Lock()
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """0 when it is not running."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def shim(self) -> ShimHandle:
        """Raises SandboxError when no process can be had."""
        try:
            return await self._one_shim()
        except _NoAnswer:
            # The spawner was killed with our request in its queue. It may not even have ended yet.
            await self.stop()
            return await self._one_shim()

    async def _one_shim(self) -> ShimHandle:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                await self._send(theirs.fileno())
        except BaseException:
            ours.close()
            raise
        return await _await_ready(ours)

    async def _send(self, fd: int) -> None:
        async with self._lock:
            for attempt in (1, 2):
                control = await self._running()
                try:
                    socket.send_fds(control, [b"+"], [fd])
                except BlockingIOError as error:
                    raise SandboxError("CreatePodSandboxError", "the spawner does not answer") from error
                except OSError as error:
                    await self._discard()
                    if attempt == 2:
                        raise SandboxError("CreatePodSandboxError", f"the spawner is gone: {error}") from error
                else:
                    return

    async def _running(self) -> socket.socket:
        if self._control is not None and self._process is not None and self._process.returncode is None:
            return self._control
        await self._discard()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                "-c",
                _PROGRAM,
                str(Path(serving.__file__).parents[1]),
                self._options,
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.setblocking(False)
        try:
            async with asyncio.timeout(_START_SECONDS):
                greeting = await asyncio.get_running_loop().sock_recv(ours, 1)
        except TimeoutError:
            greeting = b""
        if greeting != b"+":
            ours.close()
            await self._discard()
            raise SandboxError("CreatePodSandboxError", "the spawner did not start; its error is in our stderr")
        self._control = ours
        return ours

    async def _discard(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            process, self._process = self._process, None
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def stop(self) -> None:
        """The spawner ends; its shims stay."""
        async with self._lock:
            await self._discard()


async def _await_ready(sock: socket.socket) -> ShimHandle:
    ready: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

    def on_event(event: Event) -> None:
        if not ready.done():
            ready.set_result(event)

    def on_close() -> None:
        if not ready.done():
            ready.set_exception(_NoAnswer())

    channel = Channel(sock, on_event=on_event, on_close=on_close)
    try:
        async with asyncio.timeout(_SHIM_SECONDS):
            event = await ready
    except BaseException:
        channel.close()
        raise
    if event["event"] != "ready":
        channel.close()
        raise SandboxError("CreatePodSandboxError", f"the pod's process did not start: {event['message']}")
    fds = channel.take_fds()
    return ShimHandle(channel, event["pid"], fds[0] if fds else -1)
