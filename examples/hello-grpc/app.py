"""A gRPC hello on h2c, without generated code: messages are bytes.

Service `nodeless.Echo`: `Unary` (bytes back), `Bidi` (each message back), `Hello` ("Hello TARGET!").
"""

import asyncio
import os
import signal

import grpc


async def unary(request: bytes, _: grpc.aio.ServicerContext) -> bytes:
    return request


async def hello(_: bytes, __: grpc.aio.ServicerContext) -> bytes:
    return f"Hello {os.environ.get('TARGET') or 'World'}!".encode()


async def bidi(requests, _: grpc.aio.ServicerContext):
    async for request in requests:
        yield request


async def main() -> None:
    server = grpc.aio.server()
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Hello": grpc.unary_unary_rpc_method_handler(hello),
        "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("nodeless.Echo", methods),))
    server.add_insecure_port(f"0.0.0.0:{os.environ.get('PORT') or 8080}")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await server.start()
    await stopping.wait()
    await server.stop(grace=30)


if __name__ == "__main__":
    asyncio.run(main())
