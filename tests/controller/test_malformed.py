"""Objects that make no sense: no reconciler is lost to one, and its owner is told."""

from __future__ import annotations

import asyncio
import copy
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.config.gc import GcConfig
from serving.api.config.store import ApiConfig
from serving.api.defaulting import default_configuration_spec
from serving.api.kube_service import KubeService
from serving.api.meta import JsonObject
from serving.api.resources import CRDS, EVENTS, KSERVICES
from serving.api.routing import mapping_hash, programmed_hash, routing_facts
from serving.api.v1 import Configuration, Revision, Route, Service
from serving.api.v1beta1 import ClusterDomainClaim, DomainMapping
from serving.controller.configuration import reconcile_configuration
from serving.controller.digests import stored_digests
from serving.controller.domain_mapping import Referent, finalize_domain_mapping, reconcile_domain_mapping
from serving.controller.events import Recorder
from serving.controller.index import (
    configuration_of_revision,
    revision_named_by_configuration,
    targets_of_route,
)
from serving.controller.ksvc import reconcile_ksvc
from serving.controller.malformed import Malformed
from serving.controller.placeholder import placeholder_names, reconcile_placeholders
from serving.controller.revision_gc import collect_revisions
from serving.controller.route import Lookup, Pace, Placeholders, reconcile_route
from serving.controller.routes import rollout_seconds
from serving.controller.urls import urls_of
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from serving.kube.errors import NotFound
from serving.pool.placement import spec_problem
from tests.controller.test_service import cluster, ready, service
from tests.local.apiserver.harness import running_apiserver, shipped_manifests

NOW = "2026-01-01T00:00:00Z"
META: JsonObject = {
    "name": "hello",
    "namespace": "default",
    "uid": "u1",
    "generation": 1,
    "creationTimestamp": NOW,
    "labels": {"serving.knative.dev/configuration": "hello", "serving.knative.dev/routingState": "reserve"},
    "annotations": {"serving.knative.dev/rollout-duration": "10s", "networking.knative.dev/http-protocol": "x"},
    "ownerReferences": [
        {"apiVersion": "v1", "kind": "Configuration", "name": "hello", "uid": "u1", "controller": True}
    ],
    "finalizers": ["domainmappings.serving.knative.dev"],
}
STATUS: JsonObject = {
    "observedGeneration": 1,
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": NOW}],
    "latestReadyRevisionName": "hello",
    "latestCreatedRevisionName": "hello",
    "url": "http://hello.default.example.com",
    "address": {"url": "http://hello.default.svc.cluster.local"},
    "annotations": {"networking.internal.knative.dev/rollout": "{}", "nodeless.dev/target": "hello/t"},
    "traffic": [{"revisionName": "hello", "percent": 100, "latestRevision": True, "tag": "t"}],
    "containerStatuses": [{"name": "c", "imageDigest": "x"}],
}
TEMPLATE: JsonObject = {
    "metadata": {"name": "hello-1", "annotations": {"a": "b"}, "labels": {}},
    "spec": {"containers": [{"image": "x", "name": "c", "ports": [{"containerPort": 8080}]}], "timeoutSeconds": 5},
}
TRAFFIC = [{"configurationName": "hello", "percent": 100, "tag": "t", "latestRevision": True}]
REF = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "namespace": "default"}
BASE: JsonObject = {
    "metadata": META,
    "spec": {"template": TEMPLATE, "traffic": TRAFFIC, "ref": REF, **TEMPLATE["spec"]},
    "status": STATUS,
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += places(inner, (*path, index))
    return found


PLACES = places(BASE)


def damaged(changes: list[tuple[tuple[Any, ...], Any]]) -> JsonObject:
    body = copy.deepcopy(BASE)
    for path, value in changes:
        inside: Any = body
        try:
            for key in path[:-1]:
                inside = inside[key]
            inside[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return body


def read(body: JsonObject, kind: type) -> Any:
    """As an informer does: None when the object cannot be decoded, which is what gets it marked."""
    try:
        return msgspec.json.decode(msgspec.json.encode(body), type=kind)
    except msgspec.ValidationError:
        return None


def decide(body: JsonObject) -> None:
    """Every decision that is made of such an object, whatever its kind."""
    ksvc, configuration = read(body, Service), read(body, Configuration)
    revision, route = read(body, Revision), read(body, Route)
    mapping = read(body, DomainMapping)
    placeholder = read(body, KubeService)
    if ksvc is not None:
        reconcile_ksvc(
            ksvc,
            configuration=configuration,
            route=route,
            named_revision=revision,
            defaulted=lambda spec: default_configuration_spec(spec, config=ApiConfig()),
            now=NOW,
        )
    if configuration is not None:
        revisions = [revision] if revision is not None else []
        reconcile_configuration(configuration, revisions=revisions, named_revision=revision, now=NOW)
        revision_named_by_configuration(configuration)
        gc = GcConfig(min_non_active_revisions=0)
        collect_revisions(configuration, revisions=revisions, in_use=(), config=gc, now=0)
    if revision is not None:
        configuration_of_revision(revision)
        if spec_problem(revision) is None:
            stored_digests(revision)
    if route is not None:
        decide_route(route, configuration, revision, placeholder)
    if mapping is not None:
        referent = Referent(url="http://hello.default.svc.cluster.local", target="hello")
        claim = ClusterDomainClaim()
        reconcile_domain_mapping(
            mapping,
            claim=claim,
            referent=referent,
            autocreate=True,
            scheme="http",
            host_owner="",
            programmed=None,
            now=NOW,
        )
        finalize_domain_mapping(mapping, claim=claim, autocreate=True)
        mapping_hash(mapping)


def decide_route(
    route: Route, configuration: Configuration | None, revision: Revision | None, placeholder: KubeService | None
) -> None:
    config = ApiConfig()
    names = placeholder_names(route, network=config.network)
    reconcile_placeholders(
        route,
        names,
        services=[placeholder] if placeholder is not None else [],
        service=lambda _: placeholder,
        gateway="g",
    )
    reconcile_route(
        route,
        lookup=Lookup(configuration=lambda _: configuration, revision=lambda _: revision),
        urls=urls_of(route, config),
        conflict=None,
        programmed=lambda _: True,
        placeholders=Placeholders(),
        pace=Pace(seconds=rollout_seconds(route, config) or 10, now=10**18),
        now=NOW,
    )
    targets_of_route(route)
    programmed_hash(route)
    routing_facts(route)


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), JSON), max_size=3))
def test_no_decision_fails_on_an_object_that_can_be_read(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    decide(damaged(changes))


async def _open_schema(client: Any) -> None:
    """A CRD that takes anything, as no installation of ours has it."""
    name = f"{KSERVICES.plural}.{KSERVICES.group}"
    found = await client.get(CRDS, name)
    for version in found["spec"]["versions"]:
        version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    await client.update(CRDS, found)


@pytest.mark.timeout(60)
async def test_a_service_that_cannot_be_read_is_marked_and_the_others_go_on(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        await _open_schema(played.client)
        bad = service()
        bad["metadata"]["name"] = "bad"
        bad["spec"]["template"]["metadata"] = ["not", "an", "object"]
        await played.client.create(KSERVICES, bad)
        await played.client.create(KSERVICES, service())
        await played.until("the good one is Ready", lambda: ready(played))

        async def marked() -> Any:
            conditions = (await played.client.get(KSERVICES, "bad", "default")).get("status", {})
            return [one for one in conditions.get("conditions", []) if one["reason"] == "InvalidObject"]

        (condition,) = await played.until("the bad one is marked", marked)
        assert (condition["type"], condition["status"]) == ("Ready", "False")
        assert "The object cannot be understood: Expected `object" in condition["message"]

        async def told() -> Any:
            events = (await played.client.list(EVENTS, "default"))["items"]
            return [one for one in events if one["reason"] == "InvalidObject"]

        (event,) = await played.until("an Event says so", told)
        stored = await played.client.get(KSERVICES, "bad", "default")
        assert event["involvedObject"]["uid"] == stored["metadata"]["uid"]
        await played.client.patch(KSERVICES, "bad", {"spec": {"template": {"metadata": {}}}}, "default")

        async def mended() -> Any:
            found = await played.client.get(KSERVICES, "bad", "default")
            return found["status"].get("latestCreatedRevisionName")

        await played.until("once it is mended it is reconciled", mended)


@pytest.mark.timeout(60)
async def test_each_object_that_fails_is_marked_once_and_its_successor_again(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_apiserver(tmp_path, manifests=shipped_manifests()))
        connection = over_unix_socket(server.socket, token=server.token)
        client = await stack.enter_async_context(KubeClient(connection))
        malformed = Malformed(client, now=time.time, events=Recorder(client, component="test", now=time.time))

        async def reconcile(key: str) -> None:
            if await exists(client):
                raise ValueError("odd")

        handler = malformed.guarded(KSERVICES, reconcile)

        async def fail_twice() -> None:
            for _ in range(2):
                with pytest.raises(ValueError, match="odd"):
                    await handler("default/hello")

        async with asyncio.TaskGroup() as group:
            running = group.create_task(malformed.queue.run())
            for _ in range(2):
                await client.create(KSERVICES, service())
                await fail_twice()
                async with asyncio.timeout(10):
                    while not (found := await client.get(KSERVICES, "hello", "default")).get("status"):
                        await asyncio.sleep(0.01)
                (condition,) = found["status"]["conditions"]
                assert condition["message"] == "The object cannot be understood: ValueError: odd"
                await client.delete(KSERVICES, "hello", "default")
                while await exists(client):
                    await asyncio.sleep(0.01)
                assert await handler("default/hello") is None
            running.cancel()


async def exists(client: KubeClient) -> bool:
    try:
        await client.get(KSERVICES, "hello", "default")
    except NotFound:
        return False
    return True
