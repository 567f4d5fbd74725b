"""The controller's end of the report streams: one bidirectional gRPC stream per gateway agent.

Messages are msgpack of `serving.api.reports`, so neither side needs generated code. The stream carries no state:
a gateway sends everything again after a reconnect.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Callable

import grpc
import msgspec

from serving.api.reports import ControllerMessage, GatewayMessage, Hello, Settings

log = logging.getLogger(__name__)

SERVICE = "nodeless.v1.Reports"
_OUTBOX_LIMIT = 1024


class ReportsServer:
    """Serves the report streams. `on_message(gateway, message)` is called in the loop and must not block."""

    def __init__(
        self, *, token: str, settings: Settings, on_message: Callable[[str, GatewayMessage], None]
    ) -> None:
        self._token = token
        self._settings = settings
        self._on_message = on_message
        self._outboxes: dict[str, asyncio.Queue[ControllerMessage]] = {}
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(GatewayMessage)

    @property
    def connected(self) -> frozenset[str]:
        return frozenset(self._outboxes)

    def broadcast(self, message: ControllerMessage) -> None:
        """Send to every connected gateway. A gateway that does not read loses messages, never blocks us."""
        for gateway, outbox in self._outboxes.items():
            try:
                outbox.put_nowait(message)
            except asyncio.QueueFull:
                log.warning("gateway %s does not read its stream; a message was dropped", gateway)

    async def run(self, address: str, *, started: Callable[[], None]) -> None:
        """Serve on `address` (`unix:/path` or `host:port`) until cancelled."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Stream": grpc.stream_stream_rpc_method_handler(
                    self._stream,
                    request_deserializer=self._decoder.decode,
                    response_serializer=self._encoder.encode,
                )
            },
        )
        server.add_generic_rpc_handlers((handler,))
        if server.add_insecure_port(address) == 0:
            raise OSError(f"cannot listen on {address}")
        await server.start()
        started()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await server.stop(grace=0.2)

    async def _stream(
        self,
        requests: AsyncIterator[GatewayMessage],
        context: grpc.aio.ServicerContext[GatewayMessage, ControllerMessage],
    ) -> None:
        metadata = dict(context.invocation_metadata() or ())
        offered = str(metadata.get("authorization", ""))
        if not hmac.compare_digest(offered.encode(), f"Bearer {self._token}".encode()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong or missing bearer token")
        hello = await anext(requests, None)
        if not isinstance(hello, Hello):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be hello")
        gateway = hello.gateway
        outbox: asyncio.Queue[ControllerMessage] = asyncio.Queue(_OUTBOX_LIMIT)
        self._outboxes[gateway] = outbox
        log.info("gateway %s connected", gateway)
        try:
            outbox.put_nowait(self._settings)
            self._on_message(gateway, hello)
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(context, outbox))
                async for message in requests:
                    self._on_message(gateway, message)
                sender.cancel()
        finally:
            if self._outboxes.get(gateway) is outbox:
                del self._outboxes[gateway]
            log.info("gateway %s disconnected", gateway)

    async def _send(
        self,
        context: grpc.aio.ServicerContext[GatewayMessage, ControllerMessage],
        outbox: asyncio.Queue[ControllerMessage],
    ) -> None:
        while True:
            await context.write(await outbox.get())
