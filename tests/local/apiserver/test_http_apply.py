"""Server-side apply and managedFields over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from serving.api.meta import JsonObject
from tests.local.apiserver.objects import config_map, pod, widget
from tests.local.apiserver.requests import CONFIG_MAPS, JSON_PATCH, MERGE_PATCH, PODS, WIDGETS, Answer, Api

APPLY = "application/apply-patch+yaml"
UNKNOWN_FIELD = (
    "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .bogus: field not declared in schema"
)


async def apply(api: Api, path: str, config: JsonObject, manager: str = "alice", **query: str) -> Answer:
    body = yaml.safe_dump(config).encode()
    return await api.send("PATCH", path, body, media=APPLY, params={"fieldManager": manager, **query})


def owners(obj: JsonObject) -> dict[tuple[str, str, str], Any]:
    return {
        (entry["manager"], entry["operation"], entry.get("subresource", "")): entry["fieldsV1"]
        for entry in obj["metadata"].get("managedFields") or ()
    }


async def test_apply_creates_and_then_does_nothing(api: Api) -> None:
    config = config_map("a", k="1")
    made = await apply(api, f"{CONFIG_MAPS}/a", config)
    assert (made.status, made.json["data"]) == (201, {"k": "1"})
    assert owners(made.json) == {("alice", "Apply", ""): {"f:data": {"f:k": {}}}}
    again = await apply(api, f"{CONFIG_MAPS}/a", config)
    assert (again.status, again.json) == (200, made.json)


async def test_conflicts_and_force(api: Api) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="1"))
    refused = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="2"), "bob")
    assert (refused.status, refused.json["reason"]) == (409, "Conflict")
    assert refused.message == 'Apply failed with 1 conflict: conflict with "alice": .data.k'
    assert refused.json["details"] == {
        "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "alice"', "field": ".data.k"}]
    }
    forced = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="2"), "bob", force="true")
    assert owners(forced.json) == {("bob", "Apply", ""): {"f:data": {"f:k": {}}}}
    await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": "3"}}, fieldManager="carol")
    refused = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="2"), "bob")
    assert refused.message == 'Apply failed with 1 conflict: conflict with "carol" using v1: .data.k'


async def test_fields_that_are_no_longer_applied_go(api: Api) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="1", m="1"))
    await apply(api, f"{CONFIG_MAPS}/a", config_map("a", m="1"), "bob")
    left = await apply(api, f"{CONFIG_MAPS}/a", config_map("a"))
    assert left.json["data"] == {"m": "1"}


async def test_updates_are_tracked_by_their_program(widgets: Api) -> None:
    made = (await widgets.send("POST", WIDGETS, widget("w", size=2), headers={"User-Agent": "curl/8.0 (x)"})).json
    assert owners(made) == {("curl", "Update", ""): {"f:spec": {".": {}, "f:size": {}}}}
    await widgets.patch(f"{WIDGETS}/w/status", {"status": {"ready": True}}, fieldManager="controller")
    changed = await widgets.patch(f"{WIDGETS}/w", {"spec": {"size": 3}}, fieldManager="kubectl-edit")
    assert owners(changed) == {
        ("curl", "Update", ""): {"f:spec": {}},
        ("kubectl-edit", "Update", ""): {"f:spec": {"f:size": {}}},
        ("controller", "Update", "status"): {"f:status": {".": {}, "f:ready": {}}},
    }
    assert all(entry["apiVersion"] == "example.dev/v1" for entry in changed["metadata"]["managedFields"])


async def test_what_kubernetes_writes_down_for_a_pod(api: Api) -> None:
    body = pod("p", terminationGracePeriodSeconds=5)
    body["metadata"]["labels"] = {"a": "b"}
    made = await api.create(PODS, body, fieldManager="m")
    fields = owners(made)["m", "Update", ""]
    assert fields["f:metadata"] == {"f:labels": {".": {}, "f:a": {}}}
    containers = fields["f:spec"]["f:containers"]
    assert set(containers) == {'k:{"name":"c"}'}
    assert {".", "f:image", "f:name", "f:resources"} <= set(containers['k:{"name":"c"}'])
    assert "." not in fields["f:spec"]


async def test_resetting_owners(api: Api) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="1"))
    reset = [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]
    gone = await api.patch(f"{CONFIG_MAPS}/a", reset, media=JSON_PATCH)
    assert "managedFields" not in gone["metadata"]
    assert "managedFields" not in (await api.patch(f"{CONFIG_MAPS}/a", {"data": {"m": "1"}}))["metadata"]
    taken = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="1"))
    assert set(owners(taken.json)) == {("alice", "Apply", ""), ("before-first-apply", "Update", "")}


async def test_a_put_without_owners_keeps_them(api: Api) -> None:
    await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="1"))
    kept = (await api.send("PUT", f"{CONFIG_MAPS}/a", config_map("a", k="1", m="2"), params={})).json
    assert set(owners(kept)) == {("alice", "Apply", ""), ("Python", "Update", "")}


async def test_dry_run_and_preconditions(api: Api) -> None:
    dry = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="1"), dryRun="All")
    assert dry.status == 201
    assert (await api.send("GET", f"{CONFIG_MAPS}/a")).status == 404
    config = config_map("a", k="1")
    config["metadata"]["uid"] = "x"
    assert (await apply(api, f"{CONFIG_MAPS}/a", config)).status == 409
    await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="1"))
    assert (await apply(api, f"{CONFIG_MAPS}/a", config)).status == 422
    config["metadata"] = {"name": "a", "resourceVersion": "1"}
    assert (await apply(api, f"{CONFIG_MAPS}/a", config)).status == 409


async def test_status_is_applied_at_its_own_endpoint(widgets: Api) -> None:
    body = {**widget("w", size=2), "status": {"ready": True}}
    made = await apply(widgets, f"{WIDGETS}/w", body)
    assert "status" not in made.json
    assert owners(made.json) == {("alice", "Apply", ""): {"f:spec": {"f:size": {}}}}
    changed = await apply(widgets, f"{WIDGETS}/w/status", {**body, "spec": {"size": 9}}, "controller")
    assert (changed.json["status"], changed.json["spec"]["size"]) == ({"ready": True}, 2)
    assert owners(changed.json)["controller", "Apply", "status"] == {"f:status": {"f:ready": {}}}
    assert (await apply(widgets, f"{WIDGETS}/none/status", {**body, "metadata": {}})).status == 404


@pytest.mark.parametrize(
    ("body", "query", "code", "message"),
    [
        (
            config_map("a"),
            {"fieldManager": ""},
            422,
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch',
        ),
        (
            {**config_map("a"), "metadata": {"name": "a", "managedFields": [{"manager": "x"}]}},
            {},
            400,
            "metadata.managedFields must be nil",
        ),
        (
            {**config_map("a"), "bogus": 1},
            {},
            500,
            UNKNOWN_FIELD,
        ),
        ({"metadata": {"name": "a"}}, {}, 400, "invalid object type: /, Kind="),
        ({**config_map("a"), "kind": "Secret"}, {}, 400, "invalid object type: /v1, Kind=Secret"),
        (
            config_map("b"),
            {},
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            config_map("a"),
            {"fieldManager": "x" * 129},
            422,
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes',
        ),
    ],
)
async def test_refused(api: Api, body: JsonObject, query: dict[str, str], code: int, message: str) -> None:
    answer = await apply(api, f"{CONFIG_MAPS}/a", body, **query)
    assert (answer.status, answer.message) == (code, message)


async def test_apply_of_yaml_that_is_none(api: Api) -> None:
    answer = await api.send("PATCH", f"{CONFIG_MAPS}/a", b"a: [", media=APPLY, params={"fieldManager": "x"})
    assert (answer.status, answer.message.startswith("error decoding YAML: ")) == (400, True)
    answer = await api.send("PATCH", f"{CONFIG_MAPS}/a", {}, media=MERGE_PATCH, force="true")
    assert answer.message == (
        'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch'
    )


async def test_client_side_apply_is_taken_over(api: Api) -> None:
    annotation = "kubectl.kubernetes.io/last-applied-configuration"
    body = config_map("a", k="1")
    body["metadata"]["annotations"] = {
        annotation: '{"apiVersion":"v1","data":{"k":"1"},"kind":"ConfigMap","metadata":{"name":"a"}}'
    }
    await api.create(CONFIG_MAPS, body, fieldManager="kubectl-client-side-apply")
    other = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="2"), "other")
    assert other.status == 409
    taken = await apply(api, f"{CONFIG_MAPS}/a", config_map("a", k="2"), "kubectl")
    assert (taken.status, taken.json["data"]) == (200, {"k": "2"})
    assert '"k":"2"' in taken.json["metadata"]["annotations"][annotation]
