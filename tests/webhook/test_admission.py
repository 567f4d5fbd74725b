"""What the webhook answers, as a pure function."""

from __future__ import annotations

import base64
import copy
from typing import Any

import jsonpatch
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api.config.store import ApiConfig
from serving.api.meta import JsonObject
from serving.webhook.admission import (
    AdmissionRequest,
    config_response,
    defaulting_response,
    json_patch,
    pod_to_try,
    validation_response,
)
from tests.api.strategies import JSON, KINDS_UNDER_TEST, objects
from tests.api.support import case_object, case_old, config_of, golden

DECODE = "cannot decode incoming new object: "
CONFIG = ApiConfig()
SERVICE: JsonObject = {
    "apiVersion": "serving.knative.dev/v1",
    "kind": "Service",
    "metadata": {"name": "svc", "namespace": "default"},
    "spec": {"template": {"spec": {"containers": [{"image": "busybox"}]}}},
}


def request(obj: Any, old: Any = None, *, kind: str = "Service", **more: Any) -> AdmissionRequest:
    version = "v1beta1" if kind == "DomainMapping" else "v1"
    raw = {
        "uid": "u-1",
        "operation": "CREATE" if old is None else "UPDATE",
        "kind": {"group": "serving.knative.dev", "version": version, "kind": kind},
        "name": "svc",
        "namespace": "default",
        "userInfo": {"username": "alice", "groups": ["system:authenticated"]},
        "object": obj,
        "oldObject": old,
        "options": {"kind": "CreateOptions"},
        **more,
    }
    return msgspec.convert(raw, AdmissionRequest)


def patched(obj: JsonObject, response: JsonObject) -> JsonObject:
    assert response["allowed"]
    if "patch" not in response:
        return obj
    assert response["patchType"] == "JSONPatch"
    patch = msgspec.json.decode(base64.b64decode(response["patch"]))
    result: JsonObject = jsonpatch.apply_patch(copy.deepcopy(obj), patch)
    return result


def test_defaulting_answers_a_patch() -> None:
    new = patched(SERVICE, defaulting_response(request(SERVICE), CONFIG))
    assert new["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert new["metadata"]["annotations"]["serving.knative.dev/creator"] == "alice"
    again = defaulting_response(request(new, new, userInfo={"username": "bob"}), CONFIG)
    assert again == {"uid": "u-1", "allowed": True}


@pytest.mark.parametrize("case", golden("invalid.yaml"), ids=lambda case: case["name"])
def test_every_invalid_object_is_denied_with_upstreams_text(case: dict[str, Any]) -> None:
    obj, old, config = case_object(case), case_old(case), config_of(case.get("config"))
    asked = request(obj, old, kind=case["kind"])
    response = validation_response(asked, config)
    prefix = "decoding request failed" if case["error"].startswith(DECODE) else "validation failed"
    assert not response["allowed"]
    assert response["status"] == {
        "metadata": {},
        "status": "Failure",
        "message": f"{prefix}: {case['error']}",
        "reason": "BadRequest",
        "code": 400,
    }
    if case["error"].startswith(DECODE):
        denial = defaulting_response(asked, config)
        assert denial["status"]["message"] == f"mutation failed: {case['error']}"
    else:
        patched(obj, defaulting_response(asked, config))


def test_warnings_are_lines() -> None:
    obj = patched(SERVICE, defaulting_response(request(SERVICE), CONFIG))
    context = {"capabilities": {"drop": ["all"]}}
    obj["spec"]["template"]["spec"]["containers"][0]["securityContext"] = context
    response = validation_response(request(obj), CONFIG)
    assert response["allowed"]
    assert "Must be spelled as 'ALL'" in response["warnings"]
    assert not any("\n" in warning for warning in response["warnings"])


@pytest.mark.parametrize("operation", ["DELETE", "CONNECT"])
def test_other_operations_pass(operation: str) -> None:
    asked = request(None, SERVICE, operation=operation)
    for answer in (defaulting_response, validation_response):
        assert answer(asked, CONFIG) == {"uid": "u-1", "allowed": True}


def test_status_updates_pass() -> None:
    asked = request({"spec": 1}, {"spec": 2}, subResource="status")
    assert validation_response(asked, CONFIG)["allowed"]
    assert "patch" not in defaulting_response(asked, CONFIG)


def test_an_unknown_kind_is_denied() -> None:
    response = defaulting_response(request({}, kind="Nope"), CONFIG)
    assert response["status"]["message"] == ("mutation failed: unhandled kind: serving.knative.dev/v1, Kind=Nope")


def test_no_object_is_denied() -> None:
    assert defaulting_response(request(None), CONFIG)["status"]["message"] == (
        "mutation failed: the new object may not be nil"
    )


def test_a_very_deep_object_is_denied() -> None:
    deep: Any = {}
    for _ in range(500):
        deep = {"a": [deep]}
    response = defaulting_response(request({"spec": deep}), CONFIG)
    assert response["status"]["message"].startswith(f"mutation failed: {DECODE}json: exceeded max depth")


def config_request(name: str, data: Any, namespace: str = "knative-serving", **meta: Any) -> AdmissionRequest:
    obj = {"metadata": {"name": name, **meta}, "data": data}
    kind = {"group": "", "version": "v1", "kind": "ConfigMap"}
    return msgspec.convert(
        {"uid": "u-1", "operation": "UPDATE", "kind": kind, "namespace": namespace, "object": obj},
        AdmissionRequest,
    )


def test_config_maps_are_checked() -> None:
    assert config_response(config_request("config-gc", {"min-non-active-revisions": "5"}))["allowed"]
    denial = config_response(config_request("config-gc", {"min-non-active-revisions": "-5"}))
    assert (
        denial["status"]["message"] == "validation failed: min-non-active-revisions must be non-negative, was: -5"
    )
    assert config_response(config_request("config-gc", {"min-non-active-revisions": "-5"}, "default"))["allowed"]
    assert config_response(config_request("config-of-others", {"a": "b"}))["allowed"]
    assert config_response(config_request("config-gc", None))["allowed"]
    assert not config_response(config_request("config-gc", {"a": 1}))["allowed"]
    checksum: Any = {"annotations": {"knative.dev/example-checksum": "00000000"}}
    assert (
        "probably not what you want"
        in (config_response(config_request("config-gc", {"_example": "x"}, **checksum))["status"]["message"])
    )


def test_a_dry_run_tries_the_pod() -> None:
    assert pod_to_try(request(SERVICE), CONFIG) is None
    pod = pod_to_try(request(SERVICE, dryRun=True), CONFIG)
    assert pod is not None
    assert pod["metadata"] == {"generateName": "dry-run-validation", "namespace": "default"}
    assert pod["spec"]["containers"][0]["name"] == "user-container"
    assert "timeoutSeconds" not in pod["spec"]
    owned = {**SERVICE, "metadata": {"name": "svc", "labels": {"serving.knative.dev/service": "svc"}}}
    assert pod_to_try(request(owned, kind="Configuration", dryRun=True), CONFIG) is None


@settings(deadline=None)
@given(JSON, JSON)
def test_a_patch_makes_one_value_of_the_other(old: Any, new: Any) -> None:
    patch: Any = json_patch({"x": old}, {"x": new})
    assert jsonpatch.apply_patch({"x": copy.deepcopy(old)}, patch) == {"x": new}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS_UNDER_TEST), JSON, JSON, JSON, JSON)
def test_any_json_is_answered(kind: str, metadata: Any, spec: Any, pod: Any, old: Any) -> None:
    for obj in (
        spec,
        {"metadata": metadata, "spec": spec},
        {"metadata": {"name": "svc"}, "spec": {"template": {"spec": pod, "metadata": metadata}}},
        {"metadata": {"name": "svc"}, "spec": {"template": {"spec": {"containers": [pod]}}, "traffic": [spec]}},
    ):
        check_answers(request(obj, old, kind=kind, dryRun=True))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data(), st.sampled_from(KINDS_UNDER_TEST))
def test_any_typed_object_is_answered(data: st.DataObject, kind: str) -> None:
    obj = data.draw(objects(kind))
    old = data.draw(st.none() | objects(kind))
    check_answers(request(obj, old, kind=kind, dryRun=True))


def check_answers(asked: AdmissionRequest) -> None:
    defaulted = defaulting_response(asked, CONFIG)
    validated = validation_response(asked, CONFIG)
    for response in (defaulted, validated):
        assert response["allowed"] or response["status"]["message"]
        msgspec.json.encode(response)
    if defaulted["allowed"]:
        patched(asked.object, defaulted)
        pod_to_try(asked, CONFIG)
