"""Every invalid object is refused with upstream's exact text; valid ones are not."""

from __future__ import annotations

from typing import Any

import pytest

from serving.api.config.store import ApiConfig
from serving.api.defaulting import default
from serving.api.errors import render
from serving.api.meta import JsonObject
from serving.api.schema.decode import DecodeError, check_types
from serving.api.schema.kinds import KINDS
from serving.api.validation import validate, warnings
from serving.api.validation.image import is_image_reference
from tests.api.support import case_object, case_old, config_of, golden, object_of


def refusal(obj: JsonObject, old: JsonObject | None, config: ApiConfig) -> str:
    try:
        check_types(KINDS[obj["kind"]], obj)
    except DecodeError as error:
        return f"cannot decode incoming new object: {error}"
    return render(validate(obj, old=old, config=config))


@pytest.mark.parametrize("case", golden("invalid.yaml"), ids=lambda case: case["name"])
def test_invalid_objects_are_refused_with_upstreams_text(case: dict[str, Any]) -> None:
    assert refusal(case_object(case), case_old(case), config_of(case.get("config"))) == case["error"]


def test_the_table_is_large() -> None:
    assert len(golden("invalid.yaml")) >= 200


ABOUT_DEFAULTING_ONLY = {
    "empty spec",
    "route without traffic",
    "traffic",
    "names that are taken",
    "read-only mounts",
    "domain mapping with a namespace",
    "route",
}
GOOD = [case for case in golden("defaulted.yaml") if case["name"] not in ABOUT_DEFAULTING_ONLY]


@pytest.mark.parametrize("case", [case for case in GOOD if "oldSpec" not in case], ids=lambda case: case["name"])
def test_what_defaulting_made_of_a_good_object_is_valid(case: dict[str, Any]) -> None:
    config_maps = case.get("config") or {}
    features = {"kubernetes.podspec-securitycontext": "enabled", **config_maps.get("config-features", {})}
    config = config_of({**config_maps, "config-features": features})
    assert refusal(default(case_object(case), old=None, config=config, user="alice"), None, config) == ""


def service(**pod: Any) -> JsonObject:
    containers = [{"image": "busybox"}]
    spec = {
        "template": {"spec": {"containers": containers, **pod}},
        "traffic": [{"latestRevision": True, "percent": 100}],
    }
    return object_of("Service", {"name": "svc", "namespace": "default"}, spec)


@pytest.mark.parametrize(
    ("flag", "field", "value"),
    [
        ("podspec-affinity", "affinity", {"nodeAffinity": {}}),
        ("podspec-nodeselector", "nodeSelector", {"a": "b"}),
        ("podspec-tolerations", "tolerations", [{"key": "a"}]),
        ("podspec-hostaliases", "hostAliases", [{"ip": "1.2.3.4"}]),
        ("podspec-runtimeclassname", "runtimeClassName", "kata"),
        ("podspec-dnspolicy", "dnsPolicy", "Default"),
        ("podspec-dnsconfig", "dnsConfig", {"searches": ["a"]}),
        ("podspec-hostnetwork", "hostNetwork", True),
        ("podspec-hostpid", "hostPID", True),
        ("podspec-hostipc", "hostIPC", True),
        ("podspec-priorityclassname", "priorityClassName", "high"),
        ("podspec-schedulername", "schedulerName", "s"),
        ("podspec-shareprocessnamespace", "shareProcessNamespace", True),
        ("podspec-topologyspreadconstraints", "topologySpreadConstraints", [{"maxSkew": 1}]),
        ("podspec-securitycontext", "securityContext", {"runAsUser": 1}),
    ],
)
@pytest.mark.parametrize("value_of_flag", ["enabled", "Allowed"])
def test_a_flag_opens_its_field(flag: str, field: str, value: Any, value_of_flag: str) -> None:
    obj = service(**{field: value})
    assert refusal(obj, None, ApiConfig()).startswith(f"must not set the field(s): spec.template.spec.{field}")
    assert refusal(obj, None, config_of({"config-features": {f"kubernetes.{flag}": value_of_flag}})) == ""


def test_insecure_defaults_are_warnings_only() -> None:
    found = warnings(service(), old=None, config=ApiConfig())
    text = "Kubernetes default value is insecure, Knative may default this to secure in a future release"
    prefix = "spec.template.spec.containers[0].securityContext"
    names = ("allowPrivilegeEscalation", "capabilities", "runAsNonRoot", "seccompProfile")
    assert [str(warning) for warning in found] == [f"{text}: {', '.join(f'{prefix}.{name}' for name in names)}"]
    assert validate(service(), old=None, config=ApiConfig()) == []
    secure = config_of({"config-features": {"secure-pod-defaults": "enabled"}})
    assert warnings(service(), old=None, config=secure) == []


def test_a_named_template_may_be_sent_again_unchanged() -> None:
    obj = service()
    obj["spec"]["template"]["metadata"] = {"name": "svc-1"}
    obj["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1000m"}}
    again = service()
    again["spec"]["template"]["metadata"] = {"name": "svc-1", "labels": {}}
    again["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}, "requests": {}}
    assert refusal(again, obj, ApiConfig()) == ""


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("busybox", True),
        ("x", False),
        ("", False),
        ("gcr.io/a/b:v1", True),
        ("gcr.io:443/a/b", True),
        ("localhost:5000/aa", True),
        ("gcr.io:x/aa", False),
        ("user@host.io/aa", False),
        ("dev.local/hello:latest", True),
        ("gcr.io/aa@sha256:" + "a" * 64, True),
        ("gcr.io/aa:v1@sha256:" + "a" * 64, True),
        ("gcr.io/aa@sha256:" + "A" * 64, False),
        ("gcr.io/aa@md5:" + "a" * 64, False),
        ("UPPER/aa", False),
        ("aa:" + "t" * 128, True),
        ("aa:" + "t" * 129, False),
    ],
)
def test_image_references(text: str, good: bool) -> None:
    assert is_image_reference(text) is good
