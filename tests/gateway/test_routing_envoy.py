"""Routing by a real Envoy: hosts, splits, tags, headers, time-outs."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest

from serving.api.resources import CONFIG_MAPS, REVISIONS, ROUTES
from tests.gateway import objects
from tests.gateway.apps import App, http_app
from tests.gateway.world import World

pytestmark = pytest.mark.envoy


async def warm(gw: World, app: App, *, revision: str = "r1", route: str = "hello") -> None:
    gw.revision(revision)
    gw.route(route, {revision: 100})
    gw.pod(app, revision)
    await gw.until_served(route)
    await gw.until_warm(revision)


async def test_hosts(gw: World, app: App) -> None:
    await warm(gw, app)
    assert (await gw.get("hello"))[:2] == (200, "p1")
    assert (await gw.get("", host="hello.default.example.test:8080"))[0] == 200
    assert (await gw.get("", host="HELLO.default.example.test."))[0] == 200
    assert (await gw.get("unknown"))[0] == 404
    for form in ("hello.default", "hello.default.svc", "hello.default.svc.cluster.local"):
        assert (await gw.get("", host=form, local=True))[:2] == (200, "p1")
        assert (await gw.get("", host=form))[0] == 404, "cluster-local hosts are not public"
    assert (await gw.get("hello", local=True))[0] == 404


async def test_a_cluster_local_route_is_not_public(gw: World, app: App) -> None:
    gw.revision("r1")
    gw.route("hello", {"r1": 100}, url="http://hello.default.svc.cluster.local")
    gw.pod(app, "r1")
    await gw.until_served("hello")
    assert (await gw.get("", host="hello.default.svc.cluster.local", local=True))[0] == 200
    assert (await gw.get("", host="hello.default.svc.cluster.local"))[0] == 404
    assert (await gw.get("hello"))[0] == 404


async def test_split_and_tags(gw: World, app: App, other: App) -> None:
    for revision, pod in (("r1", app), ("r2", other)):
        gw.revision(revision)
        gw.pod(pod, revision)
    gw.route("hello", {"r1": 80, "r2": 20}, tags={"next": "r2", "old": "r1"})
    await gw.until_served("hello")
    counts = Counter([(await gw.get("hello"))[1] for _ in range(400)])
    assert counts["p1"] + counts["p2"] == 400
    assert 40 <= counts["p2"] <= 125
    assert (await gw.get("", host="next-hello.default.example.test"))[1] == "p2"
    assert (await gw.get("", host="old-hello.default.svc", local=True))[1] == "p1"
    assert (await gw.get("hello", headers={"knative-serving-tag": "next"}))[0] == 200


async def test_routing_by_tag_header(gw: World, app: App, other: App) -> None:
    gw.api.put(
        CONFIG_MAPS,
        {
            "metadata": {"name": "config-features", "namespace": "knative-serving"},
            "data": {"tag-header-based-routing": "enabled"},
        },
    )
    for revision, pod in (("r1", app), ("r2", other)):
        gw.revision(revision)
        gw.pod(pod, revision)
    gw.route("hello", {"r1": 100}, tags={"next": "r2"})
    await gw.until_served("hello")
    await gw.until(lambda: gw.gateway.programming.ir.public["default/hello"].tag_headers)
    await gw.until_served("hello")
    _, name, seen = await gw.get("hello", headers={"knative-serving-tag": "next"})
    assert (name, seen["knative-serving-tag"]) == ("p2", "next")
    _, name, seen = await gw.get("hello", headers={"knative-serving-tag": "nothing"})
    assert (name, seen["knative-serving-default-route"]) == ("p1", "true")


async def test_the_oldest_claimant_owns_a_host(gw: World, app: App, other: App) -> None:
    for revision, pod in (("r1", app), ("r2", other)):
        gw.revision(revision)
        gw.pod(pod, revision)
    host = "http://shared.example.test"
    gw.route("young", {"r2": 100}, url=host, created="2026-02-01T00:00:00Z")
    await gw.until_served("young")
    assert (await gw.get("", host="shared.example.test"))[1] == "p2"
    gw.route("old", {"r1": 100}, url=host, created="2026-01-01T00:00:00Z")
    await gw.until_served("old")
    assert (await gw.get("", host="shared.example.test"))[1] == "p1"
    assert (await gw.get("", host="young.default", local=True))[1] == "p2", "the rest of the loser is served"
    problems = {problem.object: problem.message for problem in gw.gateway.programming.problems}
    assert problems["Route default/young"] == (
        'Host "shared.example.test" is already in use by Route "default/old".'
    )
    gw.api.delete(ROUTES, "default", "old")
    await gw.until(lambda: not gw.gateway.programming.problems)
    await gw.until_served("young")
    assert (await gw.get("", host="shared.example.test"))[1] == "p2"


async def test_headers(gw: World, app: App) -> None:
    await warm(gw, app)
    _, _, seen = await gw.get(
        "hello",
        headers={
            "X-Custom": "kept",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "x-request-id": "mine",
            "Knative-Serving-Revision": "forged",
            "K-Original-Host": "forged",
            "K-Proxy-Request": "forged",
            "x-envoy-retry-on": "5xx",
            "x-envoy-internal": "true",
        },
    )
    assert seen["host"] == "hello.default.example.test"
    assert seen["x-custom"] == "kept"
    assert seen["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c")
    assert seen["x-request-id"] == "mine"
    assert seen["x-forwarded-proto"] == "http"
    assert re.fullmatch(r"[0-9.]+", seen["x-forwarded-for"]), "Envoy puts its own address for a client on loopback"
    assert re.fullmatch(
        r'for="127\.0\.0\.1:\d+";host="hello\.default\.example\.test";proto=http', seen["forwarded"]
    )
    stripped = {"knative-serving-revision", "k-original-host", "k-proxy-request", "x-envoy-retry-on"}
    assert not stripped & seen.keys()
    assert not [key for key in seen if key.startswith("x-envoy")]
    assert not [key for key in seen["response-headers"] if key.startswith("x-envoy")]


async def test_headers_are_the_same_from_zero(gw: World, app: App) -> None:
    gw.revision("r1")
    gw.route("hello", {"r1": 100})
    await gw.until_served("hello")
    waiting = asyncio.create_task(gw.get("hello", headers={"nodeless-server-timing": "1"}))
    await gw.until(lambda: gw.gateway.activator.held("default/r1") == 1)
    gw.pod(app, "r1")
    _, _, cold = await waiting
    assert "queue" in cold["response-headers"]["server-timing"]
    await gw.until_warm("r1")
    _, _, hot = await gw.get("hello", headers={"nodeless-server-timing": "1"})
    assert "server-timing" not in hot["response-headers"]
    assert cold.keys() == hot.keys()
    assert cold["x-forwarded-for"] == hot["x-forwarded-for"]
    assert cold["host"] == hot["host"]


async def test_response_start_time_out(gw: World, app: App) -> None:
    gw.revision("r1", timeout=1)
    gw.route("hello", {"r1": 100})
    gw.pod(app, "r1")
    await gw.until_served("hello")
    await gw.until_warm("r1")
    status, _, body = await gw.get("hello", "/?sleep=3")
    assert (status, body["text"]) == (504, "request timeout")
    assert app.requests == 1, "a request that ran is not repeated"


async def test_hold_time_out_has_the_activators_text(gw: World) -> None:
    gw.revision("r1", timeout=1)
    gw.route("hello", {"r1": 100})
    await gw.until_served("hello")
    status, _, body = await gw.get("hello")
    assert (status, body["text"].strip()) == (504, "activator request timeout")


async def test_a_started_response_is_not_cut(gw: World, app: App) -> None:
    gw.revision("r1", timeout=1)
    gw.route("hello", {"r1": 100})
    gw.pod(app, "r1")
    await gw.until_served("hello")
    await gw.until_warm("r1")
    app.gate.clear()
    waiting = asyncio.create_task(gw.get("hello", "/sse"))
    await asyncio.sleep(1.3)
    app.gate.set()
    status, _, body = await waiting
    assert status == 200
    assert body["text"].endswith("data: last\n\n")


async def test_a_removed_route_and_revision_leave_nothing(gw: World, app: App) -> None:
    await warm(gw, app)
    assert (await gw.get("hello"))[0] == 200
    gw.api.delete(ROUTES, "default", "hello")
    gw.api.delete(REVISIONS, "default", "r1")
    gw.remove_pod("p1")
    await gw.until(lambda: "default/r1" not in gw.gateway.programming.control.clusters.applier.acked)
    await gw.until(lambda: "default/r1" not in gw.gateway.programming.control.endpoints.applier.acked)
    assert (await gw.get("hello"))[0] == 404


async def test_rollout_under_load_loses_nothing(gw: World) -> None:
    async with http_app("old") as old, http_app("new") as new:
        await warm(gw, old)
        statuses: Counter[int] = Counter()
        done = asyncio.Event()

        async def client() -> None:
            while not done.is_set():
                statuses[(await gw.get("hello", "/?sleep=0.002"))[0]] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(client())
            await asyncio.sleep(0.2)
            gw.revision("r2")
            gw.route("hello", {"r2": 100})
            await asyncio.sleep(0.2)
            gw.pod(new, "r2")
            await gw.until_warm("r2")
            gw.api.put(ROUTES, objects.route("hello", {"r1": 50, "r2": 50}))
            await asyncio.sleep(0.2)
            gw.api.put(ROUTES, objects.route("hello", {"r2": 100}))
            await asyncio.sleep(0.2)
            done.set()
        assert set(statuses) == {200}
        assert new.requests > 10
