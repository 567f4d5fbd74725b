"""kubernetes-asyncio against the server: its content types, booleans and patches differ from kubectl's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serving.local.apiserver.service import Running
from tests.local.apiserver.objects import config_map, pod, widget
from tests.local.apiserver.requests import OWN, Api

GROUP = ("example.dev", "v1", "default", "widgets")


@pytest.fixture
async def client(server: Running, widgets: Api) -> AsyncIterator[Any]:
    from kubernetes_asyncio import client, config

    configuration = client.Configuration()
    await config.load_kube_config(str(server.kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as made:
        yield made


async def test_core_kinds(client: Any) -> None:
    from kubernetes_asyncio.client import CoreV1Api

    core: Any = CoreV1Api(client)
    made = await core.create_namespaced_config_map("default", config_map("a", k="1"))
    assert made.metadata.uid
    patched = await core.patch_namespaced_config_map("a", "default", {"data": {"k": "2"}})
    assert patched.data == {"k": "2"}
    listed = await core.list_namespaced_config_map(
        "default", label_selector="!x", field_selector=OWN["fieldSelector"]
    )
    assert [item.metadata.name for item in listed.items] == ["a"]
    await core.create_namespaced_pod("default", pod("p"))
    pods = await core.list_pod_for_all_namespaces(field_selector="metadata.name=p")
    assert pods.items[0].spec.containers[0].image == "example.dev/app:1"
    await core.delete_namespaced_pod("p", "default")
    await core.delete_namespaced_config_map("a", "default", propagation_policy="Background")


async def test_custom_objects(client: Any) -> None:
    from kubernetes_asyncio.client import CustomObjectsApi

    custom: Any = CustomObjectsApi(client)
    await custom.create_namespaced_custom_object(*GROUP, widget("w", size=1))
    merge = {"_content_type": "application/merge-patch+json"}
    patched = await custom.patch_namespaced_custom_object(*GROUP, "w", {"spec": {"size": 2}}, **merge)
    assert patched["spec"]["size"] == 2
    status = {"status": {"ready": True}}
    patched = await custom.patch_namespaced_custom_object_status(*GROUP, "w", status, **merge)
    assert patched["status"] == {"ready": True}
    assert len((await custom.list_namespaced_custom_object(*GROUP))["items"]) == 1
    await custom.delete_namespaced_custom_object(*GROUP, "w")


async def test_watch(client: Any) -> None:
    from kubernetes_asyncio import watch
    from kubernetes_asyncio.client import CoreV1Api

    core: Any = CoreV1Api(client)
    await core.create_namespaced_config_map("default", config_map("a"))
    async with watch.Watch() as watching, asyncio.timeout(10):
        async for event in watching.stream(core.list_namespaced_config_map, "default"):
            assert (event["type"], event["object"].metadata.name) == ("ADDED", "a")
            break
