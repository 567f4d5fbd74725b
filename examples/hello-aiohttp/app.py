"""A hello server on aiohttp: WebSocket, server-sent events, streaming.

`/` hello text, `/healthz`, `/id`, `/echo` (body), `/ws` (each message comes back), `/events?n=N&ms=M`.
"""

import asyncio
import os
import socket

from aiohttp import WSMsgType, web

routes = web.RouteTableDef()


def number(request: web.Request, name: str, otherwise: int) -> int:
    try:
        return max(0, min(int(request.query.get(name, otherwise)), 1_000_000))
    except ValueError:
        raise web.HTTPBadRequest(text=f"{name} is not a number\n") from None


@routes.get("/")
async def hello(_: web.Request) -> web.Response:
    return web.Response(text=f"Hello {os.environ.get('TARGET') or 'World'}!\n")


@routes.get("/healthz")
async def healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


@routes.get("/id")
async def identity(_: web.Request) -> web.Response:
    host = os.environ.get("HOSTNAME") or socket.gethostname()
    return web.Response(text=f"{host}\n{os.environ.get('K_REVISION', '')}\n")


@routes.post("/echo")
async def echo(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    async for piece in request.content.iter_any():
        await response.write(piece)
    await response.write_eof()
    return response


@routes.get("/ws")
async def websocket(request: web.Request) -> web.WebSocketResponse:
    socket_ = web.WebSocketResponse()
    await socket_.prepare(request)
    async for message in socket_:
        if message.type is WSMsgType.TEXT:
            await socket_.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket_.send_bytes(message.data)
    return socket_


@routes.get("/events")
async def events(request: web.Request) -> web.StreamResponse:
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for event in range(number(request, "n", 5)):
        if event:
            await asyncio.sleep(number(request, "ms", 200) / 1000)
        await response.write(f"id: {event}\ndata: event {event}\n\n".encode())
    return response


if __name__ == "__main__":
    app = web.Application(client_max_size=0)
    app.add_routes(routes)
    web.run_app(app, host="0.0.0.0", port=int(os.environ.get("PORT") or 8080), print=None)  # noqa: S104
