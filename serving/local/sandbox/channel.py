"""The node agent's end of a shim's connection: requests with replies, events, end of file when the shim is gone.

Works with callbacks of the event loop instead of a task per pod: an idle pod costs one registered descriptor. The
end of the connection is the only sign of a shim's death that is needed, and it cannot be confused with another
process of the same pid.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from serving.local.sandbox.protocol import SandboxError
from serving.local.sandbox.spawner import wire

Event = dict[str, Any]
_CHUNK = 1 << 16


class ChannelClosed(SandboxError):
    """The shim is gone."""

    def __init__(self) -> None:
        super().__init__("CreateContainerError", "the process that holds the pod is gone")


class Channel:
    """Must be created and used in one event loop. `on_event` and `on_close` are called in the loop and must not
    raise. `close` is idempotent."""

    def __init__(
        self, sock: socket.socket, *, on_event: Callable[[Event], None], on_close: Callable[[], None]
    ) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._on_close = on_close
        self._decoder = wire.Decoder()
        self._fds: list[int] = []
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last_id = 0
        self.closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    def set_handlers(self, *, on_event: Callable[[Event], None], on_close: Callable[[], None]) -> None:
        self._on_event = on_event
        self._on_close = on_close

    def take_fds(self) -> list[int]:
        """Descriptors received so far; the caller owns them."""
        fds, self._fds = self._fds, []
        return fds

    async def request(self, operation: str, *, fds: list[int] | None = None, **fields: Any) -> Any:
        """The answer's result; its descriptors when it has any. Raises SandboxError with the shim's reason and
        message, ChannelClosed when it is gone."""
        identifier, future = self.post(operation, fds=fds, **fields)
        try:
            return await future
        finally:
            self._waiting.pop(identifier, None)

    def post(
        self, operation: str, *, fds: list[int] | None = None, **fields: Any
    ) -> tuple[int, asyncio.Future[Any]]:
        """Send now, give the reply's future. `fds` are duplicated: the caller may close them afterwards."""
        if self.closed:
            raise ChannelClosed
        self._last_id += 1
        identifier = self._last_id
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[identifier] = future
        count = len(fds or ())
        data = memoryview(wire.encode({"id": identifier, "op": operation, "fds": count, **fields}))
        self._outgoing.append((data, [os.dup(fd) for fd in fds or ()]))
        if len(self._outgoing) == 1:
            self._flush()
        return identifier, future

    def _flush(self) -> None:
        while self._outgoing:
            data, fds = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._sock.sendmsg([data], rights)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError:
                self._loop.call_soon(self.close)
                return
            for fd in fds:
                os.close(fd)
            if sent == len(data):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = (data[sent:], [])
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, _CHUNK, wire.MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._fds += fds
        if not data:
            self.close()
            return
        try:
            messages = self._decoder.feed(data)
        except ValueError:  # not a shim, or a broken one: nothing more can be understood
            self.close()
            return
        for message in messages:
            self._dispatch(message)

    def _dispatch(self, message: Event) -> None:
        if "id" not in message:
            self._on_event(message)
            return
        count = message.get("fds", 0)
        granted, self._fds = self._fds[:count], self._fds[count:]
        future = self._waiting.get(message["id"])
        if future is None or future.done():
            for fd in granted:
                os.close(fd)
            return
        if granted:
            future.set_result(granted)
            return
        if "error" in message:
            error = message["error"]
            future.set_exception(SandboxError(error["reason"], error["message"]))
        else:
            future.set_result(message["result"])

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._outgoing:
            for fd in fds:
                os.close(fd)
        for fd in self.take_fds():
            os.close(fd)
        self._outgoing.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ChannelClosed())
        self._waiting.clear()
        self._on_close()
