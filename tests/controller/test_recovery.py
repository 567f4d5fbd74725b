"""The controller when names are used again, revisions retire and gateways speak another dialect."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from serving.api import keys
from serving.api.meta import JsonObject
from serving.api.reports import GatewayMessage, Settings
from serving.api.resources import CONFIGURATIONS, KSERVICES, REVISIONS
from serving.controller.revisions import QUEUE_CONCURRENCY
from tests.controller.test_service import Cluster, cluster, ready, service


async def of_revision(played: Cluster, name: str) -> list[JsonObject]:
    return [pod for pod in await played.pods() if pod["metadata"]["labels"][keys.REVISION] == name]


@pytest.mark.timeout(90)
async def test_the_minimum_of_a_retired_revision_ends_without_any_traffic(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await played.client.create(KSERVICES, service(min_scale="1", window="6s"))
        await played.until("Ready", lambda: ready(played))
        for _ in range(80):  # until the autoscaler has seen a whole window of nothing and is at rest
            await played.report()
            await asyncio.sleep(0.1)
        container = {"image": "registry.test/second", "name": "user-container"}
        template = {"template": {"spec": {"containers": [container]}}}
        await played.client.patch(KSERVICES, "hello", {"spec": template}, "default")

        async def retired() -> bool:
            await played.report()
            pods = await of_revision(played, "hello-00001")
            return bool(pods) and all(keys.DRAINING in pod["metadata"]["annotations"] for pod in pods)

        await played.until("the first revision drains", retired, seconds=30)
        (second,) = await of_revision(played, "hello-00002")
        assert keys.DRAINING not in second["metadata"]["annotations"]


@pytest.mark.timeout(60)
async def test_a_service_made_again_runs_its_own_image(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await played.client.create(KSERVICES, service(min_scale="1"))
        await played.until("Ready", lambda: ready(played))
        await played.client.delete(KSERVICES, "hello", "default")
        again = service(min_scale="1")
        again["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.test/other"
        await played.client.create(KSERVICES, again)

        async def images() -> set[str]:
            await played.drain_all()
            return {pod["spec"]["containers"][0]["image"].split("@")[0] for pod in await played.pods()}

        async def only_the_new() -> bool:
            return await images() == {"registry.test/other"}

        await played.until("pods of the new image only", only_the_new, seconds=20)
        await played.until("Ready", lambda: ready(played))


class FromTheFuture(msgspec.Struct, frozen=True, tag="future"):
    what: Any


async def test_a_message_that_is_not_understood_does_not_end_the_stream(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await played.until("connected", lambda: played.inbox)
        await played.outbox.put(cast("GatewayMessage", FromTheFuture(1)))
        await played.client.create(KSERVICES, service())
        await played.until("Ready", lambda: ready(played))
        assert sum(isinstance(message, Settings) for message in played.inbox) == 1


async def test_a_taken_revision_name_is_used_once_it_is_free(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        foreign = {"apiVersion": "serving.knative.dev/v1", "kind": "Revision"}
        meta = {"name": "hello-mine", "namespace": "default"}
        spec = {"containers": [{"image": "registry.test/x", "name": "user-container"}]}
        await played.client.create(REVISIONS, foreign | {"metadata": meta, "spec": spec})
        mine = service()
        mine["spec"]["template"]["metadata"]["name"] = "hello-mine"
        await played.client.create(KSERVICES, mine)

        async def refused() -> bool:
            found = (await played.client.list(CONFIGURATIONS, "default"))["items"]
            conditions = [entry for item in found for entry in item.get("status", {}).get("conditions", [])]
            return any(entry.get("reason") == "RevisionFailed" for entry in conditions)

        await played.until("the name is taken", refused)
        await played.client.delete(REVISIONS, "hello-mine", "default")
        await played.until("Ready", lambda: ready(played))


@pytest.mark.timeout(60)
async def test_a_registry_that_does_not_answer_delays_nobody_else(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        for number in range(QUEUE_CONCURRENCY):
            waiting = service()
            waiting["metadata"]["name"] = f"waiting-{number}"
            waiting["spec"]["template"]["spec"]["containers"][0]["image"] = "black-hole.test/hello"
            await played.client.create(KSERVICES, waiting)

        async def all_wait() -> bool:
            return len((await played.client.list(REVISIONS, "default"))["items"]) == QUEUE_CONCURRENCY

        await played.until("their revisions", all_wait)
        other = {"apiVersion": "serving.knative.dev/v1", "kind": "Revision"}
        meta = {"name": "broken", "namespace": "default"}
        await played.client.create(REVISIONS, other | {"metadata": meta, "spec": {"containers": []}})

        async def told() -> bool:
            found = await played.client.get(REVISIONS, "broken", "default")
            return any(
                entry.get("reason") == "InvalidSpec" for entry in found.get("status", {}).get("conditions", [])
            )

        await played.until("the status of another revision", told, seconds=5)
