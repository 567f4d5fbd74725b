"""Defaulting equals upstream's, is idempotent, and keeps what it does not know."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api.config.store import ApiConfig
from serving.api.defaulting import default
from serving.api.meta import JsonObject
from serving.api.schema.canonical import canonical
from serving.api.schema.kinds import KINDS
from tests.api.strategies import KINDS_UNDER_TEST, objects
from tests.api.support import case_object, case_old, config_of, golden, object_of


@pytest.mark.parametrize("case", golden("defaulted.yaml"), ids=lambda case: case["name"])
def test_defaults_are_upstreams(case: dict[str, Any]) -> None:
    config = config_of(case.get("config"))
    obj = default(case_object(case), old=case_old(case), config=config, user="alice")
    spec = KINDS[case["kind"]].fields["spec"].node
    assert canonical(spec, obj["spec"]) == canonical(spec, case["wantSpec"])
    assert obj["metadata"].get("annotations", {}) == case["wantAnnotations"]


def test_a_plain_service_is_stored_as_upstream_stores_it() -> None:
    obj = object_of("Service", {"name": "svc"}, {"template": {"spec": {"containers": [{"image": "busybox"}]}}})
    assert default(obj, old=None, config=ApiConfig(), user="u")["spec"] == {
        "template": {
            "metadata": {},
            "spec": {
                "containerConcurrency": 0,
                "containers": [
                    {
                        "image": "busybox",
                        "name": "user-container",
                        "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
                        "resources": {},
                    }
                ],
                "enableServiceLinks": False,
                "timeoutSeconds": 300,
            },
        },
        "traffic": [{"latestRevision": True, "percent": 100}],
    }


def test_unknown_fields_survive_and_nulls_go() -> None:
    spec: JsonObject = {
        "template": {"spec": {"containers": [None], "future": {"a": None}}},
        "traffic": None,
        "x": [1],
    }
    obj = object_of("Service", {"name": "svc", "creationTimestamp": None}, spec)
    before = copy.deepcopy(obj)
    new = default(obj, old=None, config=ApiConfig(), user="u")
    assert obj == before
    assert new["spec"]["x"] == [1]
    assert new["spec"]["template"]["spec"]["future"] == {"a": None}
    assert "creationTimestamp" not in new["metadata"]
    assert new["spec"]["template"]["spec"]["containers"][0]["name"] == "user-container"


def test_only_a_change_of_the_spec_changes_the_last_modifier() -> None:
    obj = object_of("Service", {"name": "svc"}, {"template": {"spec": {"containers": [{"image": "busybox"}]}}})
    stored = default(obj, old=None, config=ApiConfig(), user="alice")
    same = default(copy.deepcopy(stored), old=stored, config=ApiConfig(), user="bob")
    assert same == stored
    changed = copy.deepcopy(stored)
    changed["spec"]["template"]["spec"]["timeoutSeconds"] = 5
    annotations = default(changed, old=stored, config=ApiConfig(), user="bob")["metadata"]["annotations"]
    assert annotations == {
        "serving.knative.dev/creator": "alice",
        "serving.knative.dev/lastModifier": "bob",
    }


def test_other_kinds_come_back_as_they_are() -> None:
    obj = {"kind": "Pod", "spec": None}
    assert default(obj, old=None, config=ApiConfig(), user="u") is obj


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data(), st.sampled_from(KINDS_UNDER_TEST))
def test_defaulting_again_changes_nothing(data: st.DataObject, kind: str) -> None:
    obj = data.draw(objects(kind))
    config = ApiConfig()
    once = default(obj, old=None, config=config, user="alice")
    assert default(once, old=None, config=config, user="alice") == once
    assert default(once, old=once, config=config, user="bob") == once
