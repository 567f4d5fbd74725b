"""Rows of `nodeless top` from objects and metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from serving.api.meta import Condition, ObjectMeta
from serving.api.reports import Demand, RevisionDemand
from serving.api.v1 import Revision, RevisionStatus
from serving.cli.scrape import by_revision, scrape
from serving.cli.top import build_rows
from serving.gateway.metrics import DemandMetrics
from serving.telemetry.metrics import serve_metrics

HELLO = "default/hello-00001"


def revision(name: str, *, actual: int = 0, desired: int = 0) -> Revision:
    return Revision(
        metadata=ObjectMeta(name=name, namespace="default", labels={"serving.knative.dev/service": "hello"}),
        status=RevisionStatus(
            conditions=(Condition(type="Ready", status="True"),), actual_replicas=actual, desired_replicas=desired
        ),
    )


def test_row_from_object_and_metrics() -> None:
    before = {"nodeless_revision_requests_total": {HELLO: 100.0}}
    after = {
        "kn_revision_concurrency_target": {HELLO: 70.0},
        "kn_revision_concurrency_stable": {HELLO: 12.5},
        "kn_revision_concurrency_panic": {HELLO: 20.0},
        "kn_revision_panic_mode": {HELLO: 1.0},
        "nodeless_revision_held_requests": {HELLO: 3.0},
        "nodeless_revision_in_progress_requests": {HELLO: 15.0},
        "nodeless_revision_requests_total": {HELLO: 150.0},
    }
    (row,) = build_rows([revision("hello-00001", actual=1, desired=4)], before, after, 2.0)
    assert (row.revision, row.service, row.ready) == ("hello-00001", "hello", "True")
    assert (row.actual, row.desired) == (1, 4)
    assert (row.metric, row.stable, row.panic, row.target) == ("concurrency", 12.5, 20.0, 70.0)
    assert row.panicking
    assert (row.held, row.in_flight, row.requests_per_second) == (3, 15, 25.0)


def test_a_restarted_gateway_gives_no_negative_rate() -> None:
    before, after = ({"nodeless_revision_requests_total": {HELLO: count}} for count in (500.0, 2.0))
    (row,) = build_rows([revision("hello-00001")], before, after, 1.0)
    assert row.requests_per_second == 0.0


def test_without_metrics_load_is_unknown() -> None:
    (row,) = build_rows([revision("hello-00001", actual=2)], {}, {}, 0.0)
    assert row.actual == 2
    assert (row.metric, row.held, row.in_flight, row.requests_per_second) == (None, None, None, None)


def test_busiest_first_then_by_name() -> None:
    busy = {"nodeless_revision_in_progress_requests": {"default/c": 4.0}}
    rows = build_rows([revision("b"), revision("a"), revision("d", actual=1), revision("c")], {}, busy, 1.0)
    assert [row.revision for row in rows] == ["c", "d", "a", "b"]


def test_samples_without_a_revision_are_left_out() -> None:
    text = 'up 1\nx{namespace_name="default",revision_name="r"} 2\ny{revision_name="r"} 3\n'
    assert by_revision(text) == {"x": {"default/r": 2.0}}


async def test_scrape_over_a_unix_socket(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("x", "a gauge", ["namespace_name", "revision_name"], registry=registry)
    gauge.labels("default", "r").set(7)
    socket = tmp_path / "m"
    async with asyncio.TaskGroup() as group:
        server = group.create_task(serve_metrics(f"unix:{socket}", registry=registry))
        async with asyncio.timeout(5):
            while not (found := await scrape(socket)):
                await asyncio.sleep(0.005)
        server.cancel()
    assert found == {"x": {"default/r": 7.0}}


async def test_nobody_listens(tmp_path: Path) -> None:
    assert await scrape(tmp_path / "nothing") == {}


def test_gateway_metrics_follow_the_reports() -> None:
    registry = CollectorRegistry()
    present, held = {HELLO, "default/idle"}, {HELLO: 2}
    metrics = DemandMetrics(revisions=lambda: present, held=lambda key: held.get(key, 0), registry=registry)
    for issued in (5, 7):
        metrics.record(Demand(start=0, end=1, revisions={HELLO: RevisionDemand(4, issued, 1)}))

    def value(name: str, key: str) -> float | None:
        namespace, revision = key.split("/")
        return registry.get_sample_value(name, {"namespace_name": namespace, "revision_name": revision})

    assert value("nodeless_revision_requests_total", HELLO) == 12
    assert value("nodeless_revision_in_progress_requests", HELLO) == 4
    assert value("nodeless_revision_held_requests", HELLO) == 2
    assert value("nodeless_revision_requests_total", "default/idle") == 0
    present.remove(HELLO)
    assert value("nodeless_revision_requests_total", HELLO) is None
    metrics.close()
    assert value("nodeless_revision_requests_total", "default/idle") is None
