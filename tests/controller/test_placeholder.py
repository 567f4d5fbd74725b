"""Placeholder Services: what is created, corrected, deleted, and who is in the way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from serving.api.config.network import NetworkConfig
from serving.api.kube_service import KubeService
from serving.api.v1 import Route
from serving.controller.placeholder import (
    foreign_placeholder,
    local_tags,
    placeholder_names,
    reconcile_placeholders,
)
from serving.controller.writes import Create, Delete, Patch, Write

NETWORK = NetworkConfig()
GATEWAY = "gateway.test.svc.cluster.local"


def route(*tags: str, served: tuple[str, ...] = (), **metadata: Any) -> Route:
    body = {
        "metadata": {"name": "hello", "namespace": "default", "uid": "u1", **metadata},
        "spec": {"traffic": [{"configurationName": "hello", "percent": 100}, *({"tag": tag} for tag in tags)]},
        "status": {"traffic": [{"revisionName": "hello-1", "tag": tag} for tag in served]},
    }
    return msgspec.convert(body, Route)


class Services:
    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.all = [msgspec.convert(body, KubeService) for body in bodies]

    def get(self, name: str) -> KubeService | None:
        return next((one for one in self.all if one.metadata.name == name), None)

    def of_route(self) -> list[KubeService]:
        return [one for one in self.all if one.metadata.labels.get("serving.knative.dev/route") == "hello"]


def writes(found: Route, services: Services) -> list[Write]:
    names = placeholder_names(found, network=NETWORK)
    return reconcile_placeholders(
        found, names, services=services.of_route(), service=services.get, gateway=GATEWAY
    )


def made(found: Route) -> list[dict[str, Any]]:
    """What the API server holds after the first run."""
    bodies = [write.body for write in writes(found, Services()) if isinstance(write, Create)]
    return [body | {"metadata": body["metadata"] | {"uid": body["metadata"]["name"]}} for body in bodies]


def test_one_for_the_route_and_one_for_each_tag() -> None:
    labels = {"team": "a", "networking.knative.dev/visibility": "cluster-local"}
    created = writes(route("blue", labels=labels, annotations={"note": "x"}), Services())
    assert all(isinstance(write, Create) for write in created)
    bodies = [write.body for write in created if isinstance(write, Create)]
    assert [body["metadata"]["name"] for body in bodies] == ["hello", "blue-hello"]
    assert bodies[1] == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "blue-hello",
            "namespace": "default",
            "labels": {"team": "a", "serving.knative.dev/route": "hello"},
            "annotations": {"note": "x"},
            "ownerReferences": [
                {
                    "apiVersion": "serving.knative.dev/v1",
                    "kind": "Route",
                    "name": "hello",
                    "uid": "u1",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {
            "type": "ExternalName",
            "externalName": GATEWAY,
            "sessionAffinity": "None",
            "ports": [{"name": "http2", "port": 80, "targetPort": 80, "appProtocol": "kubernetes.io/h2c"}],
        },
    }


def test_what_is_there_needs_no_write() -> None:
    found = route("blue", labels={"team": "a"})
    assert writes(found, Services(*made(found))) == []


def test_new_labels_arrive_and_those_of_others_stay() -> None:
    (body,) = made(route())
    body["metadata"]["labels"]["mine"] = "stays"
    (patch,) = writes(route(labels={"team": "b"}, annotations={"note": "y"}), Services(body))
    assert isinstance(patch, Patch)
    assert patch.patch == {"metadata": {"labels": {"team": "b"}, "annotations": {"note": "y"}}}


def test_a_spec_that_somebody_changed_is_put_right() -> None:
    (body,) = made(route())
    body["spec"]["externalName"] = "elsewhere.test"
    (patch,) = writes(route(), Services(body))
    assert isinstance(patch, Patch)
    assert patch.patch["spec"]["externalName"] == GATEWAY


def test_a_tag_that_went_takes_its_service_along_once_it_is_not_served() -> None:
    services = Services(*made(route("blue")))
    assert writes(route(served=("blue",)), services) == []
    (delete,) = writes(route(), services)
    assert isinstance(delete, Delete)
    assert (delete.name, delete.uid) == ("blue-hello", "blue-hello")


def test_a_service_of_somebody_else_is_left_alone_and_told() -> None:
    theirs = {"metadata": {"name": "blue-hello", "labels": {"serving.knative.dev/route": "hello"}}}
    services = Services(theirs)
    found = route("blue")
    names = placeholder_names(found, network=NETWORK)
    assert [write.body["metadata"]["name"] for write in writes(found, services) if isinstance(write, Create)] == [
        "hello"
    ]
    assert foreign_placeholder(found, names, service=services.get) == "blue-hello"
    assert foreign_placeholder(found, names, service=Services(*made(found)).get) == ""
    assert writes(route(), services) == writes(route(), Services())


@pytest.mark.parametrize("value", ["cluster-local", "yes", "x"])
def test_a_label_makes_a_tag_cluster_local(value: str) -> None:
    found = route("blue", "green")
    bodies = made(found)
    bodies[1]["metadata"]["labels"]["networking.knative.dev/visibility"] = value
    names = placeholder_names(found, network=NETWORK)
    assert local_tags(names, services=Services(*bodies).of_route()) == {"blue"}
