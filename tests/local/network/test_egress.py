"""Pods and the world outside, which is a network namespace of the test's own."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from serving.local.network.egress import host_chains
from serving.local.network.names import Plan
from tests.local.network.test_reach import from_pod, listener, serve
from tests.local.sandbox import support

pytestmark = [
    pytest.mark.root,
    support.needs_root,
    pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2 to make a world outside"),
]

_SERVER = """
import socket
s = socket.create_server(("0.0.0.0", 8080))
print("up", flush=True)
while True:
    c, (who, _) = s.accept(); c.sendall(who.encode()); c.close()
"""


class World(msgspec.Struct, frozen=True):
    """Another machine. `host`: our own address on the wire between us."""

    name: str
    address: str
    host: str


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def _world() -> Iterator[World]:
    tag = f"w{support.instance()}"
    base = f"203.0.113.{random.randrange(0, 256, 4)}".rsplit(".", 1)
    first = int(base[1])
    world = World(tag, f"{base[0]}.{first + 2}", f"{base[0]}.{first + 1}")
    _ip("netns", "add", tag)
    try:
        _ip("link", "add", tag, "type", "veth", "peer", "name", "eth0", "netns", tag)
        _ip("addr", "add", f"{world.host}/30", "dev", tag)
        _ip("link", "set", tag, "up")
        inside = ("netns", "exec", tag, "ip")
        _ip(*inside, "addr", "add", f"{world.address}/30", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "route", "add", "default", "via", world.host)
        command = ["ip", "netns", "exec", tag, support.python(), "-c", _SERVER]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"up\n"
            try:
                yield world
            finally:
                server.kill()
    finally:
        subprocess.run(["ip", "link", "delete", tag], check=False, capture_output=True)
        _ip("netns", "delete", tag)


@pytest.fixture
def world() -> Iterator[World]:
    with _world() as made:
        yield made


@pytest.mark.parametrize("way", ["auto", "pasta"])
async def test_pods_reach_the_world_and_still_no_service_of_the_host(
    tmp_path: Path, world: World, way: Literal["auto", "pasta"]
) -> None:
    if way == "pasta" and shutil.which("pasta") is None:
        pytest.skip("needs pasta (apt install passt)")
    async with support.namespace_runtime(tmp_path, egress=way) as runtime, listener() as port:
        sandbox = await runtime.create(support.pod(tmp_path))
        target = f"{world.address}:8080"
        own = [f"{address}:{port}" for address in (world.host, runtime.network.host_address)]
        reached = await from_pod(sandbox, tmp_path, target, *own)
        assert reached == {target: f"reached {world.host}", **dict.fromkeys(own, "closed")}


async def test_the_world_does_not_reach_pods(tmp_path: Path, world: World) -> None:
    async with support.namespace_runtime(tmp_path) as runtime:
        sandbox = await runtime.create(support.pod(tmp_path))
        await serve(sandbox, tmp_path)
        script = f"import socket; socket.create_connection(('{sandbox.address.ip}', 8080), timeout=0.5)"
        done = subprocess.run(
            ["ip", "netns", "exec", world.name, support.python(), "-c", script], capture_output=True, text=True
        )
        assert "timed out" in done.stderr


@pytest.mark.parametrize("spare", [False, True])
def test_loopback_is_tracked_only_where_somebody_else_may_want_it(spare: bool) -> None:
    plan = Plan(IPv4Network("198.18.0.0/20"))
    chains = {chain.name: chain for chain in host_chains(plan, "nl00000000", spare_loopback=spare)}
    assert [chain.kind for chain in chains.values()] == ["filter", "filter", "filter", "filter", "nat"]
    for name in ("raw", "raw_out"):
        first = str(chains[name].rules[0])
        assert ("b'lo" in first) is spare
        assert "notrack" in first


async def test_off(tmp_path: Path, world: World) -> None:
    async with support.namespace_runtime(tmp_path, egress="off") as runtime:
        sandbox = await runtime.create(support.pod(tmp_path))
        target = f"{world.address}:8080"
        assert await from_pod(sandbox, tmp_path, target) == {target: "closed"}


async def test_what_a_killed_stack_left_is_removed_by_the_next(tmp_path: Path) -> None:
    if shutil.which("nft") is None:
        pytest.skip("needs nft to look")
    killed = f"nodeless_{support.instance()}"
    subprocess.run(["nft", "add", "table", "ip", killed], check=True)
    async with support.namespace_runtime(tmp_path):
        done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert killed not in done.stdout


async def test_nothing_of_it_is_left(tmp_path: Path) -> None:
    name = support.instance()
    async with support.namespace_runtime(tmp_path, name=name):
        pass
    if shutil.which("nft") is None:
        pytest.skip("needs nft to look")
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert name not in done.stdout
