"""From a request to the connection that it asks for: a remote command's session, or pairs of streams for ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import hdrs, web

from serving.local.streaming import channels, spdy_session
from serving.local.streaming.channels import ChannelSession
from serving.local.streaming.hijack import hijack, switching_protocols
from serving.local.streaming.pipe import WebSocketPipe
from serving.local.streaming.session import RemoteSession, Wanted
from serving.local.streaming.spdy import PING_SECONDS, SpdyConnection
from serving.local.streaming.spdy_session import SpdySession

PORT_FORWARD: Final = "portforward.k8s.io"
TUNNEL: Final = f"SPDY/3.1+{PORT_FORWARD}"
"""SPDY inside WebSocket messages, as kubectl forwards ports since 1.31."""
_MAX_MESSAGE: Final = 32 << 20
_SPDY: Final = "SPDY/3.1"
_VERSION: Final = "X-Stream-Protocol-Version"
_ACCEPTED: Final = "X-Accepted-Stream-Protocol-Versions"


class UpgradeRefused(Exception):
    """The request asks for nothing that is spoken here."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers

    def response(self) -> web.Response:
        return web.Response(status=self.status, text=str(self), headers=self.headers)


def asks_for_websocket(request: web.Request) -> bool:
    return _asks_for(request, "websocket")


@asynccontextmanager
async def remote_command(
    request: web.Request, wanted: Wanted, *, ping_seconds: float = PING_SECONDS
) -> AsyncIterator[RemoteSession]:
    """Hangs up on exit. `ping_seconds`: how often a client over SPDY is asked whether it lives.

    Raises UpgradeRefused, before anything was sent.
    """
    session: RemoteSession
    if asks_for_websocket(request):
        session = ChannelSession(await websocket(request, channels.PROTOCOLS), wanted)
    else:
        session = SpdySession(await spdy(request, spdy_session.PROTOCOL, ping_seconds=ping_seconds), wanted)
    try:
        yield session
    finally:
        await session.close()


async def websocket(request: web.Request, protocols: Iterable[str]) -> web.WebSocketResponse:
    """Speaking the first of the client's protocols that is among `protocols`. Raises UpgradeRefused."""
    offered = _words(request, hdrs.SEC_WEBSOCKET_PROTOCOL)
    chosen = next((protocol for protocol in offered if protocol in protocols), None)
    if chosen is None:
        spoken = ", ".join(protocols)
        raise UpgradeRefused(400, f"requested protocol(s) are not supported: {offered}; supports {spoken}")
    socket = web.WebSocketResponse(protocols=(chosen,), compress=False, max_msg_size=_MAX_MESSAGE)
    await socket.prepare(request)
    return socket


async def spdy(request: web.Request, protocol: str, *, ping_seconds: float = PING_SECONDS) -> SpdyConnection:
    """Raises UpgradeRefused; ConnectionError when the client is gone."""
    if not _asks_for(request, _SPDY):
        raise UpgradeRefused(400, f"unable to upgrade: the request asks neither for websocket nor for {_SPDY}")
    offered = _words(request, _VERSION)
    if protocol not in offered:
        text = f"unable to negotiate protocol: client supports {offered}, server accepts {protocol}"
        raise UpgradeRefused(403, f"unable to upgrade: {text}", {_ACCEPTED: protocol})
    pipe = hijack(request)
    headers = {hdrs.CONNECTION: "Upgrade", hdrs.UPGRADE: _SPDY, _VERSION: protocol}
    try:
        await pipe.write(switching_protocols(headers))
    except BaseException:
        await pipe.close()
        raise
    return SpdyConnection(pipe, ping_seconds=ping_seconds)


@asynccontextmanager
async def port_streams(request: web.Request) -> AsyncIterator[tuple[SpdyConnection, web.StreamResponse]]:
    """For forwarding ports, bare or in a tunnel, and what the HTTP server is told to answer. Hangs up on exit.

    Raises UpgradeRefused before anything was sent, ConnectionError.
    """
    response: web.StreamResponse
    if asks_for_websocket(request):
        response = socket = await websocket(request, (TUNNEL,))
        connection = SpdyConnection(WebSocketPipe(socket))
    else:
        response = web.Response()
        connection = await spdy(request, PORT_FORWARD)
    try:
        yield connection, response
    finally:
        await connection.close()


def offers(request: web.Request, protocol: str) -> bool:
    return protocol in _words(request, hdrs.SEC_WEBSOCKET_PROTOCOL)


def _asks_for(request: web.Request, protocol: str) -> bool:
    upgrade = "upgrade" in [word.lower() for word in _words(request, hdrs.CONNECTION)]
    return upgrade and request.headers.get(hdrs.UPGRADE, "").lower() == protocol.lower()


def _words(request: web.Request, name: str) -> list[str]:
    """Of a header that may be repeated."""
    return [word.strip() for line in request.headers.getall(name, ()) for word in line.split(",") if word.strip()]
