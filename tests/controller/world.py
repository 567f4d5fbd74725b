"""A tiny API server as a value: applies writes with Kubernetes' rules for generation and merge patches."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from serving.api.meta import JsonObject, Model
from serving.api.resources import CONFIGURATIONS, KSERVICES, REVISIONS, ROUTES, Resource
from serving.api.v1 import Configuration, Revision, Route, Service
from serving.controller.configuration import reconcile_configuration
from serving.controller.ksvc import reconcile_ksvc
from serving.controller.naming import wanted_name
from serving.controller.route import Lookup, Pace, Placeholders, Urls, reconcile_route
from serving.controller.writes import Create, Patch, Write

T = TypeVar("T", bound=Model)
NOW = "2026-01-01T00:00:00Z"
NAMESPACE = "default"


class World:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], JsonObject] = {}
        self.writes = 0
        self.programmed = True
        self.rollout_seconds = 0
        self.defaulted: Callable[[JsonObject], JsonObject] = lambda spec: spec
        self.now_ns = 1_000_000_000
        self._uids = itertools.count(1)

    def put(self, resource: Resource, body: JsonObject) -> None:
        body = msgspec.json.decode(msgspec.json.encode(body))
        meta = body.setdefault("metadata", {})
        meta.setdefault("namespace", NAMESPACE)
        meta |= {"uid": f"uid-{next(self._uids)}", "generation": 1, "resourceVersion": "1"}
        key = (resource.plural + "." + resource.group, meta["name"])
        assert key not in self.objects, f"{key} exists"
        self.objects[key] = body

    def get(self, resource: Resource, name: str, kind: type[T]) -> T | None:
        body = self.objects.get((resource.plural + "." + resource.group, name))
        return None if body is None else msgspec.convert(body, kind)

    def all(self, resource: Resource, kind: type[T]) -> list[T]:
        wanted = resource.plural + "." + resource.group
        return [msgspec.convert(body, kind) for (plural, _), body in self.objects.items() if plural == wanted]

    def edit(self, resource: Resource, name: str, patch: JsonObject) -> None:
        body = self.objects[(resource.plural + "." + resource.group, name)]
        before = msgspec.json.encode(body.get("spec"))
        _merge(body, patch)
        body["metadata"]["resourceVersion"] = str(int(body["metadata"]["resourceVersion"]) + 1)
        if msgspec.json.encode(body.get("spec")) != before:
            body["metadata"]["generation"] += 1

    def apply(self, writes: list[Write]) -> None:
        self.writes += len(writes)
        for write in writes:
            if isinstance(write, Create):
                self.put(write.resource, write.body)
            elif isinstance(write, Patch):
                assert (write.subresource == "status") == (set(write.patch) == {"status"})
                self.edit(write.resource, write.name, write.patch)

    def settle(self) -> None:
        """Run every reconciler until nothing is written any more."""
        for _ in range(20):
            before = self.writes
            self.step()
            if self.writes == before:
                return
        raise AssertionError("the reconcilers do not converge")

    def step(self) -> None:
        for ksvc in self.all(KSERVICES, Service):
            name = ksvc.metadata.name
            configuration = self.get(CONFIGURATIONS, name, Configuration)
            byo = (ksvc.spec.template.get("metadata") or {}).get("name", "")
            self.apply(
                reconcile_ksvc(
                    ksvc,
                    configuration=configuration,
                    route=self.get(ROUTES, name, Route),
                    named_revision=self.get(REVISIONS, byo, Revision) if byo else None,
                    defaulted=self.defaulted,
                    now=NOW,
                )
            )
        for configuration in self.all(CONFIGURATIONS, Configuration):
            self.apply(
                reconcile_configuration(
                    configuration,
                    revisions=self.all(REVISIONS, Revision),
                    named_revision=self.get(REVISIONS, wanted_name(configuration), Revision),
                    now=NOW,
                )
            )
        for route in self.all(ROUTES, Route):
            self.apply(
                reconcile_route(
                    route,
                    lookup=self.lookup(),
                    urls=urls(route),
                    conflict=None,
                    programmed=lambda _: self.programmed,
                    placeholders=Placeholders(),
                    pace=Pace(seconds=self.rollout_seconds, now=self.now_ns),
                    now=NOW,
                )
            )

    def lookup(self) -> Lookup:
        return Lookup(
            configuration=lambda name: self.get(CONFIGURATIONS, name, Configuration),
            revision=lambda name: self.get(REVISIONS, name, Revision),
        )

    def set_ready(self, revision: str, status: str = "True", *, reason: str = "", message: str = "") -> None:
        condition = {"type": "Ready", "status": status, "reason": reason, "message": message}
        self.edit(REVISIONS, revision, {"status": {"conditions": [condition]}})


def urls(route: Route) -> Urls:
    name = route.metadata.name
    tags = {
        target.tag: f"http://{target.tag}-{name}.default.localhost" for target in route.spec.traffic if target.tag
    }
    return Urls(
        url=f"http://{name}.default.localhost", local_url=f"http://{name}.default.svc.cluster.local", tags=tags
    )


def ksvc(name: str = "hello", **spec: Any) -> JsonObject:
    template = {"metadata": {}, "spec": {"containers": [{"image": "hello", "name": "user-container"}]}}
    traffic = [{"latestRevision": True, "percent": 100}]
    return {"metadata": {"name": name}, "spec": {"template": template, "traffic": traffic} | spec}


def _merge(target: JsonObject, patch: JsonObject) -> None:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            _merge(target[key], value)
        else:
            target[key] = value
