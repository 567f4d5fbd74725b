"""Writing objects over HTTP: what is stored, what is refused, and in which words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import yaml

from serving.api.meta import JsonObject
from tests.local.apiserver.objects import config_map, pod, widget, widget_definition
from tests.local.apiserver.requests import CONFIG_MAPS, JSON_PATCH, OWN, PODS, STRATEGIC_PATCH, WIDGETS, Api

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def test_create_and_get(widgets: Api) -> None:
    made = await widgets.create(WIDGETS, widget("w", size=3))
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["resourceVersion"].isdigit()
    assert made["metadata"]["namespace"] == "default"
    assert await widgets.get(f"{WIDGETS}/w") == made
    beta = await widgets.get("/apis/example.dev/v1beta1/namespaces/default/widgets/w")
    assert beta == {**made, "apiVersion": "example.dev/v1beta1"}


async def test_defaults_pruning_and_field_validation(widgets: Api) -> None:
    body = widget("w", bogus=1, parts=[{"name": "a"}])
    answer = await widgets.send("POST", WIDGETS, body)
    assert answer.status == 201
    assert answer.warnings == ['299 - "unknown field \\"spec.bogus\\""']
    assert answer.json["spec"] == {"parts": [{"name": "a", "weight": 10}], "size": 1}
    strict = await widgets.send("POST", WIDGETS, {**body, "metadata": {"name": "x"}}, fieldValidation="Strict")
    assert (strict.status, strict.message) == (
        400,
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.bogus"',
    )
    ignored = await widgets.send("POST", WIDGETS, {**body, "metadata": {"name": "x"}}, fieldValidation="Ignore")
    assert (ignored.status, ignored.warnings) == (201, [])
    doubled = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d"},"data":{"a":"1","a":"2"}}'
    answer = await widgets.send("POST", CONFIG_MAPS, doubled, fieldValidation="Strict")
    assert answer.message.endswith('strict decoding error: duplicate field "data.a"')
    metadata = {"name": "m", "bogus": 1}
    answer = await widgets.send("POST", CONFIG_MAPS, {**config_map("m"), "metadata": metadata})
    assert answer.warnings == ['299 - "unknown field \\"metadata.bogus\\""']


TWO_CAUSES = (
    'Widget.example.dev "a" is invalid: [spec.colour: Unsupported value: "green": supported values: "red", '
    '"blue", spec.size: Invalid value: -1: spec.size in body should be greater than or equal to 0]'
)
TWO_CONTAINERS = (
    'Pod "p" is invalid: [spec.containers[1].image: Required value, spec.containers[1].name: Duplicate value: "a"]'
)


@pytest.mark.parametrize(
    ("path", "body", "code", "reason", "message"),
    [
        (CONFIG_MAPS, b"{", 400, "BadRequest", "unexpected end of JSON input"),
        (CONFIG_MAPS, b"[]", 400, "BadRequest", "cannot unmarshal array"),
        (
            CONFIG_MAPS,
            {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}},
            400,
            "BadRequest",
            "unknown conversion",
        ),
        (
            CONFIG_MAPS,
            {"metadata": {"name": "a", "namespace": "b"}},
            400,
            "BadRequest",
            "does not match the namespace",
        ),
        (
            CONFIG_MAPS,
            {"metadata": {"name": "a", "labels": {"b": 1}}},
            400,
            "BadRequest",
            "ObjectMeta.metadata.labels",
        ),
        (
            CONFIG_MAPS,
            {"metadata": {"name": "a"}, "data": {"b": 1}},
            400,
            "BadRequest",
            "cannot unmarshal number into",
        ),
        (CONFIG_MAPS, {"metadata": {}}, 422, "Invalid", "name or generateName is required"),
        (CONFIG_MAPS, {"metadata": {"name": "A_"}}, 422, "Invalid", "lowercase RFC 1123 subdomain"),
        (
            CONFIG_MAPS.replace("default", "nowhere"),
            config_map("a"),
            404,
            "NotFound",
            'namespaces "nowhere" not found',
        ),
        (WIDGETS, {"metadata": {"name": "a"}}, 400, "BadRequest", "Object 'Kind' is missing"),
        (WIDGETS, widget("a", size="x"), 422, "Invalid", 'spec.size in body must be of type integer: "string"'),
        (
            WIDGETS,
            widget("a", colour="green", size=-1),
            422,
            "Invalid",
            TWO_CAUSES,
        ),
        (WIDGETS, widget("a", parts=[{}]), 422, "Invalid", "spec.parts[0].name: Required value"),
        (PODS, {"metadata": {"name": "p"}, "spec": {}}, 422, "Invalid", "spec.containers: Required value"),
        (
            PODS,
            pod("p", containers=[{"name": "a", "image": "x"}, {"name": "a"}]),
            422,
            "Invalid",
            TWO_CONTAINERS,
        ),
        (
            "/api/v1/namespaces/default/nonsense",
            {},
            404,
            "NotFound",
            "the server could not find the requested resource",
        ),
        ("/api/v1/configmaps", config_map("a"), 405, "MethodNotAllowed", "does not allow this method"),
    ],
)
async def test_refusals(widgets: Api, path: str, body: Any, code: int, reason: str, message: str) -> None:
    answer = await widgets.send("POST", path, body)
    assert (answer.status, answer.json["reason"], answer.json["code"]) == (code, reason, code)
    assert message in answer.message
    assert (await widgets.get(CONFIG_MAPS, OWN))["items"] == []


async def test_conflicts_and_preconditions(widgets: Api) -> None:
    made = await widgets.create(CONFIG_MAPS, config_map("a", k="1"))
    again = await widgets.send("POST", CONFIG_MAPS, config_map("a"))
    assert (again.status, again.message) == (409, 'configmaps "a" already exists')
    path = f"{CONFIG_MAPS}/a"
    await widgets.patch(path, {"data": {"k": "2"}})
    stale = await widgets.send("PUT", path, made)
    assert stale.message == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes '
        "to the latest version and try again"
    )
    in_patch = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"k": "3"}}
    assert (await widgets.send("PATCH", path, in_patch, media="application/merge-patch+json")).status == 409
    other = {**config_map("a"), "metadata": {"name": "a", "uid": "other"}}
    assert "Precondition failed: UID" in (await widgets.send("PUT", path, other)).message
    assert (await widgets.send("PUT", path, config_map("a", k="4"))).json["data"] == {"k": "4"}
    assert (await widgets.send("PUT", f"{CONFIG_MAPS}/b", config_map("b"))).status == 404
    assert (await widgets.send("PUT", f"{CONFIG_MAPS}/b", config_map("a"))).status == 400
    await widgets.create(WIDGETS, widget("w"))
    answer = await widgets.send("PUT", f"{WIDGETS}/w", widget("w"))
    assert answer.status == 422
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in answer.message
    for options in ({"uid": "x"}, {"resourceVersion": "1"}):
        assert (await widgets.send("DELETE", path, {"preconditions": options})).status == 409


async def test_nothing_changed_is_no_write(widgets: Api) -> None:
    made = await widgets.create(WIDGETS, widget("w", size=1))
    assert await widgets.patch(f"{WIDGETS}/w", {"spec": {"size": 1}, "metadata": {"labels": {}}}) == made
    assert (await widgets.send("PUT", f"{WIDGETS}/w", made)).json == made


async def test_status_and_generation(widgets: Api) -> None:
    await widgets.create(WIDGETS, {**widget("w", size=1), "status": {"ready": True}})
    path = f"{WIDGETS}/w"
    changed = await widgets.patch(path, {"spec": {"size": 2}, "status": {"ready": True}})
    assert (changed["metadata"]["generation"], "status" in changed) == (2, False)
    status = {"spec": {"size": 9}, "metadata": {"labels": {"a": "b"}}, "status": {"ready": True}}
    changed = await widgets.patch(f"{path}/status", status)
    assert (changed["spec"], changed["status"], changed["metadata"]["generation"]) == (
        {"size": 2},
        {"ready": True},
        2,
    )
    assert "labels" not in changed["metadata"]
    assert (await widgets.patch(path, {"metadata": {"labels": {"a": "b"}}}))["metadata"]["generation"] == 2
    assert (await widgets.send("PATCH", f"{CONFIG_MAPS}/x/status", {}, media=JSON_PATCH)).status == 404


async def test_a_pods_status_may_carry_annotations(api: Api) -> None:
    await api.create(PODS, pod("p", nodeName="n"))
    change = {
        "metadata": {"annotations": {"a": "b"}},
        "status": {"phase": "Running"},
        "spec": {"nodeName": "other"},
    }
    changed = await api.patch(f"{PODS}/p/status", change)
    assert changed["metadata"]["annotations"] == {"a": "b"}
    assert (changed["status"]["phase"], changed["spec"]["nodeName"]) == ("Running", "n")


async def test_patches_by_type(widgets: Api) -> None:
    await widgets.create(PODS, pod("p"))
    change = {"spec": {"containers": [{"name": "c", "image": "example.dev/app:2"}]}}
    changed = await widgets.patch(f"{PODS}/p", change, media=STRATEGIC_PATCH)
    assert changed["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert (changed["spec"]["containers"][0]["image"], changed["metadata"]["generation"]) == (
        "example.dev/app:2",
        2,
    )
    fixed = await widgets.send("PATCH", f"{PODS}/p", {"spec": {"nodeName": "n"}}, media=STRATEGIC_PATCH)
    assert "pod updates may not change fields other than" in fixed.message
    await widgets.create(WIDGETS, widget("w"))
    refused = await widgets.send("PATCH", f"{WIDGETS}/w", {}, media=STRATEGIC_PATCH)
    assert (refused.status, refused.json["reason"]) == (415, "UnsupportedMediaType")
    failed = await widgets.send(
        "PATCH", f"{WIDGETS}/w", [{"op": "test", "path": "/spec/size", "value": 7}], media=JSON_PATCH
    )
    assert (failed.status, failed.message) == (
        422,
        "the server rejected our request due to an error in our request",
    )
    apply = await widgets.send("PATCH", f"{WIDGETS}/w", b"{}", media="application/apply-patch+cbor")
    assert (apply.status, apply.message) == (415, "415: Unsupported Media Type")
    assert (await widgets.send("PATCH", f"{PODS}/p", b"{", media=JSON_PATCH)).status == 400


async def test_concurrent_patches_all_count(widgets: Api) -> None:
    await widgets.create(CONFIG_MAPS, config_map("a"))
    await asyncio.gather(
        *(widgets.patch(f"{CONFIG_MAPS}/a", {"data": {f"k{number}": "x"}}) for number in range(30))
    )
    assert len((await widgets.get(f"{CONFIG_MAPS}/a"))["data"]) == 30


async def test_dry_run_stores_nothing(widgets: Api) -> None:
    made = await widgets.create(WIDGETS, widget("w"), dryRun="All")
    assert made["spec"] == {"size": 1}
    assert (await widgets.send("GET", f"{WIDGETS}/w")).status == 404
    stored = await widgets.create(WIDGETS, widget("w"))
    changed = await widgets.patch(f"{WIDGETS}/w", {"spec": {"size": 5}}, dryRun="All")
    assert (changed["spec"]["size"], changed["metadata"]["generation"]) == (5, 2)
    await widgets.delete(f"{WIDGETS}/w", dryRun="All")
    await widgets.delete(f"{WIDGETS}/w", {"dryRun": ["All"]})
    assert await widgets.get(f"{WIDGETS}/w") == stored
    assert (await widgets.send("POST", WIDGETS, widget("x"), dryRun="Some")).status == 422


async def test_bodies_in_other_forms(api: Api) -> None:
    text = yaml.safe_dump(config_map("y", a="b")).encode()
    answer = await api.send("POST", CONFIG_MAPS, text, media="application/yaml")
    assert answer.json["data"] == {"a": "b"}
    answer = await api.send("POST", CONFIG_MAPS, config_map("z"), media="")
    assert answer.status in (201, 415)
    assert (await api.send("POST", CONFIG_MAPS, b"a=b", media="application/x-www-form-urlencoded")).status == 415
    big = config_map("big", a="x" * (4 * 1024 * 1024))
    answer = await api.send("POST", CONFIG_MAPS, big)
    assert (answer.status, answer.json["reason"]) == (413, "RequestEntityTooLarge")


async def test_generate_name(api: Api) -> None:
    body: JsonObject = {"metadata": {"generateName": "gen-"}}
    names = {(await api.create(CONFIG_MAPS, body))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("gen-") and len(name) == 9 for name in names)


async def test_secrets_services_and_namespaces(api: Api) -> None:
    secret = {"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}}
    made = await api.create("/api/v1/namespaces/default/secrets", secret)
    assert (made["data"], made["type"], "stringData" in made) == ({"a": "Yg==", "c": "ZA=="}, "Opaque", False)
    bad = await api.send("POST", "/api/v1/namespaces/default/secrets", {**secret, "data": {"c": "%"}})
    assert "illegal base64 data" in bad.message
    services = "/api/v1/namespaces/default/services"
    made = await api.create(
        services, {"metadata": {"name": "x"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}
    )
    assert made["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    changed = await api.send(
        "PUT", f"{services}/x", {"metadata": {"name": "x"}, "spec": {"ports": [{"port": 81}]}}
    )
    assert changed.json["spec"]["clusterIP"] == "None"
    namespace = await api.create("/api/v1/namespaces", {"metadata": {"name": "n"}})
    assert namespace["spec"] == {"finalizers": ["kubernetes"]}
    assert namespace["status"] == {"phase": "Active"}
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "n"}


async def test_leases_are_created_by_put(api: Api) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
    made = await api.send("PUT", path, body)
    assert made.status == 201
    body["spec"] = {"holderIdentity": "me", "renewTime": "2026-11-01T12:00:00.000000Z"}
    assert "must be specified for an update" in (await api.send("PUT", path, body)).message
    body["metadata"] = {"name": "l", "resourceVersion": made.json["metadata"]["resourceVersion"]}
    assert (await api.send("PUT", path, body)).status == 200


async def test_events_have_two_shapes(api: Api) -> None:
    core = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p"},
        "message": "hello",
        "source": {"component": "c"},
        "count": 2,
    }
    await api.create("/api/v1/namespaces/default/events", core)
    new = await api.get("/apis/events.k8s.io/v1/namespaces/default/events/e")
    assert (new["note"], new["regarding"]["name"], new["deprecatedCount"]) == ("hello", "p", 2)
    await api.patch("/apis/events.k8s.io/v1/namespaces/default/events/e", {"note": "bye"})
    assert (await api.get("/api/v1/namespaces/default/events/e"))["message"] == "bye"
    listed = await api.get("/api/v1/events", fieldSelector="involvedObject.name=p,involvedObject.namespace=")
    assert [item["message"] for item in listed["items"]] == ["bye"]


async def test_scale(widgets: Api) -> None:
    await widgets.create(WIDGETS, widget("w", replicas=2))
    path = f"{WIDGETS}/w/scale"
    scale = await widgets.get(path)
    assert (scale["kind"], scale["spec"], scale["status"]) == ("Scale", {"replicas": 2}, {"replicas": 0})
    assert (await widgets.patch(path, {"spec": {"replicas": 5}}))["spec"] == {"replicas": 5}
    scale["metadata"].pop("resourceVersion")
    assert (await widgets.send("PUT", path, {**scale, "spec": {"replicas": 7}})).json["spec"] == {"replicas": 7}
    assert (await widgets.get(f"{WIDGETS}/w"))["spec"]["replicas"] == 7
    assert (
        await widgets.send("PATCH", path, {"spec": {"replicas": -1}}, media="application/merge-patch+json")
    ).status == 422
    assert (await widgets.send("GET", f"{CONFIG_MAPS}/x/scale")).status == 404


async def test_definitions(api: Api) -> None:
    crd = widget_definition()
    made = await api.create(CRDS, crd)
    assert {c["type"]: c["status"] for c in made["status"]["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    assert made["spec"]["names"]["singular"] == "widget"
    assert made["status"]["storedVersions"] == ["v1"]
    await api.create(WIDGETS, widget("w"))
    rival = widget_definition()
    rival["metadata"]["name"] = "gadgets.example.dev"
    rival["spec"]["names"] = {"plural": "gadgets", "kind": "Widget"}
    refused = await api.create(CRDS, rival)
    assert {c["type"]: c["status"] for c in refused["status"]["conditions"]} == {
        "NamesAccepted": "False",
        "Established": "False",
    }
    assert (await api.send("GET", "/apis/example.dev/v1/gadgets")).status == 404
    schema = {"spec": {**crd["spec"], "names": made["spec"]["names"]}}
    schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    del schema["spec"]["versions"][0]["selectableFields"]
    await api.patch(f"{CRDS}/widgets.example.dev", schema)
    assert (await api.create(WIDGETS, widget("free", any="thing")))["spec"] == {"any": "thing"}
    await api.delete(f"{CRDS}/widgets.example.dev")
    await api.gone(f"{CRDS}/widgets.example.dev")
    assert (await api.send("GET", WIDGETS)).status == 404


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"name": "x.example.dev"}}, 'must be spec.names.plural+"."+spec.group'),
        ({"spec": {"scope": "Everywhere"}}, "spec.scope: Unsupported value"),
        ({"spec": {"versions": []}}, "exactly one version marked as storage version"),
        (
            {"spec": {"versions": [{"name": "v1", "storage": True, "served": True}]}},
            "schema.openAPIV3Schema: Required value",
        ),
        ({"spec": {"conversion": {"strategy": "Webhook"}}}, "spec.conversion.webhookClientConfig"),
    ],
)
async def test_bad_definitions(api: Api, change: JsonObject, message: str) -> None:
    crd = widget_definition()
    for part, fields in change.items():
        crd[part] |= fields
    answer = await api.send("POST", CRDS, crd)
    assert (answer.status, message in answer.message) == (422, True), answer.message
