"""The gateway's end of the report stream to the controller.

Levels (`Programmed`, `ColdRevisions`, `Drains`) are sent when they change and all again after a reconnect. Events
(`Demand`, `Poke`, `Budget`) are sent while there is a stream; a poke that found none is made up for by `greet`,
which is asked at each connect for what the controller must know at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final

import grpc
import msgspec

from serving.api.reports import ControllerMessage, GatewayMessage, Hello

log = logging.getLogger(__name__)

METHOD: Final = "/nodeless.v1.Reports/Stream"
_BACKOFF_FIRST_SECONDS: Final = 0.05
_BACKOFF_CAP_SECONDS: Final = 1.0
_QUEUE_LIMIT: Final = 10_000
_CHANNEL_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


class ReportStream:
    """`received` is called in the loop for each message of the controller."""

    def __init__(
        self,
        *,
        hello: Hello,
        token: str,
        greet: Callable[[], Iterable[GatewayMessage]],
        received: Callable[[ControllerMessage], None],
    ) -> None:
        self.connected = False
        self._hello = hello
        self._token = token
        self._greet = greet
        self._received = received
        self._levels: dict[type[GatewayMessage], GatewayMessage] = {}
        self._outbox: asyncio.Queue[GatewayMessage] = asyncio.Queue(_QUEUE_LIMIT)
        self._address = ""
        self._moved = asyncio.Event()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[ControllerMessage] = msgspec.msgpack.Decoder(ControllerMessage)

    def set_address(self, address: str) -> None:
        """Where the controller is, `unix:/path` or `host:port`; empty = nowhere."""
        if address != self._address:
            log.info("the controller is at %s", address or "no known address")
            self._address = address
            self._moved.set()

    def level(self, message: GatewayMessage) -> None:
        """Set a level; sent when it is another than before."""
        if self._levels.get(type(message)) != message:
            self._levels[type(message)] = message
            self.event(message)

    def event(self, message: GatewayMessage) -> None:
        """Send if there is a stream. Never blocks: a stream that does not drain is broken off."""
        if not self.connected:
            return
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("the controller does not read its stream; reconnecting")
            self._moved.set()

    async def run(self) -> None:
        """Keep a stream to the current address until cancelled."""
        delay = _BACKOFF_FIRST_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            self._moved.clear()
            if not self._address:
                await self._moved.wait()
                continue
            began = loop.time()
            async with asyncio.TaskGroup() as group:
                stream = group.create_task(self._stream(self._address), name="report stream")
                moved = group.create_task(self._moved.wait())
                await asyncio.wait((stream, moved), return_when=asyncio.FIRST_COMPLETED)
                stream.cancel()
                moved.cancel()
            if self._moved.is_set() or loop.time() - began > _BACKOFF_CAP_SECONDS:
                delay = _BACKOFF_FIRST_SECONDS
            else:
                await asyncio.sleep(delay)
                delay = min(delay * 2, _BACKOFF_CAP_SECONDS)

    async def _stream(self, address: str) -> None:
        """One stream, until it breaks."""
        try:
            async with grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS) as channel:
                call = channel.stream_stream(
                    METHOD, request_serializer=self._encoder.encode, response_deserializer=self._decoder.decode
                )(self._messages(), metadata=(("authorization", f"Bearer {self._token}"),))
                async for message in call:
                    self._received(message)
        except grpc.aio.AioRpcError as error:
            log.info("report stream to %s: %s %s", address, error.code().name, error.details())
        finally:
            self.connected = False

    async def _messages(self) -> AsyncIterator[GatewayMessage]:
        self._outbox = asyncio.Queue(_QUEUE_LIMIT)
        self.connected = True
        outbox = self._outbox
        for message in (self._hello, *self._levels.values(), *self._greet()):
            yield message
        while True:
            yield await outbox.get()
