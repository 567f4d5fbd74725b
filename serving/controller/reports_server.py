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
        requests: AsyncIterator[bytes],
        context: grpc.aio.ServicerContext[bytes, ControllerMessage],
    ) -> None:
        metadata = dict(context.invocation_metadata() or ())
        offered = str(metadata.get("authorization", ""))
        if not hmac.compare_digest(offered.encode(), f"Bearer {self._token}".encode()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong or missing bearer token")
        first = await anext(requests, None)
        hello = self._decoded("?", first) if first is not None else None
        if not isinstance(hello, Hello):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message must be hello")
        gateway = hello.gateway
        outbox: asyncio.Queue[ControllerMessage] = asyncio.Queue(_OUTBOX_LIMIT)
        self._outboxes[gateway] = outbox
        log.info("gateway %s connected", gateway)
        try:
            outbox.put_nowait(self._settings)
            self._handle(gateway, hello)
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(self._send(context, outbox))
                async for body in requests:
                    if self._outboxes.get(gateway) is not outbox:
                        break  # the gateway has a newer stream; what is left here is older
                    self._receive(gateway, body)
                sender.cancel()
        finally:
            if self._outboxes.get(gateway) is outbox:
                del self._outboxes[gateway]
            log.info("gateway %s disconnected", gateway)

    def _receive(self, gateway: str, body: bytes) -> None:
        message = self._decoded(gateway, body)
        if message is not None:
            self._handle(gateway, message)

    def _decoded(self, gateway: str, body: bytes) -> GatewayMessage | None:
        """None for a message that we do not know: a gateway of another version goes on being heard."""
        try:
            message: GatewayMessage = self._decoder.decode(body)
        except msgspec.DecodeError as error:
            log.error("gateway %s sent a message that cannot be understood: %s", gateway, error)
            return None
        return message

    def _handle(self, gateway: str, message: GatewayMessage) -> None:
        try:
            self._on_message(gateway, message)
        except Exception:
            # Ending the stream would only make the gateway send the same again.
            log.exception("gateway %s: %s was not handled", gateway, type(message).__name__)

    async def _send(
        self,
        context: grpc.aio.ServicerContext[bytes, ControllerMessage],
        outbox: asyncio.Queue[ControllerMessage],
    ) -> None:
        while True:
            await context.write(await outbox.get())
