"""Start, stop and start again: ports, locks, what is left behind, what is kept."""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster, open_cluster
from tests.e2e.http import Gateway, open_gateway
from tests.e2e.manifests import AUTOSCALING, service
from tests.e2e.stack import STOP_SECONDS, Stack, alive, residue


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "data")
    yield stack
    stack.close()


@asynccontextmanager
async def opened(stack: Stack, kubectl: str | None) -> AsyncIterator[tuple[Cluster, Gateway]]:
    async with (
        open_cluster(stack, kubectl) as cluster,
        open_gateway(stack.facts["url"], stack.facts["domain"]) as gateway,
    ):
        yield cluster, gateway


async def test_interrupt_leaves_nothing_and_state_survives(own: Stack, kubectl_binary: str | None) -> None:
    await asyncio.to_thread(own.start)
    await asyncio.to_thread(own.build_image, "hello-static")
    async with opened(own, kubectl_binary) as (cluster, gateway):
        pinned = {f"{AUTOSCALING}/min-scale": "2"}
        await cluster.deploy(service("pinned", env={"TARGET": "pinned"}, annotations=pinned))
        before = await cluster.deploy(service("kept", env={"TARGET": "kept"}))
        assert (await gateway.get("kept")).text == "Hello kept!\n"
    processes = own.processes()
    assert any(text.startswith("cgroup") for text in residue(own.instance, own.data_dir)), (
        "there is something to find"
    )
    assert await asyncio.to_thread(own.stop, signal.SIGINT) == 0
    assert not residue(own.instance, own.data_dir)
    assert not alive(processes)

    await asyncio.to_thread(own.start)
    async with opened(own, kubectl_binary) as (cluster, gateway):
        after = await cluster.ready("kept")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["spec"] == before["spec"]
        assert (await gateway.get("kept")).text == "Hello kept!\n"
        assert (await gateway.get("pinned")).text == "Hello pinned!\n"
        await cluster.pods("pinned", lambda count: count == 2, what="the two that min-scale wants")
    done = await asyncio.to_thread(own.cli, "down")
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
    assert not residue(own.instance, own.data_dir)


def test_a_second_up_is_refused(stack: Stack) -> None:
    done = stack.cli("up")
    assert done.returncode == 1
    assert f"Error: `nodeless up` (pid {stack.pid}) already runs on {stack.data_dir}" in done.stderr
    assert "nodeless down" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert stack.running


async def test_a_taken_port_is_replaced(own: Stack) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        await asyncio.to_thread(own.start, "--port", str(port), "--local-port", "0", "--api-port", "0")
        assert not own.facts["url"].endswith(f":{port}")
        assert f"port {port} is taken, using {own.facts['url'].rpartition(':')[2]}" in own.stderr()
        async with open_gateway(own.facts["url"], own.facts["domain"]) as gateway:
            assert (await gateway.get("nobody")).status == 404


async def test_the_process_sandbox(own: Stack, kubectl_binary: str | None) -> None:
    """The rung for machines that allow no other: the same life, from zero to zero, and nothing left."""
    ports = [f"--{name}=0" for name in ("port", "local-port", "api-port")]
    await asyncio.to_thread(own.start, "--sandbox", "process", *ports)
    assert own.facts["sandbox"] == "process"
    await asyncio.to_thread(own.build_image, "hello-static")
    async with opened(own, kubectl_binary) as (cluster, gateway):
        await cluster.deploy(service("plain", env={"TARGET": "plain"}))
        assert (await gateway.get("plain")).text == "Hello plain!\n"
        await cluster.at_zero("plain")
        answers = await asyncio.gather(*(gateway.get("plain") for _ in range(50)))
        assert {answer.text for answer in answers} == {"Hello plain!\n"}
    processes = own.processes()
    assert await asyncio.to_thread(own.stop) == 0
    assert not alive(processes)
    assert not residue(own.instance, own.data_dir)


def test_a_corrupt_database_is_reported_and_kept(own: Stack) -> None:
    own.start()
    assert own.stop() == 0
    database = own.data_dir / "state.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(database.read_bytes())
    content[100:4096] = b"\xff" * (4096 - 100)
    database.write_bytes(content)
    with own.spawn_up() as process:
        assert process.wait(STOP_SECONDS) == 1
    assert str(database) in own.stderr()
    assert "Traceback" not in own.stderr()
    assert database.read_bytes() == bytes(content), "nothing was emptied or written"
    assert not residue(own.instance, own.data_dir)
