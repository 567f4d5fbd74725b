"""Options of `nodeless deploy` to manifests, and what it says when they are wrong."""

from __future__ import annotations

from typing import Any

import click
import pytest

from serving.api.meta import Condition, ObjectMeta
from serving.api.v1 import Service, ServiceStatus
from serving.cli.deploy import failure, is_ready, service_from_options, why

SCALING = "autoscaling.knative.dev"


def template(**given: Any) -> dict[str, Any]:
    body = service_from_options("hello", "default", image="img", **given)
    found: dict[str, Any] = body["spec"]["template"]
    return found


def test_only_an_image() -> None:
    assert service_from_options("hello", "prod", image="img") == {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "namespace": "prod", "labels": {}},
        "spec": {"template": {"metadata": {"annotations": {}}, "spec": {"containers": [{"image": "img"}]}}},
    }


@pytest.mark.parametrize(
    ("given", "container"),
    [
        ({"port": 9000}, {"ports": [{"containerPort": 9000}]}),
        ({"h2c": True}, {"ports": [{"containerPort": 8080, "name": "h2c"}]}),
        ({"port": 50051, "h2c": True}, {"ports": [{"containerPort": 50051, "name": "h2c"}]}),
        ({"environment": ("A=1", "B=x=y", "C=")}, {"env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "x=y"}, {"name": "C", "value": ""}]}),
        ({"arguments": ("-v", "serve")}, {"args": ["-v", "serve"]}),
        ({"cpu": "500m"}, {"resources": {"limits": {"cpu": "500m"}}}),
        ({"cpu": "1", "memory": "64Mi"}, {"resources": {"limits": {"cpu": "1", "memory": "64Mi"}}}),
    ],
    ids=["port", "h2c", "grpc", "env", "args", "cpu", "limits"],
)  # fmt: skip
def test_container(given: dict[str, Any], container: dict[str, Any]) -> None:
    assert template(**given)["spec"] == {"containers": [{"image": "img", **container}]}


@pytest.mark.parametrize(
    ("given", "annotations"),
    [
        ({"min_scale": 0}, {f"{SCALING}/min-scale": "0"}),
        ({"min_scale": 1, "max_scale": 3}, {f"{SCALING}/min-scale": "1", f"{SCALING}/max-scale": "3"}),
        ({"window": "6s"}, {f"{SCALING}/window": "6s"}),
        ({"concurrency_target": 0.5}, {f"{SCALING}/target": "0.5"}),
        ({"concurrency_target": 10.0}, {f"{SCALING}/target": "10"}),
        ({"annotation": ("a/b=c", "d=e=f")}, {"a/b": "c", "d": "e=f"}),
        ({"annotation": (f"{SCALING}/window=9s",), "window": "6s"}, {f"{SCALING}/window": "6s"}),
    ],
    ids=["min", "bounds", "window", "fraction", "whole", "any", "option-wins"],
)
def test_annotations(given: dict[str, Any], annotations: dict[str, str]) -> None:
    assert template(**given)["metadata"]["annotations"] == annotations


def test_limits_of_the_revision() -> None:
    spec = template(concurrency=0, request_timeout=30)["spec"]
    assert spec["containerConcurrency"] == 0
    assert spec["timeoutSeconds"] == 30


def test_cluster_local_is_a_label_of_the_service() -> None:
    body = service_from_options("hello", "default", image="img", cluster_local=True)
    assert body["metadata"]["labels"] == {"networking.knative.dev/visibility": "cluster-local"}


@pytest.mark.parametrize("text", ["A", "=x", ""])
@pytest.mark.parametrize(("field", "option"), [("environment", "--env"), ("annotation", "--annotation")])
def test_a_pair_needs_a_name_and_an_equals_sign(text: str, field: str, option: str) -> None:
    with pytest.raises(click.BadParameter, match="must be NAME=VALUE") as caught:
        template(**{field: (text,)})
    assert caught.value.param_hint == option


def service(*conditions: Condition, generation: int = 2, observed: int = 2) -> Service:
    return Service(
        metadata=ObjectMeta(name="hello", namespace="default", generation=generation),
        status=ServiceStatus(observed_generation=observed, conditions=conditions),
    )


READY = Condition(type="Ready", status="True")
FAILED = Condition(type="Ready", status="False", reason="RevisionFailed", message="no image")
WAITING = Condition(type="Ready", status="Unknown")


@pytest.mark.parametrize(
    ("found", "ready", "failed"),
    [
        (service(READY), True, ""),
        (service(READY, observed=1), False, ""),
        (service(FAILED), False, "RevisionFailed: no image"),
        (service(FAILED, observed=1), False, ""),
        (service(WAITING), False, ""),
        (service(), False, ""),
    ],
    ids=["ready", "ready-before", "failed", "failed-before", "waiting", "new"],
)
def test_readiness_counts_for_the_stored_generation(found: Service, ready: bool, failed: str) -> None:
    assert is_ready(found) is ready
    assert failure(found) == failed


def test_why_names_the_first_condition_that_is_missing() -> None:
    done = Condition(type="ConfigurationsReady", status="True")
    routes = Condition(type="RoutesReady", status="Unknown", reason="Deploying", message="no gateway yet")
    assert why(service()) == "ConfigurationsReady: in progress"
    assert why(service(done, routes)) == "RoutesReady: no gateway yet"
    assert why(service(done, Condition(type="RoutesReady", status="True"))) == "Ready"
