"""Deleting: grace, finalizers, dependants, namespaces, definitions, evictions."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.api.meta import JsonObject
from tests.local.apiserver.harness import http_session, running_apiserver
from tests.local.apiserver.objects import config_map, pod, widget, widget_definition
from tests.local.apiserver.requests import CONFIG_MAPS, OWN, PODS, WIDGETS, Api

NAMESPACES = "/api/v1/namespaces"


def owned(obj: JsonObject, *owners: JsonObject, block: bool = True) -> JsonObject:
    references = [
        {
            "apiVersion": owner.get("apiVersion", "v1"),
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": references}}


async def test_answers_to_a_delete(widgets: Api) -> None:
    made = await widgets.create(WIDGETS, widget("w"))
    answer = await widgets.delete(f"{WIDGETS}/w")
    assert answer == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "w", "group": "example.dev", "kind": "widgets", "uid": made["metadata"]["uid"]},
    }
    missing = await widgets.send("DELETE", f"{WIDGETS}/w")
    assert (missing.status, missing.message) == (404, 'widgets.example.dev "w" not found')


async def test_a_running_pod_waits_for_its_node(api: Api) -> None:
    await api.create(PODS, pod("p", nodeName="n", terminationGracePeriodSeconds=5))
    left = await api.delete(f"{PODS}/p")
    assert left["metadata"]["deletionGracePeriodSeconds"] == 5
    assert (await api.get(f"{PODS}/p"))["metadata"]["deletionTimestamp"]
    gone = await api.delete(f"{PODS}/p", {"gracePeriodSeconds": 0})
    assert gone["kind"] == "Pod"
    assert (await api.send("GET", f"{PODS}/p")).status == 404
    await api.create(PODS, pod("q"))
    await api.delete(f"{PODS}/q")
    assert (await api.send("GET", f"{PODS}/q")).status == 404


async def test_the_last_finalizer_lets_go(widgets: Api) -> None:
    body = widget("w")
    body["metadata"]["finalizers"] = ["example.dev/hold"]
    await widgets.create(WIDGETS, body)
    left = await widgets.delete(f"{WIDGETS}/w")
    assert left["metadata"]["deletionTimestamp"]
    more = {"metadata": {"finalizers": ["example.dev/hold", "example.dev/more"]}}
    refused = await widgets.send("PATCH", f"{WIDGETS}/w", more, media="application/merge-patch+json")
    assert "no new finalizers can be added if the object is being deleted" in refused.message
    async with widgets.watch(WIDGETS) as events:
        await widgets.patch(f"{WIDGETS}/w", {"metadata": {"finalizers": []}})
        await events.until("DELETED", "w")
    assert (await widgets.send("GET", f"{WIDGETS}/w")).status == 404


async def test_background(widgets: Api) -> None:
    owner = await widgets.create(WIDGETS, widget("w"))
    child = await widgets.create(CONFIG_MAPS, owned(config_map("child"), owner))
    await widgets.create(CONFIG_MAPS, owned(config_map("grandchild"), child))
    await widgets.create(CONFIG_MAPS, config_map("stranger"))
    async with widgets.watch(CONFIG_MAPS) as events:
        await widgets.delete(f"{WIDGETS}/w", {"propagationPolicy": "Background"})
        await events.until("DELETED", "child")
        await events.until("DELETED", "grandchild")
    assert [item["metadata"]["name"] for item in (await widgets.get(CONFIG_MAPS, OWN))["items"]] == ["stranger"]


async def test_created_without_a_live_owner(widgets: Api) -> None:
    owner = {"apiVersion": "example.dev/v1", "kind": "Widget", "metadata": {"name": "w", "uid": "never"}}
    async with widgets.watch(CONFIG_MAPS) as events:
        await widgets.create(CONFIG_MAPS, owned(config_map("child"), owner))
        await events.until("DELETED", "child")


async def test_one_live_owner_is_enough(widgets: Api) -> None:
    first = await widgets.create(WIDGETS, widget("a"))
    second = await widgets.create(WIDGETS, widget("b"))
    await widgets.create(CONFIG_MAPS, owned(config_map("child"), first, second))
    async with widgets.watch(CONFIG_MAPS) as events:
        await widgets.delete(f"{WIDGETS}/a")
        changed = await events.until("MODIFIED", "child")
        assert [ref["name"] for ref in changed["metadata"]["ownerReferences"]] == ["b"]
        await widgets.delete(f"{WIDGETS}/b")
        await events.until("DELETED", "child")


async def test_foreground(widgets: Api) -> None:
    owner = await widgets.create(WIDGETS, widget("w"))
    held = owned(config_map("held"), owner)
    held["metadata"]["finalizers"] = ["example.dev/hold"]
    await widgets.create(CONFIG_MAPS, held)
    await widgets.create(CONFIG_MAPS, owned(config_map("loose"), owner, block=False))
    async with widgets.watch(CONFIG_MAPS) as events:
        left = await widgets.delete(f"{WIDGETS}/w", {"propagationPolicy": "Foreground"})
        assert left["metadata"]["finalizers"] == ["foregroundDeletion"]
        await events.until("DELETED", "loose")
        assert (await widgets.get(f"{WIDGETS}/w"))["metadata"]["deletionTimestamp"]
        await widgets.patch(f"{CONFIG_MAPS}/held", {"metadata": {"finalizers": None}})
        await events.until("DELETED", "held")
    await widgets.gone(f"{WIDGETS}/w")


async def test_foreground_without_dependants_and_in_a_chain(widgets: Api) -> None:
    owner = await widgets.create(WIDGETS, widget("w"))
    child = await widgets.create(WIDGETS, owned(widget("child"), owner))
    await widgets.create(CONFIG_MAPS, owned(config_map("grandchild"), child))
    await widgets.delete(f"{WIDGETS}/w", {"propagationPolicy": "Foreground"})
    await widgets.gone(f"{WIDGETS}/w")
    assert (await widgets.get(WIDGETS))["items"] == []
    assert (await widgets.get(CONFIG_MAPS, OWN))["items"] == []
    await widgets.create(CONFIG_MAPS, config_map("alone"))
    await widgets.delete(f"{CONFIG_MAPS}/alone", {"propagationPolicy": "Foreground"})
    await widgets.gone(f"{CONFIG_MAPS}/alone")


async def test_orphan(widgets: Api) -> None:
    owner = await widgets.create(WIDGETS, widget("w"))
    await widgets.create(CONFIG_MAPS, owned(config_map("child"), owner))
    await widgets.delete(f"{WIDGETS}/w", {"propagationPolicy": "Orphan"})
    await widgets.gone(f"{WIDGETS}/w")
    assert "ownerReferences" not in (await widgets.get(f"{CONFIG_MAPS}/child"))["metadata"]


async def test_a_namespace_takes_its_content_along(widgets: Api) -> None:
    await widgets.create(NAMESPACES, {"metadata": {"name": "n"}})
    inside = f"{NAMESPACES}/n/configmaps"
    held = config_map("held")
    held["metadata"]["finalizers"] = ["example.dev/hold"]
    await widgets.create(inside, held)
    await widgets.create(inside, config_map("plain"))
    async with widgets.watch(inside) as events:
        left = await widgets.delete(f"{NAMESPACES}/n")
        assert left["status"]["phase"] == "Terminating"
        refused = await widgets.send("POST", inside, config_map("late"))
        assert (refused.status, refused.json["details"]["causes"][0]["reason"]) == (403, "NamespaceTerminating")
        await events.until("DELETED", "plain")
        await widgets.patch(f"{inside}/held", {"metadata": {"finalizers": None}})
    await widgets.gone(f"{NAMESPACES}/n")
    protected = await widgets.send("DELETE", f"{NAMESPACES}/default")
    assert (protected.status, protected.message) == (
        403,
        'namespaces "default" is forbidden: this namespace may not be deleted',
    )


async def test_delete_collection(widgets: Api) -> None:
    for name in ("a", "b"):
        await widgets.create(WIDGETS, widget(name, colour="red"))
    await widgets.create(WIDGETS, widget("c", colour="blue"))
    listed = await widgets.delete(WIDGETS, fieldSelector="spec.colour=red")
    assert len(listed["items"]) == 2
    assert [item["metadata"]["name"] for item in (await widgets.get(WIDGETS))["items"]] == ["c"]


async def test_what_was_missed_is_collected_after_a_restart(tmp_path: Path) -> None:
    """A server that dies between the deletion of an owner and that of its dependants."""
    async with running_apiserver(tmp_path) as server, http_session(server) as session:
        api = Api(session)
        await api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", widget_definition())
        owner = await api.create(WIDGETS, widget("w"))
        child = owned(config_map("child"), owner)
        child["metadata"]["finalizers"] = ["example.dev/hold"]
        await api.create(CONFIG_MAPS, child)
        async with api.watch(CONFIG_MAPS) as events:
            await api.delete(f"{WIDGETS}/w")
            await events.until("MODIFIED", "child")
    async with running_apiserver(tmp_path) as server, http_session(server) as session:
        api = Api(session)
        await api.patch(f"{CONFIG_MAPS}/child", {"metadata": {"finalizers": None}})
        assert (await api.send("GET", f"{CONFIG_MAPS}/child")).status == 404


def ready(name: str) -> JsonObject:
    return {"metadata": {"name": name, "labels": {"app": "x"}}, "spec": pod(name)["spec"]}


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"minAvailable": 2}, 429),
        ({"minAvailable": 1}, 201),
        ({"minAvailable": "100%"}, 429),
        ({"maxUnavailable": 0}, 429),
        ({"maxUnavailable": "50%"}, 201),
    ],
)
async def test_eviction_keeps_budgets(api: Api, spec: JsonObject, code: int) -> None:
    for name in ("p", "q"):
        await api.create(PODS, ready(name))
        status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        await api.patch(f"{PODS}/{name}/status", status)
    budget = {"metadata": {"name": "b"}, "spec": {"selector": {"matchLabels": {"app": "x"}}, **spec}}
    await api.create("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget)
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    answer = await api.send("POST", f"{PODS}/p/eviction", body)
    assert answer.status == code
    assert (await api.send("GET", f"{PODS}/p")).status == (200 if code == 429 else 404)
    if code == 429:
        assert answer.message == "Cannot evict pod as it would violate the pod's disruption budget."
        assert answer.headers["Retry-After"] == "10"


async def test_binding(api: Api) -> None:
    await api.create(PODS, pod("p"))
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n"},
    }
    assert (await api.send("POST", f"{PODS}/p/binding", body)).status == 201
    assert (await api.get(f"{PODS}/p"))["spec"]["nodeName"] == "n"
    assert (await api.send("POST", f"{PODS}/p/binding", body)).status == 409
    assert (await api.send("POST", f"{PODS}/p/binding", {**body, "target": {}})).status == 500
