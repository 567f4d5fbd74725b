"""The controller process against the embedded API server, with a gateway and a node played by the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from serving.api import keys
from serving.api.meta import JsonObject
from serving.api.reports import (
    ColdRevisions,
    ControllerMessage,
    Decided,
    Demand,
    Drains,
    GatewayMessage,
    Hello,
    PodDrain,
    Poke,
    Programmed,
)
from serving.api.resources import KSERVICES, NODES, PODS, REVISIONS, ROUTES
from serving.api.routing import programmed_hash
from serving.api.v1 import Route
from serving.controller.digests import PullSecret
from serving.controller.reports_server import SERVICE
from serving.controller.service import ControllerSettings, run
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from serving.kube.lease import heartbeat
from tests.local.apiserver.harness import running_apiserver, shipped_manifests

TOKEN = "secret"
REVISION = "default/hello-00001"


class Digests:
    async def resolve(self, reference: str, *, secrets: Sequence[PullSecret] = ()) -> str:
        if "black-hole" in reference:
            await asyncio.sleep(60)
        return f"{reference}@sha256:{'0' * 64}"


class Cluster:
    """The API server's client, and the roles that the test plays."""

    def __init__(self, client: KubeClient, address: str) -> None:
        self.client = client
        self.address = address
        self.outbox: asyncio.Queue[GatewayMessage] = asyncio.Queue()
        self.inbox: list[ControllerMessage] = []
        self.controller: asyncio.Task[None]
        self.start: Callable[[], Awaitable[None]]

    async def until(self, what: str, check: Callable[[], Any], *, seconds: float = 10) -> Any:
        """Result of `check` once it is true."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    value = check()
                    value = await value if asyncio.iscoroutine(value) else value
                    if value:
                        return value
                    await asyncio.sleep(0.01)
        except TimeoutError:
            pytest.fail(f"{what}: not within {seconds} s; pods: {await self.pods()}")

    async def pods(self) -> list[JsonObject]:
        items: list[JsonObject] = (await self.client.list(PODS, "default"))["items"]
        return items

    async def live(self) -> list[JsonObject]:
        return [pod for pod in await self.pods() if "deletionTimestamp" not in pod["metadata"]]

    async def play_gateway(self) -> None:
        """Programs whatever the routes say, and sends what the test puts into the outbox; reconnects."""
        while True:
            try:
                await self._stream()
            except* grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)

    async def _stream(self) -> None:
        async with grpc.aio.insecure_channel(self.address) as channel:
            await asyncio.wait_for(channel.channel_ready(), 10)
            call = channel.stream_stream(
                f"/{SERVICE}/Stream",
                request_serializer=msgspec.msgpack.encode,
                response_deserializer=msgspec.msgpack.Decoder(ControllerMessage).decode,
            )(metadata=(("authorization", f"Bearer {TOKEN}"),))
            await call.write(Hello("g", "1"))

            async def send() -> None:
                while True:
                    await call.write(await self.outbox.get())

            async def program() -> None:
                while True:
                    routes = (await self.client.list(ROUTES))["items"]
                    hashes = {}
                    for item in routes:
                        route = msgspec.convert(item, Route)
                        hashes[route.metadata.key] = programmed_hash(route)
                    await self.outbox.put(Programmed(hashes))
                    await asyncio.sleep(0.05)

            async with asyncio.TaskGroup() as group:
                group.create_task(send())
                group.create_task(program())
                async for message in call:
                    self.inbox.append(message)

    async def play_node(self) -> None:
        """Makes every pod ready and lets deleted ones go once they are drained."""
        while True:
            for pod in await self.pods():
                meta = pod["metadata"]
                name, marks = meta["name"], meta["annotations"]
                if "deletionTimestamp" in meta and keys.DRAINED in marks:
                    await self.client.delete(PODS, name, "default", grace_period_seconds=0)
                elif not pod.get("status", {}).get("podIP"):
                    status = {
                        "phase": "Running",
                        "podIP": "198.18.0.9",
                        "conditions": [{"type": "Ready", "status": "True"}],
                    }
                    await self.client.patch(PODS, name, {"status": status}, "default", subresource="status")
            await asyncio.sleep(0.02)

    async def drain_all(self) -> None:
        drains = {}
        for pod in await self.pods():
            if keys.DRAINING in pod["metadata"]["annotations"] or "deletionTimestamp" in pod["metadata"]:
                drains[pod["metadata"]["uid"]] = PodDrain(True, 0)
        await self.outbox.put(Drains(drains))

    async def report(self, in_progress: int = 0) -> None:
        from serving.api.reports import RevisionDemand

        now = time.time()
        demand = {REVISION: RevisionDemand(in_progress, in_progress, 0)} if in_progress else {}
        await self.outbox.put(Demand(now - 1, now, demand))


@asynccontextmanager
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    address = f"unix:{tmp_path}/reports.sock"
    settings = ControllerSettings(identity="c", listen=address, advertise=address, token=TOKEN)
    async with running_apiserver(tmp_path, manifests=shipped_manifests()) as server:
        connection = over_unix_socket(server.socket, token=server.token)
        async with KubeClient(connection) as client, KubeClient(connection) as mine:
            await mine.create(NODES, node())
            await mine.patch(NODES, "local", {"status": node()["status"]}, subresource="status")
            played = Cluster(mine, address)
            async with asyncio.TaskGroup() as group:

                async def start() -> None:
                    started = asyncio.Event()
                    controller = run(
                        settings,
                        client=client,
                        resolver=Digests(),
                        now=time.time,
                        started=started.set,
                        registry=CollectorRegistry(),
                    )
                    played.controller = group.create_task(controller)
                    await asyncio.wait_for(started.wait(), 10)

                played.start = start
                await start()
                alive = heartbeat(mine, name="g", component="gateway", identity="g", now=time.time)
                roles = [*map(group.create_task, (alive, played.play_gateway(), played.play_node()))]
                yield played
                for task in (played.controller, *roles):
                    task.cancel()


def node() -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "local", "labels": {keys.POOL_LABEL: "local"}},
        "status": {"allocatable": {"pods": "10"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def service(**annotations: str) -> JsonObject:
    """As the webhook would have made it."""
    marks = {f"autoscaling.knative.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    container = {"image": "registry.test/hello", "name": "user-container"}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {
            "template": {"metadata": {"annotations": marks}, "spec": {"containers": [container]}},
            "traffic": [{"latestRevision": True, "percent": 100}],
        },
    }


async def ready(played: Cluster) -> bool:
    found = await played.client.get(KSERVICES, "hello", "default")
    conditions = found.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def test_a_service_becomes_ready_on_a_digest(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await played.client.create(KSERVICES, service())
        await played.until("Ready", lambda: ready(played))
        pods = await played.pods()
        assert len(pods) == 1
        assert pods[0]["metadata"]["name"].startswith("hello-00001-deployment-")
        assert pods[0]["spec"]["nodeName"] == "local"
        assert pods[0]["spec"]["containers"][0]["image"].endswith("0" * 64)
        revision = await played.client.get(REVISIONS, "hello-00001", "default")
        assert revision["status"]["actualReplicas"] == 1
        assert revision["metadata"]["labels"][keys.ROUTING_STATE] == "active"


@pytest.mark.timeout(90)
async def test_to_zero_by_drain_and_back_by_poke(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await played.client.create(KSERVICES, service(window="6s"))
        await played.until("Ready", lambda: ready(played))

        async def quiet() -> bool:
            await played.report()
            return any(keys.DRAINING in pod["metadata"]["annotations"] for pod in await played.live())

        await played.until("draining", quiet, seconds=40)
        assert len(await played.live()) == 1, "a pod goes only after every gateway acknowledged"
        await played.outbox.put(ColdRevisions(frozenset({REVISION})))
        await played.drain_all()
        await played.until("no pods", lambda: _empty(played))
        began = time.time()
        await played.outbox.put(Poke(REVISION, 1, began))
        await played.until("a pod again", lambda: played.live())
        decided = await played.until(
            "Decided", lambda: [message for message in played.inbox if isinstance(message, Decided)]
        )
        assert decided[-1].poke_at == began
        assert len(decided[-1].pods) == 1


async def _empty(played: Cluster) -> bool:
    return not await played.pods()


@pytest.mark.timeout(90)
async def test_a_poke_takes_a_drain_back(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await played.client.create(KSERVICES, service(window="6s"))
        await played.until("Ready", lambda: ready(played))

        async def quiet() -> bool:
            await played.report()
            return any(keys.DRAINING in pod["metadata"]["annotations"] for pod in await played.live())

        await played.until("draining", quiet, seconds=40)
        before = [pod["metadata"]["uid"] for pod in await played.live()]
        await played.outbox.put(Poke(REVISION, 1, time.time()))

        async def back() -> bool:
            return all(keys.DRAINING not in pod["metadata"]["annotations"] for pod in await played.live())

        await played.until("drain taken back", back)
        assert [pod["metadata"]["uid"] for pod in await played.live()] == before


async def test_a_deletion_by_somebody_else_waits_for_the_gateways(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await played.client.create(KSERVICES, service(min_scale="1"))
        await played.until("Ready", lambda: ready(played))
        pod = (await played.live())[0]["metadata"]
        await played.client.delete(PODS, pod["name"], "default")
        await played.outbox.put(Drains({pod["uid"]: PodDrain(True, 1)}))
        await played.until("a replacement", lambda: played.live())
        assert pod["uid"] in [other["metadata"]["uid"] for other in await played.pods()]
        await played.outbox.put(Drains({pod["uid"]: PodDrain(True, 0)}))

        async def gone() -> bool:
            return pod["uid"] not in [other["metadata"]["uid"] for other in await played.pods()]

        await played.until("gone", gone)


async def test_deleting_the_service_removes_everything(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await played.client.create(KSERVICES, service())
        await played.until("Ready", lambda: ready(played))
        await played.client.delete(KSERVICES, "hello", "default")

        async def gone() -> bool:
            await played.drain_all()
            revisions = (await played.client.list(REVISIONS, "default"))["items"]
            return not revisions and not await played.pods()

        await played.until("everything gone", gone)


async def test_a_restarted_controller_writes_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await played.client.create(KSERVICES, service(min_scale="1"))
        await played.until("Ready", lambda: ready(played))
        await asyncio.sleep(0.5)
        before = await versions(played)
        played.controller.cancel()
        await asyncio.wait([played.controller])
        await played.start()
        for _ in range(5):
            await played.report()
            await asyncio.sleep(0.5)
        assert await versions(played) == before


async def versions(played: Cluster) -> dict[str, str]:
    found = {}
    for resource in (KSERVICES, REVISIONS, ROUTES, PODS):
        for item in (await played.client.list(resource, "default"))["items"]:
            found[f"{resource.kind}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return found
