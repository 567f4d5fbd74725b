"""Leadership and heartbeats against the embedded API server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.resources import LEASES
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from serving.kube.informer import Informer
from serving.kube.lease import COMPONENT_LABEL, Elector, Lease, LeaseObserver, heartbeat
from tests.local.apiserver.harness import running_apiserver


def client_of(directory: Path) -> KubeClient:
    token = (directory / "token").read_text().strip()
    return KubeClient(over_unix_socket(directory / "api.sock", token=token))


class Leader:
    def __init__(self, client: KubeClient, identity: str) -> None:
        self.leading = asyncio.Event()
        self.elector = Elector(
            client, name="test", identity=identity, now=time.time, annotations={"nodeless.dev/address": identity}
        )

    async def body(self) -> None:
        self.leading.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.leading.clear()

    def start(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.elector.lead(self.body))


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_leads_and_the_next_follows_an_orderly_stop_at_once(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path), client_of(tmp_path) as client:
        first, second = Leader(client, "first"), Leader(client, "second")
        one = first.start()
        async with asyncio.timeout(5):
            await first.leading.wait()
        two = second.start()
        await asyncio.sleep(1.2)
        assert not second.leading.is_set()
        await ended(one)
        began = time.monotonic()
        async with asyncio.timeout(5):
            await second.leading.wait()
        assert time.monotonic() - began < 3
        lease = await client.get(LEASES, "test", SYSTEM_NAMESPACE)
        assert lease["spec"]["holderIdentity"] == "second"
        await ended(two)


@pytest.mark.timeout(30)
async def test_a_silent_leader_is_replaced_and_steps_down(tmp_path: Path) -> None:
    """The lease is taken away behind the leader's back: it must notice and stop its work."""
    async with running_apiserver(tmp_path), client_of(tmp_path) as client:
        leader = Leader(client, "first")
        task = leader.start()
        async with asyncio.timeout(5):
            await leader.leading.wait()
        thief = {"spec": {"holderIdentity": "thief", "renewTime": "2026-01-01T00:00:00.000000Z"}}
        await client.patch(LEASES, "test", thief, SYSTEM_NAMESPACE)
        async with asyncio.timeout(5):
            while leader.leading.is_set():
                await asyncio.sleep(0.05)
        async with asyncio.timeout(10):
            await leader.leading.wait()
        lease = await client.get(LEASES, "test", SYSTEM_NAMESPACE)
        assert lease["spec"]["holderIdentity"] == "first"
        await ended(task)


async def test_a_restarted_holder_takes_its_own_lease_over_at_once(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path), client_of(tmp_path) as client:
        elector = Leader(client, "same").elector
        assert await elector._try_acquire()
        again = Leader(client, "same")
        task = again.start()
        async with asyncio.timeout(1):
            await again.leading.wait()
        await ended(task)


async def test_heartbeats_count_as_alive_until_released(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path), client_of(tmp_path) as client:
        informer = Informer(
            client, LEASES, Lease, namespace=SYSTEM_NAMESPACE, label_selector=f"{COMPONENT_LABEL}=gateway"
        )
        observer = LeaseObserver(informer)
        changed = asyncio.Event()
        informer.subscribe(lambda key, old, new: changed.set())
        watching = asyncio.ensure_future(informer.run())
        await informer.synced.wait()
        beating = asyncio.ensure_future(
            heartbeat(client, name="g", component="gateway", identity="g", now=time.time)
        )
        async with asyncio.timeout(5):
            await changed.wait()
        assert set(observer.alive()) == {"g"}
        assert observer.next_expiry() is not None
        changed.clear()
        await ended(beating)
        async with asyncio.timeout(5):
            await changed.wait()
        assert observer.alive() == {}
        await ended(watching)
