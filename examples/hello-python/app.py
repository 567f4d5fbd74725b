"""A hello server in Python, standard library only: HTTP/1.1 with keep-alive on asyncio.

The same paths as `hello-static`: `/`, `/healthz`, `/id`, `/env`, `/sleep?ms=N`, `/burn?ms=N`, `/bytes?n=N`,
`/exit?code=N`, `/echo` and `/sse?n=N&ms=M`. SIGTERM: stop listening, answer what is running, then exit 0.
"""

import sys

# ruff: noqa: E402
sys.modules["ssl"] = None  # asyncio does without; importing TLS would cost a tenth of the start

import asyncio
import os
import signal
import socket
import time

HEAD_MAX = 32 * 1024
CHUNK = 64 * 1024
BODY_MAX = 1 << 40


class BadRequest(Exception):
    pass


class Request:
    """One request whose body is still on the wire."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = head.decode("latin-1").split("\r\n")
        try:
            self.method, target, version = lines[0].split(" ")
            fields = [line.split(":", 1) for line in lines[1:] if line]
            self.headers = {name.strip().lower(): value.strip() for name, value in fields}
            self.left = int(self.headers.get("content-length", "0"))
        except ValueError:
            raise BadRequest from None
        self.path, _, query = target.partition("?")
        self.query = dict(item.partition("=")[::2] for item in query.split("&"))
        self.chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        connection = self.headers.get("connection", "").lower()
        self.keep_alive = connection != "close" if version == "HTTP/1.1" else connection == "keep-alive"
        self.must_continue = self.headers.get("expect", "").lower() == "100-continue"
        self.reader = reader
        self.writer = writer
        if not 0 <= self.left <= BODY_MAX:
            raise BadRequest

    def number(self, name: str, otherwise: int = 0, most: int = 3_600_000) -> int:
        try:
            return max(0, min(int(self.query.get(name, otherwise)), most))
        except ValueError:
            return otherwise

    async def body(self):
        """The body, piece by piece."""
        if self.must_continue:
            self.must_continue = False
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.chunked:
            while self.left and (piece := await self.reader.read(min(CHUNK, self.left))):
                self.left -= len(piece)
                yield piece
            if self.left:
                raise BadRequest
            return
        while True:
            try:
                size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            except ValueError:
                raise BadRequest from None
            if size:
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
                continue
            while await self.reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return


class Server:
    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.busy = 0
        self.idle = asyncio.Event()
        self.waiting: set[asyncio.StreamWriter] = set()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        more = True
        try:
            while more and not self.stopping.is_set():
                self.waiting.add(writer)
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                finally:
                    self.waiting.discard(writer)
                self.busy += 1
                self.idle.clear()
                try:
                    more = await self.answer(head, reader, writer)
                    await writer.drain()
                finally:
                    self.busy -= 1
                    if not self.busy:
                        self.idle.set()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the client has gone, or never spoke HTTP
        finally:
            writer.close()

    async def answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            request = Request(head[:-4], reader, writer)
            await self.serve(request)
        except BadRequest:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return False
        return request.keep_alive

    async def serve(self, request: Request) -> None:
        if request.path == "/echo":
            await self.echo(request)
            return
        if request.must_continue:  # the client waits for leave to send a body that nobody reads
            request.keep_alive = False
        else:
            async for _ in request.body():
                pass
        handler = getattr(self, f"get_{request.path[1:] or 'hello'}", None)
        if handler is None or (not request.path[1:].isalpha() and request.path != "/"):
            self.send(request, b"not found\n", "404 Not Found")
        else:
            await handler(request)

    def head(self, request: Request, status: str, kind: str, length: str) -> bytes:
        connection = "keep-alive" if request.keep_alive and not self.stopping.is_set() else "close"
        return (
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{length}\r\nConnection: {connection}\r\n\r\n".encode()
        )

    def send(self, request: Request, body: bytes, status: str = "200 OK") -> None:
        head = self.head(request, status, "text/plain; charset=utf-8", f"Content-Length: {len(body)}")
        request.writer.write(head if request.method == "HEAD" else head + body)

    async def get_hello(self, request: Request) -> None:
        self.send(request, f"Hello {os.environ.get('TARGET') or 'World'}!\n".encode())

    async def get_healthz(self, request: Request) -> None:
        self.send(request, b"ok\n")

    async def get_id(self, request: Request) -> None:
        host = os.environ.get("HOSTNAME") or socket.gethostname()
        self.send(request, f"{host}\n{os.environ.get('K_REVISION', '')}\n".encode())

    async def get_env(self, request: Request) -> None:
        self.send(request, "".join(f"{name}={value}\n" for name, value in os.environ.items()).encode())

    async def get_sleep(self, request: Request) -> None:
        ms = request.number("ms")
        await asyncio.sleep(ms / 1000)
        self.send(request, f"slept {ms} ms\n".encode())

    async def get_burn(self, request: Request) -> None:
        ms = request.number("ms")
        end = time.monotonic() + ms / 1000
        while time.monotonic() < end:
            pass
        self.send(request, f"burnt {ms} ms\n".encode())

    async def get_bytes(self, request: Request) -> None:
        left = request.number("n", most=BODY_MAX)
        request.writer.write(self.head(request, "200 OK", "application/octet-stream", f"Content-Length: {left}"))
        while left and request.method != "HEAD":
            size = min(left, CHUNK)
            request.writer.write(b"x" * size)
            await request.writer.drain()
            left -= size

    async def get_exit(self, request: Request) -> None:
        request.keep_alive = False
        self.send(request, b"exiting\n")
        await request.writer.drain()
        os._exit(request.number("code", most=255))

    async def get_sse(self, request: Request) -> None:
        request.keep_alive = False
        request.writer.write(self.head(request, "200 OK", "text/event-stream", "Cache-Control: no-cache"))
        for event in range(request.number("n", 5)):
            if event:
                await asyncio.sleep(request.number("ms", 200) / 1000)
            request.writer.write(f"id: {event}\ndata: event {event}\n\n".encode())
            await request.writer.drain()

    async def echo(self, request: Request) -> None:
        length = "Transfer-Encoding: chunked" if request.chunked else f"Content-Length: {request.left}"
        request.writer.write(self.head(request, "200 OK", "application/octet-stream", length))
        async for piece in request.body():
            request.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if request.chunked else piece)
            await request.writer.drain()
        if request.chunked:
            request.writer.write(b"0\r\n\r\n")


async def main() -> None:
    server = Server()
    server.idle.set()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stopping.set)
    port = int(os.environ.get("PORT") or 8080)
    listener = await asyncio.start_server(server.converse, "0.0.0.0", port, backlog=4096, limit=HEAD_MAX)  # noqa: S104
    sys.stderr.write(f"hello: listening on 0.0.0.0:{port}\n")
    await server.stopping.wait()
    listener.close()
    for writer in list(server.waiting):
        writer.close()
    await server.idle.wait()
    sys.stderr.write("hello: stopped\n")
    sys.stderr.flush()
    os._exit(0)  # connections that a client keeps open would delay the end of the loop


if __name__ == "__main__":
    asyncio.run(main())
