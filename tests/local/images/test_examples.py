"""The hello images, run as the programs they are, without a sandbox."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from serving.local.images.examples import Toolchain, build_example, default_name
from serving.local.images.protocol import Image, ImageError
from serving.local.images.store import LocalImageStore

HAS_COMPILER = shutil.which("cc") is not None
HAS_ZIG = importlib.util.find_spec("ziglang") is not None
STATIC = pytest.param("hello-static", marks=pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all tests: each image is built once."""
    return tmp_path_factory.mktemp("examples")


async def built(root: Path, example: str, toolchain: Toolchain | None = None) -> Image:
    async with LocalImageStore(root / "store", prefer_erofs=False) as store:
        name = f"dev.local/{example}:{toolchain or 'any'}"
        if name not in {image.name for image in await store.list_images()}:
            assert (await build_example(store, example, name=name, toolchain=toolchain)).image.name == name
        return await store.ensure(name)


@asynccontextmanager
async def running(image: Image, **env: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The image's program on a free port; yields it and its address once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    tree = image.rootfs.directory
    assert tree is not None
    program, *arguments = image.config.entrypoint
    local = [str(tree) + text if text.startswith("/") else text for text in arguments]
    variables = dict(item.split("=", 1) for item in image.config.env) | {"PORT": str(port)} | env
    if "PYTHONPATH" in variables:
        variables["PYTHONPATH"] = str(tree) + variables["PYTHONPATH"]
    process = await asyncio.create_subprocess_exec(
        str(tree) + program, *local, env=variables, stderr=subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    assert process.returncode is None
                    await asyncio.sleep(0.01)
                    continue
                writer.close()
                break
        yield process, f"127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.parametrize("example", [STATIC, "hello-python"])
async def test_the_paths_that_tests_use(root: Path, example: str) -> None:
    async with (
        running(await built(root, example), TARGET="you", HOSTNAME="pod-1", K_REVISION="r-1") as (
            process,
            address,
        ),
        aiohttp.ClientSession(f"http://{address}") as session,
    ):

        async def get(path: str) -> tuple[int, str]:
            async with session.get(path) as response:
                return response.status, await response.text()

        assert await get("/") == (200, "Hello you!\n")
        assert await get("/healthz") == (200, "ok\n")
        assert await get("/id") == (200, "pod-1\nr-1\n")
        assert "K_REVISION=r-1\n" in (await get("/env"))[1]
        assert await get("/sleep?ms=20") == (200, "slept 20 ms\n")
        assert await get("/burn?ms=5") == (200, "burnt 5 ms\n")
        assert await get("/bytes?n=100001") == (200, "x" * 100001)
        assert await get("/sse?n=2&ms=1") == (200, "id: 0\ndata: event 0\n\nid: 1\ndata: event 1\n\n")
        assert (await get("/nope"))[0] == 404
        assert (await get("/__class__"))[0] == 404
        async with session.head("/") as response:
            assert (response.status, response.headers["Content-Length"]) == (200, "11")

        body = os.urandom(300_000)
        async with session.post("/echo", data=body) as response:
            assert await response.read() == body

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 10_000):
                yield body[start : start + 10_000]

        async with session.post("/echo", data=pieces()) as response:
            assert await response.read() == body
        async with session.post("/", data=body, expect100=True) as response:
            assert response.status == 200

        slow = asyncio.create_task(get("/sleep?ms=300"))
        await get("/")
        process.send_signal(signal.SIGTERM)
        assert await slow == (200, "slept 300 ms\n")
        assert await asyncio.wait_for(process.wait(), 5) == 0


@pytest.mark.parametrize("example", [STATIC, "hello-python"])
async def test_many_connections_and_exit_codes(root: Path, example: str) -> None:
    async with running(await built(root, example)) as (process, address):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(f"http://{address}", connector=connector) as session:

            async def get(path: str) -> str:
                async with session.get(path) as response:
                    return await response.text()

            answers = await asyncio.gather(*(get("/sleep?ms=50") for _ in range(200)))
            assert set(answers) == {"slept 50 ms\n"}
            assert await get("/exit?code=7") == "exiting\n"
        assert await process.wait() == 7


@pytest.mark.parametrize("example", [STATIC, "hello-python"])
@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", b"ok\n"),
        (b"GET / HTTP/1.0\r\n\r\n", b"Hello World!\n"),
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400 Bad Request"),
        (b"POST /echo HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400 Bad Request"),
        (b"POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", b""),
        (b"GET /" + b"x" * 100_000, b""),
    ],
    ids=range(7),
)
async def test_raw_requests(root: Path, example: str, raw: bytes, status: bytes) -> None:
    async with running(await built(root, example)) as (process, address):
        host, port = address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        answer = b""
        try:
            writer.write(raw)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 5)
        except ConnectionError:
            assert status == b""
        writer.close()
        assert status in answer
        assert process.returncode is None


async def test_without_any_compiler_the_python_hello_takes_its_place(root: Path) -> None:
    async with LocalImageStore(root / "store", prefer_erofs=False) as store:
        example = await build_example(store, "hello-static", toolchain="none")
        assert example.image.name == default_name("hello-static")
        assert "hello-static is the Python hello here: no compiler is used; install gcc" in example.note
        await assert_hello(await store.ensure(example.image.name))


@pytest.mark.skipif(not HAS_ZIG, reason="the ziglang package is not installed")
@pytest.mark.timeout(300)
async def test_the_compiler_from_a_wheel(root: Path) -> None:
    await assert_hello(await built(root, "hello-static", "zig"))


async def assert_hello(image: Image) -> None:
    async with running(image) as (_, address), aiohttp.request("GET", f"http://{address}/") as response:
        assert await response.text() == "Hello World!\n"


async def test_websocket_and_events(root: Path) -> None:
    async with (
        running(await built(root, "hello-aiohttp"), TARGET="ws") as (_, address),
        aiohttp.ClientSession(f"http://{address}") as session,
    ):
        async with session.ws_connect("/ws") as websocket:
            await websocket.send_str("text")
            assert (await websocket.receive()).data == "text"
            await websocket.send_bytes(b"bytes")
            assert (await websocket.receive()).data == b"bytes"
        async with session.get("/events?n=2&ms=1") as response:
            assert await response.text() == "id: 0\ndata: event 0\n\nid: 1\ndata: event 1\n\n"
        async with session.post("/echo", data=io.BytesIO(b"x" * 2_000_000)) as response:
            assert len(await response.read()) == 2_000_000
        async with session.get("/") as response:
            assert await response.text() == "Hello ws!\n"


async def test_grpc(root: Path) -> None:
    image = await built(root, "hello-grpc")
    async with running(image, TARGET="rpc") as (_, address), grpc.aio.insecure_channel(address) as channel:
        unary: Any = channel.unary_unary("/nodeless.Echo/Unary")
        hello: Any = channel.unary_unary("/nodeless.Echo/Hello")
        bidi: Any = channel.stream_stream("/nodeless.Echo/Bidi")
        assert await unary(b"x") == b"x"
        assert await hello(b"") == b"Hello rpc!"
        call = bidi()
        for message in (b"1", b"2"):
            await call.write(message)
            assert await call.read() == message
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
async def test_the_python_image_needs_nothing_of_the_host(root: Path) -> None:
    image = await built(root, "hello-python")
    tree = image.rootfs.directory
    assert tree is not None
    program = "import asyncio, json, sys; print(sys.prefix, asyncio.__file__)"
    done = subprocess.run(
        ["/usr/sbin/chroot", str(tree), "/usr/bin/python3", "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        env={},
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.startswith("/usr /usr/lib")


async def test_unknown_examples(root: Path) -> None:
    async with LocalImageStore(root / "store") as store:
        with pytest.raises(ImageError, match=r'example "nope" is not one of hello-static, hello-python'):
            await build_example(store, "nope")
