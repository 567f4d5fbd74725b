"""The status writer: only differences, one at a time, and an end to every exchange."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from serving.api.meta import Condition, JsonObject
from serving.api.pod import PodStatus
from serving.api.resources import PODS
from serving.kube.errors import ServerError, Unreachable
from serving.local.node.status_writer import StatusWriter
from tests.local.node.fakes import FakeKube
from tests.local.node.pods import pod_json, typed

RUNNING = PodStatus(phase="Running", pod_ip="198.18.0.2", start_time="2026-01-01T00:00:00Z")


@asynccontextmanager
async def writer(kube: FakeKube, **metadata: Any) -> AsyncIterator[StatusWriter]:
    item = pod_json()
    item["metadata"] |= metadata
    pod = typed(kube.put(PODS, item))
    async with asyncio.TaskGroup() as group:
        yield StatusWriter(kube, pod, spawn=lambda work, name: group.create_task(work, name=name))


async def test_nothing_is_written_twice() -> None:
    kube = FakeKube()
    async with writer(kube) as it:
        it.offer(RUNNING, {"a": "1", "absent": None})
        it.offer(RUNNING, {"a": "1", "absent": None})
        await it.flush(timeout=1)
        it.offer(RUNNING, {"a": "1", "absent": None})
        it.observe(kube.pod("p"))
        await it.flush(timeout=1)
        assert len(kube.pod_writes()) == 1
        assert kube.pod("p").metadata.annotations == {"a": "1"}


async def test_only_the_newest_status_is_written_after_failures() -> None:
    kube = FakeKube()
    kube.failures += [Unreachable("down"), ServerError(500, {})]
    async with writer(kube) as it:
        it.offer(PodStatus(phase="Pending", pod_ip="198.18.0.2"), {})
        await asyncio.sleep(0.01)
        it.offer(RUNNING, {})
        await it.flush(timeout=2)
        assert [body["status"]["phase"] for body in kube.pod_writes()] == ["Running"]


async def test_a_field_that_goes_away_is_removed() -> None:
    kube = FakeKube()
    async with writer(kube) as it:
        it.offer(msgspec.structs.replace(RUNNING, reason="R", message="M"), {})
        await it.flush(timeout=1)
        it.offer(RUNNING, {})
        await it.flush(timeout=1)
        assert kube.pod_writes()[-1]["status"] == {"reason": None, "message": None}


async def test_conditions_of_others_stay() -> None:
    kube = FakeKube()
    item = pod_json()
    item["status"] = {"conditions": [{"type": "example.com/gate", "status": "True"}]}
    pod = typed(kube.put(PODS, item))
    async with asyncio.TaskGroup() as group:
        it = StatusWriter(kube, pod, spawn=lambda work, name: group.create_task(work, name=name))
        it.offer(msgspec.structs.replace(RUNNING, conditions=(Condition(type="Ready", status="True"),)), {})
        await it.flush(timeout=1)
    assert {c.type for c in kube.pod("p").status.conditions} == {"Ready", "example.com/gate"}


async def test_somebody_elses_change_is_put_right() -> None:
    kube = FakeKube()
    async with writer(kube) as it:
        it.offer(RUNNING, {})
        await it.flush(timeout=1)
        await kube.patch(PODS, "p", {"status": {"phase": "Pending"}}, "default", subresource="status")
        it.observe(kube.pod("p"))
        await it.flush(timeout=1)
        assert kube.pod("p").status.phase == "Running"


async def test_news_older_than_our_write_changes_nothing() -> None:
    kube = FakeKube()
    async with writer(kube) as it:
        old = kube.pod("p")
        it.offer(RUNNING, {})
        await it.flush(timeout=1)
        it.observe(old)
        await it.flush(timeout=1)
        assert len(kube.pod_writes()) == 1


class Stubborn(FakeKube):
    """Stores another address than it was given."""

    async def patch(self, *args: Any, **kwargs: Any) -> JsonObject:
        answer = await super().patch(*args, **kwargs)
        answer["status"]["podIP"] = "0.0.0.0"
        return answer


async def test_a_server_that_stores_something_else_is_not_asked_for_ever() -> None:
    kube = Stubborn()
    async with writer(kube) as it:
        it.offer(RUNNING, {})
        await it.flush(timeout=1)
        assert len(kube.pod_writes()) == 1


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_pod_that_is_gone_or_another_is_left_alone(replaced: bool) -> None:
    kube = FakeKube()
    async with writer(kube) as it:
        kube.remove(PODS, "p", "default")
        if replaced:
            other = pod_json()
            other["metadata"]["uid"] = "another"
            kube.put(PODS, other)
        it.offer(RUNNING, {})
        await it.flush(timeout=1)
        assert it.gone
        assert kube.pod_writes() == []
