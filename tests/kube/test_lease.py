"""Leadership and heartbeats against the embedded API server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.meta import ObjectMeta
from serving.api.resources import LEASES
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from serving.kube.informer import Informer
from serving.kube.lease import (
    COMPONENT_LABEL,
    LEADER_DURATION_SECONDS,
    Elector,
    Lease,
    LeaseObserver,
    LeaseSpec,
    heartbeat,
)
from tests.kube.scripted_server import answering
from tests.local.apiserver.harness import running_apiserver


def client_of(directory: Path) -> KubeClient:
    token = (directory / "token").read_text().strip()
    return KubeClient(over_unix_socket(directory / "api.sock", token=token))


class Leader:
    def __init__(self, client: KubeClient, identity: str) -> None:
        self.leading = asyncio.Event()
        self.stepped_down = asyncio.Event()
        self.elector = Elector(
            client, name="test", identity=identity, now=time.time, annotations={"nodeless.dev/address": identity}
        )

    async def body(self) -> None:
        self.leading.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.leading.clear()
            self.stepped_down.set()

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


async def test_an_edit_by_somebody_else_does_not_end_the_term(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path), client_of(tmp_path) as client:
        leader = Leader(client, "first")
        task = leader.start()
        async with asyncio.timeout(5):
            await leader.leading.wait()
        await client.patch(LEASES, "test", {"metadata": {"annotations": {"note": "x"}}}, SYSTEM_NAMESPACE)
        began = await client.get(LEASES, "test", SYSTEM_NAMESPACE)
        async with asyncio.timeout(5):
            while began["spec"] == (await client.get(LEASES, "test", SYSTEM_NAMESPACE))["spec"]:
                assert leader.leading.is_set()
                await asyncio.sleep(0.05)
        assert leader.leading.is_set()
        await ended(task)


@pytest.mark.timeout(30)
async def test_a_leader_whose_renewals_hang_steps_down_before_the_lease_ends(tmp_path: Path) -> None:
    lease: dict[str, Any] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "PATCH":
            await asyncio.sleep(60)
        if request.method == "POST":
            lease.update(await request.json())
            lease["metadata"]["resourceVersion"] = "1"
            return web.json_response(lease)
        return web.json_response({"code": 404, "reason": "NotFound"}, status=404)

    async with answering(tmp_path, handler) as client:
        leader = Leader(client, "first")
        task = leader.start()
        async with asyncio.timeout(5):
            await leader.leading.wait()
        began = time.monotonic()
        async with asyncio.timeout(10):
            await leader.stepped_down.wait()
        assert time.monotonic() - began < LEADER_DURATION_SECONDS
        await ended(task)


@pytest.mark.looptime
async def test_nobody_expires_while_the_api_server_is_away(tmp_path: Path) -> None:
    informer = SimpleNamespace(fresh_since=0.0, all=lambda: [LEASE], subscribe=lambda callback: None)
    observer = LeaseObserver(cast("Informer[Lease]", informer))
    observer._on_change("ns/g", None, LEASE)
    await asyncio.sleep(9)
    informer.fresh_since = None
    await asyncio.sleep(600)
    assert set(observer.alive()) == {"g"}
    informer.fresh_since = asyncio.get_running_loop().time()
    await asyncio.sleep(9)
    assert set(observer.alive()) == {"g"}
    assert observer.next_expiry() == pytest.approx(informer.fresh_since + 10)
    await asyncio.sleep(2)
    assert observer.alive() == {}


LEASE = Lease(metadata=ObjectMeta(name="g", namespace="ns"), spec=LeaseSpec(holder_identity="g", renew_time="1"))


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
