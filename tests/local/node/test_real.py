"""The agent with nothing faked: the embedded API server, images on disk, pods in namespaces."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from serving.api.meta import JsonObject
from serving.api.pod import Pod
from serving.api.resources import NODES, PODS
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from serving.kube.errors import NotFound
from serving.local.images.examples import build_example
from serving.local.images.store import LocalImageStore
from serving.local.network.service import PodNetwork
from serving.local.node.service import NodeSettings, run
from serving.local.sandbox.namespace import NamespaceRuntime
from tests.local.apiserver.harness import running_apiserver
from tests.local.node.pods import NODE

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces with a bridge, cgroups"),
]


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop() -> None:
    """Sandboxes and images watch over themselves in their own tests."""


class Machine:
    """API server and images that outlive the agents of one test."""

    def __init__(self, directory: Path, client: KubeClient, images: LocalImageStore) -> None:
        self.directory = directory
        self.client = client
        self.images = images
        self.instance = secrets.token_hex(4)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        """One life of the agent: what runs when it ends goes on running."""
        network = PodNetwork(data_dir=self.directory, instance=self.instance)
        runtime = NamespaceRuntime(self.directory / "sandboxes", self.instance, network, spare=1)
        settings = NodeSettings(
            name=NODE,
            data_dir=self.directory / "node",
            instance=self.instance,
            memory_dir=self.directory / "memory",
        )
        started = asyncio.Event()
        task = asyncio.create_task(
            run(settings, client=self.client, runtime=runtime, images=self.images, started=started.set)
        )
        try:
            ready = asyncio.create_task(started.wait())
            await asyncio.wait([task, ready], timeout=20, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            assert not task.done(), task.exception()
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await runtime.stop()

    async def pod(self, name: str = "p") -> Pod:
        return msgspec.convert(await self.client.get(PODS, name, "default"), Pod)

    async def until(self, check: Callable[[Pod], Any], name: str = "p") -> Pod:
        async with asyncio.timeout(20):
            while not check(pod := await self.pod(name)):
                await asyncio.sleep(0.01)
        return pod

    async def gone(self, name: str = "p") -> None:
        async with asyncio.timeout(20):
            with suppress(NotFound):
                while True:
                    await self.client.get(PODS, name, "default")
                    await asyncio.sleep(0.01)


@asynccontextmanager
async def machine(directory: Path) -> AsyncIterator[Machine]:
    async with (
        running_apiserver(directory / "api") as server,
        LocalImageStore(directory / "images") as images,
        KubeClient(over_unix_socket(server.socket, token=server.token)) as client,
    ):
        await build_example(images, "hello-static")
        yield Machine(directory, client, images)


def hello(name: str = "p", **fields: Any) -> JsonObject:
    container = {
        "name": "user-container",
        "image": "dev.local/hello-static:latest",
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "PORT", "value": "8080"}],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": NODE, "terminationGracePeriodSeconds": 2, "containers": [container | fields]},
    }


async def test_a_pod_lives_serves_survives_its_agent_and_dies(tmp_path: Path) -> None:
    async with machine(tmp_path) as it:
        async with it.agent():
            await it.client.create(PODS, hello(), "default")
            pod = await it.until(lambda pod: pod.ready)
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{pod.status.pod_ip}:8080/") as response,
            ):
                assert response.status == 200
            log = await it.client.raw("GET", "/api/v1/namespaces/default/pods/p/log")
            assert b"listening" in log
            node = await it.client.get(NODES, NODE)
            assert node["metadata"]["annotations"]["nodeless.dev/sandbox"] == "namespace"
        before = await it.pod()
        async with it.agent():
            await asyncio.sleep(0.3)
            after = await it.pod()
            assert after.metadata.resource_version == before.metadata.resource_version
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://{after.status.pod_ip}:8080/") as response,
            ):
                assert response.status == 200
            await it.client.delete(PODS, "p", "default")
            await it.gone()


async def test_failures_as_users_see_them(tmp_path: Path) -> None:
    async with machine(tmp_path) as it, it.agent():
        await it.client.create(PODS, hello("nope", command=["/nope"]), "default")
        await it.client.create(PODS, hello("image", image="dev.local/none:1"), "default")

        def waits(reason: str) -> Callable[[Pod], bool]:
            def check(pod: Pod) -> bool:
                states = [status.state.waiting for status in pod.status.container_statuses]
                return any(state is not None and state.reason == reason for state in states)

            return check

        nope = await it.until(waits("CrashLoopBackOff"), "nope")
        ended = nope.status.container_statuses[0].last_state.terminated
        assert ended is not None
        assert (ended.exit_code, ended.reason) == (128, "StartError")
        assert "/nope" in ended.message
        await it.until(waits("ImagePullBackOff"), "image")
        for name in ("nope", "image"):
            await it.client.delete(PODS, name, "default", grace_period_seconds=0)
            await it.gone(name)
