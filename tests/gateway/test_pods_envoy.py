"""Pods that come, go, die and drain behind a real Envoy."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serving.api.reports import ColdRevisions, Demand, Drains, Poke
from tests.gateway.apps import App, http_app
from tests.gateway.world import World

pytestmark = pytest.mark.envoy


@contextmanager
def refused_port() -> Iterator[int]:
    """A port on which nobody listens and that nobody else gets."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def serve(gw: World, **fields: int) -> None:
    gw.revision("r1", **fields)
    gw.route("hello", {"r1": 100})
    await gw.until_served("hello")


async def test_flips_between_warm_and_cold_under_load(gw: World, app: App) -> None:
    await serve(gw)
    statuses: Counter[int] = Counter()
    done = asyncio.Event()

    async def client() -> None:
        while not done.is_set():
            statuses[(await gw.get("hello", "/?sleep=0.002"))[0]] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(client())
        for _ in range(5):
            gw.pod(app, "r1")
            await asyncio.sleep(0.1)
            gw.pod(app, "r1", draining=True)
            await gw.until(lambda: drained(gw, "uid-p1"))
            gw.remove_pod("p1")
            await asyncio.sleep(0.02)
        gw.pod(app, "r1")
        done.set()
    assert set(statuses) == {200}
    assert statuses[200] > 50


def drained(gw: World, uid: str) -> bool:
    drains = gw.last(Drains)
    row = drains.pods.get(uid) if drains is not None else None
    return row is not None and row.acked and row.in_flight == 0


async def test_a_pods_change_is_one_resource(gw: World, app: App, other: App) -> None:
    for name in ("r1", "r2", "r3"):
        gw.revision(name)
        gw.route(f"route-{name}", {name: 100})
        await gw.until_served(f"route-{name}")
    gw.pod(app, "r1")
    await gw.until_warm("r1")
    before = dict(gw.gateway.xds.sent)
    gw.pod(other, "r1")
    await gw.until_warm("r1", 2)
    after = dict(gw.gateway.xds.sent)
    assert sum(after.values()) - sum(before.values()) == 1


async def test_dead_only_pod_leads_to_the_activator(gw: World, app: App) -> None:
    await serve(gw)
    gw.pod(app, "r1")
    await gw.until_warm("r1")
    await app.stop()
    waiting = asyncio.create_task(gw.get("hello", method="POST", data=b"y" * 6_000_000))
    await gw.until(lambda: gw.gateway.activator.held("default/r1") == 1)
    async with http_app("p2") as second:
        gw.pod(second, "r1")
        status, pod, _ = await waiting
        assert (status, pod) == (200, "p2")
        assert second.bodies == [6_000_000]


async def test_dead_pod_beside_a_living_one(gw: World, app: App, other: App) -> None:
    await serve(gw)
    gw.pod(app, "r1")
    gw.pod(other, "r1")
    await gw.until_warm("r1", 2)
    await app.stop()
    results = [(await gw.get("hello"))[:2] for _ in range(20)]
    assert set(results) == {(200, "p2")}


async def test_release_to_a_dead_pod_is_held_again(gw: World, app: App) -> None:
    """Kubernetes says Ready, the port refuses: the request waits for a pod that answers, and runs once."""
    await serve(gw)
    with refused_port() as port:
        gw.pod(port, "r1", name="dead", ready=True)
        waiting = asyncio.create_task(gw.get("hello", method="POST", data=b"z" * 6_000_000))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        gw.pod(app, "r1")
        status, pod, body = await waiting
    assert (status, pod) == (200, "p1")
    assert app.bodies == [6_000_000]
    assert "x-nodeless-unconnected" not in body["response-headers"]


async def test_an_address_of_two_pods_is_nobodys(gw: World, app: App) -> None:
    await serve(gw)
    gw.pod(app, "r1")
    await gw.until_warm("r1")
    gw.pod(app, "other", name="twin")
    await gw.until_warm("r1", 0)
    waiting = asyncio.create_task(gw.get("hello"))
    await gw.until(lambda: gw.gateway.activator.held("default/r1") == 1)
    gw.remove_pod("twin")
    assert (await waiting)[:2] == (200, "p1")


async def test_draining_keeps_the_row_until_the_request_is_over(gw: World, app: App, other: App) -> None:
    await serve(gw)
    gw.pod(app, "r1")
    await gw.until_warm("r1")
    app.gate.clear()
    running = asyncio.create_task(gw.get("hello"))
    await gw.until(lambda: app.active == 1)
    gw.pod(app, "r1", draining=True)
    gw.pod(other, "r1")
    await gw.until(lambda: (gw.last(Drains) or Drains({})).pods.get("uid-p1") is not None)
    await gw.until(lambda: gw.last(Drains).pods["uid-p1"].acked)
    assert gw.last(Drains).pods["uid-p1"].in_flight == 1
    for _ in range(10):
        assert (await gw.get("hello"))[1] == "p2"
    app.gate.set()
    assert (await running)[:2] == (200, "p1")
    await gw.until(lambda: drained(gw, "uid-p1"))
    gw.remove_pod("p1")
    await gw.until(lambda: not gw.last(Drains).pods)


async def test_a_cancelled_drain_serves_again(gw: World, app: App) -> None:
    await serve(gw)
    gw.pod(app, "r1")
    await gw.until_warm("r1")
    gw.pod(app, "r1", draining=True)
    await gw.until(lambda: drained(gw, "uid-p1"))
    waiting = asyncio.create_task(gw.get("hello"))
    await gw.until(lambda: gw.last(Poke) is not None)
    gw.pod(app, "r1")
    assert (await waiting)[:2] == (200, "p1")
    await gw.until_warm("r1")
    await gw.until(lambda: not gw.last(Drains).pods)


async def test_reports(gw: World, app: App) -> None:
    await serve(gw)
    await gw.until(lambda: "default/r1" in (gw.last(ColdRevisions) or ColdRevisions(frozenset())).revisions)
    # Envoy counts a new cluster's requests from the first report on that includes it.
    await asyncio.sleep(2 * 0.2)
    held = [asyncio.create_task(gw.get("hello")) for _ in range(3)]
    await gw.until(lambda: gw.last(Poke) is not None)
    assert gw.last(Poke).revision == "default/r1"

    def row(of: Demand | None) -> tuple[int, int] | None:
        found = of.revisions.get("default/r1") if of is not None else None
        return (found.in_progress, found.held) if found is not None else None

    await gw.until(lambda: row(gw.last(Demand)) == (3, 3))
    gw.pod(app, "r1")
    await asyncio.gather(*held)
    await gw.until_warm("r1")
    await gw.until(lambda: "default/r1" not in gw.last(ColdRevisions).revisions)
    await gw.until(lambda: row(gw.last(Demand)) is None)
    issued = sum(
        message.revisions["default/r1"].issued
        for message in gw.messages
        if isinstance(message, Demand) and "default/r1" in message.revisions
    )
    assert issued == 3
    assert not gw.last(Demand).revisions


async def test_concurrency_1_is_strict_and_always_by_slots(gw: World, app: App, other: App) -> None:
    await serve(gw, concurrency=1)
    gw.pod(app, "r1")
    gw.pod(other, "r1")
    results = await asyncio.gather(*(gw.get("hello", "/?sleep=0.01") for _ in range(40)))
    assert {status for status, _, _ in results} == {200}
    assert (app.most_active, other.most_active) == (1, 1)
    assert gw.gateway.programming.control.endpoints.known["default/r1"].source.cold  # type: ignore[attr-defined]


async def test_concurrency_above_10_is_kept_by_envoy(gw: World, app: App) -> None:
    await serve(gw, concurrency=12)
    cold = [asyncio.create_task(gw.get("hello", "/?sleep=0.02")) for _ in range(60)]
    await gw.until(lambda: gw.gateway.activator.held("default/r1") == 60)
    gw.pod(app, "r1")
    assert {status for status, _, _ in await asyncio.gather(*cold)} == {200}
    await gw.until_warm("r1")
    warm = await asyncio.gather(*(gw.get("hello", "/?sleep=0.02") for _ in range(60)))
    assert {status for status, _, _ in warm} == {200}
    assert app.most_active <= 12


async def test_a_pod_of_a_former_revision_gets_nothing_of_its_successor(gw: World, app: App) -> None:
    """A Service that is deleted and applied again has the same names; the old pods still run."""
    await serve(gw)
    async with http_app("former") as former:
        gw.pod(former, "r1", ready=True, revision_uid="uid-of-a-revision-that-is-gone")
        gw.pod(app, "r1", ready=True)
        names = {(await gw.get("hello"))[1] for _ in range(30)}
    assert names == {app.name}
