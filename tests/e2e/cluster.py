"""What a user does with the API: through kubectl where there is one, else the same requests over plain HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias

from serving.api.meta import JsonObject, JsonPatch
from serving.api.resources import (
    CONFIG_MAPS,
    CONFIGURATIONS,
    DOMAIN_MAPPINGS,
    KSERVICES,
    PODS,
    REVISIONS,
    ROUTES,
    SERVICES,
    Resource,
)
from serving.kube.client import KubeClient
from serving.kube.connection import Connection, over_unix_socket
from serving.kube.errors import ApiError
from serving.local.layout import open_layout
from tests.e2e.kubectl import Kubectl, Refused
from tests.e2e.stack import Stack

KINDS: dict[str, Resource] = {
    "ksvc": KSERVICES,
    "configuration": CONFIGURATIONS,
    "revision": REVISIONS,
    "route": ROUTES,
    "pod": PODS,
    "configmap": CONFIG_MAPS,
    "domainmapping": DOMAIN_MAPPINGS,
    "service": SERVICES,
}
_BY_KIND = {(resource.api_version, resource.kind): resource for resource in KINDS.values()}
_FULL = {name: f"{resource.plural}.{resource.group}".rstrip(".") for name, resource in KINDS.items()}
Objects: TypeAlias = list[JsonObject]
Predicate = Callable[[Objects], object]


class Cluster:
    """One stack's API. Commands go through kubectl when `kubectl` is set; waiting is always on a watch."""

    def __init__(
        self, stack: Stack, *, connection: Connection, client: KubeClient, kubectl: Kubectl | None
    ) -> None:
        self.stack = stack
        self.connection = connection
        self.client = client
        self.kubectl = kubectl

    async def apply(self, body: JsonObject) -> None:
        """`kubectl apply`. Raises Refused."""
        if self.kubectl is not None:
            await self.kubectl.apply(body)
            return
        resource, meta = _BY_KIND[body["apiVersion"], body["kind"]], body["metadata"]
        namespace = meta.get("namespace", "default")
        if await self._send("PATCH", resource.path(namespace, meta["name"]), body) == 404:
            await self._send("POST", resource.path(namespace), body)

    async def _send(self, method: str, path: str, body: JsonObject) -> int:
        """A write as kubectl sends it; returns the status, which is 404 or a success. Raises Refused."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind, "Authorization": await self.connection.authorization() or ""}
        async with (
            self.connection.session() as session,
            session.request(
                method,
                self.connection.base_url + path,
                params={"fieldValidation": "Strict"},
                data=json.dumps(body).encode(),
                headers=headers,
            ) as response,
        ):
            answer = await response.json()
        if response.status >= 400 and not (response.status == 404 and method == "PATCH"):
            raise Refused(f"Error from server ({answer['reason']}): {answer['message']}")
        return response.status

    async def patch(
        self, kind: str, name: str, patch: JsonObject | JsonPatch, *, namespace: str = "default"
    ) -> None:
        """`kubectl patch --type merge|json`. Raises Refused."""
        if self.kubectl is not None:
            how = "json" if isinstance(patch, list) else "merge"
            text = json.dumps(patch)
            await self.kubectl("patch", _FULL[kind], name, "-n", namespace, f"--type={how}", "-p", text)
            return
        try:
            await self.client.patch(KINDS[kind], name, patch, namespace)
        except ApiError as error:
            raise Refused(error.message) from error

    async def delete(self, kind: str, name: str, *, namespace: str = "default") -> None:
        if self.kubectl is not None:
            await self.kubectl("delete", _FULL[kind], name, "-n", namespace)
            return
        await self.client.delete(KINDS[kind], name, namespace)

    async def get(self, kind: str, name: str, *, namespace: str = "default") -> JsonObject:
        return await self.client.get(KINDS[kind], name, namespace)

    async def until(
        self,
        kind: str,
        predicate: Predicate,
        *,
        selector: str = "",
        namespace: str = "default",
        seconds: float = 30,
        what: str,
    ) -> Objects:
        """Watch a collection until `predicate` holds for it. Fails with the objects and the ends of the logs."""
        objects: dict[str, JsonObject] = {}
        try:
            async with asyncio.timeout(seconds):
                async for _ in self._follow(KINDS[kind], selector, namespace, objects):
                    if predicate(list(objects.values())):
                        return list(objects.values())
        except TimeoutError:
            pass
        shown = "\n".join(json.dumps(_brief(item)) for item in objects.values())
        raise AssertionError(f"not within {seconds:g} s: {what}\n{shown}\n{self.stack.log_tails()}")

    async def _follow(
        self, resource: Resource, selector: str, namespace: str, objects: dict[str, JsonObject]
    ) -> AsyncIterator[None]:
        """Keep `objects` up to date, and yield at each change. Survives a restart of the API server."""
        while True:
            try:
                listed = await self.client.list(resource, namespace, label_selector=selector)
                objects.clear()
                objects.update({item["metadata"]["name"]: item for item in listed["items"]})
                yield
                events = self.client.watch(
                    resource,
                    namespace,
                    resource_version=listed["metadata"]["resourceVersion"],
                    label_selector=selector,
                    timeout_seconds=60,
                )
                async with aclosing(events):
                    async for event in events:
                        if event.type in ("BOOKMARK", "ERROR"):
                            continue
                        item = json.loads(bytes(event.object))
                        if event.type == "DELETED":
                            objects.pop(item["metadata"]["name"], None)
                        else:
                            objects[item["metadata"]["name"]] = item
                        yield
            except ApiError as error:
                if not error.transient:
                    raise
                await asyncio.sleep(0.1)

    async def condition(
        self, kind: str, name: str, *, type: str = "Ready", status: str = "True", seconds: float = 30
    ) -> JsonObject:
        """`kubectl wait --for=condition=TYPE=STATUS`, for the current generation; returns the condition."""
        found: JsonObject = {}

        def holds(items: Objects) -> bool:
            for item in items:
                current = item.get("status", {}).get("observedGeneration") == item["metadata"].get("generation")
                for condition in item.get("status", {}).get("conditions", ()):
                    if item["metadata"]["name"] == name and current and condition["type"] == type:
                        found.update(condition)
                        return bool(condition["status"] == status)
            return False

        await self.until(kind, holds, seconds=seconds, what=f"{kind} {name} {type}={status}")
        return found

    async def ready(self, name: str, *, seconds: float = 30) -> JsonObject:
        """Wait for a Service to be Ready; returns it."""
        await self.condition("ksvc", name, seconds=seconds)
        return await self.get("ksvc", name)

    async def deploy(self, body: JsonObject, *, seconds: float = 30) -> JsonObject:
        """Apply a Service and wait until it is Ready."""
        await self.apply(body)
        return await self.ready(body["metadata"]["name"], seconds=seconds)

    async def pods(self, service: str, count: Callable[[int], object], *, seconds: float = 30, what: str) -> None:
        """Wait until the number of a Service's pods that are not being deleted satisfies `count`."""

        def holds(items: Objects) -> object:
            return count(sum("deletionTimestamp" not in item["metadata"] for item in items))

        selector = f"serving.knative.dev/service={service}"
        await self.until("pod", holds, selector=selector, seconds=seconds, what=f"pods of {service}: {what}")

    async def at_zero(self, service: str, *, seconds: float = 40) -> None:
        """Until the last pod of a Service is gone."""
        selector = f"serving.knative.dev/service={service}"
        await self.until(
            "pod", lambda items: not items, selector=selector, seconds=seconds, what=f"{service} at zero"
        )

    async def list(self, kind: str, selector: str = "", *, namespace: str = "default") -> Objects:
        found = await self.client.list(KINDS[kind], namespace, label_selector=selector)
        items: Objects = found["items"]
        return items


@asynccontextmanager
async def open_cluster(stack: Stack, kubectl: str | None) -> AsyncIterator[Cluster]:
    layout = open_layout(stack.data_dir)
    connection = over_unix_socket(layout.api_socket, token=layout.token.read_text().strip())
    runner = None
    if kubectl is not None:
        runner = Kubectl(kubectl, kubeconfig=layout.kubeconfig, cache=stack.data_dir / "kubectl-cache")
    async with KubeClient(connection) as client:
        yield Cluster(stack, connection=connection, client=client, kubectl=runner)


def _brief(item: JsonObject) -> JsonObject:
    return {"name": item["metadata"]["name"], "status": item.get("status"), "at": time.strftime("%H:%M:%S")}
