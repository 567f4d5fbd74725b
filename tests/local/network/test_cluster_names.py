"""What names mean to pods."""

from __future__ import annotations

import msgspec
import pytest

from serving.api.v1 import Route
from serving.local.network.cluster_names import ClusterNames, CoreService, EndpointSlice
from serving.local.network.resolver import MISSING, Found

GATEWAY, KUBERNETES = "198.18.0.1", "198.18.0.2"


def _route(name: str, *tags: str) -> Route:
    traffic = [{"revisionName": f"{name}-00001", "percent": 0, "tag": tag} for tag in tags]
    return msgspec.convert(
        {
            "metadata": {"namespace": "default", "name": name},
            "status": {"url": f"http://{name}.default.localhost", "traffic": traffic},
        },
        Route,
    )


def _service(name: str, **spec: str) -> CoreService:
    return msgspec.convert({"metadata": {"namespace": "default", "name": name}, "spec": spec}, CoreService)


def _slice(service: str, *endpoints: dict[str, object], kind: str = "IPv4") -> EndpointSlice:
    metadata = {"namespace": "default", "name": "s", "labels": {"kubernetes.io/service-name": service}}
    return msgspec.convert(
        {"metadata": metadata, "addressType": kind, "endpoints": list(endpoints)}, EndpointSlice
    )


@pytest.fixture
def names() -> ClusterNames:
    names = ClusterNames()
    names.gateway, names.kubernetes = GATEWAY, KUBERNETES
    names.set_route("default/hello", _route("hello", "blue"))
    names.set_service("default/hello", _service("hello", type="ExternalName", externalName="elsewhere.example"))
    names.set_service("default/kubernetes", _service("kubernetes"))
    names.set_service("default/database", _service("database"))
    names.set_service("default/none", _service("none", clusterIP="None"))
    names.set_service("default/alias", _service("alias", type="ExternalName", externalName="db.example"))
    rows: tuple[dict[str, object], ...] = (
        {"addresses": ["192.0.2.9"], "hostname": "one"},
        {"addresses": ["192.0.2.8"], "conditions": {"ready": True}},
        {"addresses": ["192.0.2.7"], "conditions": {"ready": False}},
    )
    names.set_slice("default/s", None, _slice("database", *rows))
    return names


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("hello.default.svc.cluster.local", Found(addresses=(GATEWAY,))),
        ("blue-hello.default.svc.cluster.local", Found(addresses=(GATEWAY,))),
        ("green-hello.default.svc.cluster.local", MISSING),
        ("hello.other.svc.cluster.local", MISSING),
        ("kubernetes.default.svc.cluster.local", Found(addresses=(KUBERNETES,))),
        ("database.default.svc.cluster.local", Found(addresses=("192.0.2.8", "192.0.2.9"))),
        ("one.database.default.svc.cluster.local", Found(addresses=("192.0.2.9",))),
        ("two.database.default.svc.cluster.local", MISSING),
        ("none.default.svc.cluster.local", Found()),
        ("alias.default.svc.cluster.local", Found(alias="db.example")),
        ("default.svc.cluster.local", Found()),
        ("other.svc.cluster.local", MISSING),
        ("svc.cluster.local", Found()),
        ("cluster.local", MISSING),
        ("hello.default.pod.cluster.local", MISSING),
        ("a.b.hello.default.svc.cluster.local", MISSING),
        ("hello.default.svc", None),
        ("example.org", None),
        ("notcluster.local", None),
    ],
)
def test_names(names: ClusterNames, name: str, found: Found | None) -> None:
    assert names.lookup(name) == found


def test_a_route_that_is_gone_leaves_its_names_to_services(names: ClusterNames) -> None:
    names.set_route("default/hello", None)
    assert names.lookup("hello.default.svc.cluster.local") == Found(alias="elsewhere.example")
    assert names.lookup("blue-hello.default.svc.cluster.local") == MISSING
    names.set_service("default/hello", None)
    assert names.lookup("hello.default.svc.cluster.local") == MISSING


def test_a_tag_moves_with_its_route_and_with_the_template(names: ClusterNames) -> None:
    names.set_route("default/hello", _route("hello", "green"))
    assert names.lookup("blue-hello.default.svc.cluster.local") == MISSING
    assert names.lookup("green-hello.default.svc.cluster.local") == Found(addresses=(GATEWAY,))
    names.set_tag_template("{{.Name}}-{{.Tag}}")
    assert names.lookup("green-hello.default.svc.cluster.local") == MISSING
    assert names.lookup("hello-green.default.svc.cluster.local") == Found(addresses=(GATEWAY,))


def test_two_routes_may_name_the_same_host(names: ClusterNames) -> None:
    names.set_route("default/blue-hello", _route("blue-hello"))
    names.set_route("default/hello", None)
    assert names.lookup("blue-hello.default.svc.cluster.local") == Found(addresses=(GATEWAY,))


def test_slices_come_and_go(names: ClusterNames) -> None:
    old = _slice("database", {"addresses": ["192.0.2.1"]})
    names.set_slice("default/t", None, old)
    names.set_slice("default/t", old, _slice("database", {"addresses": ["2001:db8::1"]}, kind="IPv6"))
    assert names.lookup("database.default.svc.cluster.local") == Found(addresses=("192.0.2.8", "192.0.2.9"))
