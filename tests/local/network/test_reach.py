"""Who can reach whom, with real pods, real listeners and the filter of this kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from serving.local.network.resolver import MISSING, Found
from serving.local.network.service import PodNetwork
from serving.local.sandbox.protocol import Sandbox
from tests.local.sandbox import support

pytestmark = [pytest.mark.root, support.needs_root]

_SERVER = """
import socket, sys
s = socket.create_server(("0.0.0.0", 8080))
print("up", flush=True)
while True:
    c, _ = s.accept(); c.sendall(b"pod"); c.close()
"""
_CLIENT = """
import socket, sys
for target in sys.argv[1:]:
    host, port = target.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=0.4) as s:
            print(target, "reached", s.recv(20).decode())
    except OSError as error:
        print(target, "closed")
"""


async def serve(sandbox: Sandbox, directory: Path) -> None:
    container = support.command(
        directory,
        (support.python(), "-c", _SERVER),
        name="server",
        log_path=directory / f"{sandbox.spec.pod_uid}.log",
    )
    await sandbox.start_container(container)
    await support.wait_for_text(container.log_path, "up")


async def from_pod(sandbox: Sandbox, directory: Path, *targets: str) -> dict[str, str]:
    container = support.command(directory, (support.python(), "-c", _CLIENT, *targets), name="client")
    _, lines = await support.run(sandbox, container)
    return {words[0]: words[1] for words in (line.split(" ", 1) for line in lines)}


@asynccontextmanager
async def listener() -> AsyncIterator[int]:
    """A service of the host on every address."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"host")
        writer.close()

    server = await asyncio.start_server(answer, "0.0.0.0", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_host_reaches_pods_and_pods_reach_nothing(tmp_path: Path) -> None:
    async with support.namespace_runtime(tmp_path) as runtime, listener() as port:
        network = runtime.network
        first = await runtime.create(support.pod(tmp_path, "first"))
        second = await runtime.create(support.pod(tmp_path, "second"))
        await serve(first, tmp_path)
        reader, writer = await asyncio.open_connection(first.address.ip, 8080)
        assert await reader.read() == b"pod"
        writer.close()
        await writer.wait_closed()
        assert network.filter_note == ""
        pod = f"{first.address.ip}:8080"
        host = [
            f"{address}:{port}"
            for address in (network.host_address, network.plan.gateway, network.plan.link_inside)
        ]
        own = "127.0.0.1:8080"
        reached = await from_pod(second, tmp_path, pod, *host, own)
        assert reached == dict.fromkeys((pod, *host, own), "closed")


async def test_allowed_ports_are_open(tmp_path: Path) -> None:
    async with support.namespace_runtime(tmp_path) as runtime, listener() as port, listener() as other:
        await runtime.network.allow([port])
        sandbox = await runtime.create(support.pod(tmp_path))
        host = runtime.network.host_address
        reached = await from_pod(sandbox, tmp_path, f"{host}:{port}", f"{host}:{other}")
        assert reached == {f"{host}:{port}": "reached host", f"{host}:{other}": "closed"}


async def test_names(tmp_path: Path) -> None:
    def lookup(name: str) -> Found | None:
        return Found(addresses=("198.51.100.9",)) if name == "hello.default.svc.cluster.local" else MISSING

    script = "import socket; print(socket.gethostbyname('hello'), socket.gethostbyname('hello.default'))"
    async with support.namespace_runtime(tmp_path, lookup=lookup) as runtime:
        search = ("default.svc.cluster.local", "svc.cluster.local")
        sandbox = await runtime.create(support.pod(tmp_path, dns_search=search))
        _, lines = await support.run(sandbox, support.command(tmp_path, (support.python(), "-c", script)))
    assert lines == ["198.51.100.9 198.51.100.9"]


async def test_two_stacks_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    same_start = ("00000001", "00000021")
    async with (
        support.namespace_runtime(tmp_path / "a", name=same_start[0]) as first,
        support.namespace_runtime(tmp_path / "b", name=same_start[1]) as second,
    ):
        assert not first.network.plan.network.overlaps(second.network.plan.network)
        one = await first.create(support.pod(tmp_path / "a"))
        two = await second.create(support.pod(tmp_path / "b"))
        await serve(one, tmp_path)
        target = f"{one.address.ip}:8080"
        assert await from_pod(two, tmp_path, target) == {target: "closed"}
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection(one.address.ip, 8080)
            assert await reader.read() == b"pod"
            writer.close()
            await writer.wait_closed()


async def test_addresses_rest_across_a_restart(tmp_path: Path) -> None:
    now = 1000.0
    name = support.instance()
    seen: set[str] = set()
    for _ in range(2):
        async with support.namespace_runtime(tmp_path, name=name, clock=lambda: now) as runtime:
            for _ in range(3):
                sandbox = await runtime.create(support.pod(tmp_path))
                assert sandbox.address.ip not in seen
                seen.add(sandbox.address.ip)
                await sandbox.destroy()


async def test_a_corrupt_address_file_is_reported_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text("{broken")
    network = PodNetwork(data_dir=tmp_path, instance=support.instance())
    with pytest.raises(Exception, match=r"network.json cannot be read .* delete it when no pod runs"):
        await network.start()
    assert (tmp_path / "network.json").read_text() == "{broken"
    await network.stop(remove=True)


async def test_start_and_stop_are_idempotent(tmp_path: Path) -> None:
    network = PodNetwork(data_dir=tmp_path, instance=support.instance())
    await network.start()
    await network.start()
    assert isinstance(network.host_address, IPv4Address)
    await network.stop(remove=True)
    await network.stop(remove=True)
