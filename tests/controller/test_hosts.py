"""Hosts have one owner, the oldest claimant, and change hands when it goes."""

from __future__ import annotations

from serving.api.meta import ObjectMeta
from serving.api.v1 import Route, RouteStatus, TrafficTarget
from serving.controller.host_index import HostIndex


def route(name: str, host: str, *, age: int, namespace: str = "default", tag_url: str = "") -> Route:
    meta = ObjectMeta(
        name=name, namespace=namespace, uid=f"u-{name}", creation_timestamp=f"2026-01-01T00:00:{age:02d}Z"
    )
    traffic: tuple[TrafficTarget, ...] = (TrafficTarget(revision_name="r", percent=100),)
    if tag_url:
        traffic += (TrafficTarget(revision_name="r", percent=0, tag="t", url=tag_url),)
    return Route(metadata=meta, status=RouteStatus(url=f"http://{host}", traffic=traffic))


def test_the_oldest_owns_and_hands_over() -> None:
    index = HostIndex()
    assert index.put(route("new", "a.test", age=20)) == set()
    assert index.conflict("default/new") is None
    assert index.put(route("old", "a.test", age=10)) == {"default/new"}
    conflict = index.conflict("default/new")
    assert conflict is not None
    assert (conflict.host, conflict.owner) == ("a.test", "default/old")
    assert index.conflict("default/old") is None
    assert index.remove("default/old") == {"default/new"}
    assert index.conflict("default/new") is None


def test_a_moved_route_gives_its_host_up() -> None:
    index = HostIndex()
    index.put(route("old", "a.test", age=10))
    index.put(route("new", "a.test", age=20))
    assert index.put(route("old", "b.test", age=10)) == {"default/new"}
    assert index.conflict("default/new") is None


def test_cluster_local_tag_names_follow_the_template() -> None:
    index = HostIndex()
    template = "{{.Name}}-{{.Tag}}"
    index.put(route("svc", "svc.test", age=10, tag_url="http://svc-t.test"), tag_template=template)
    index.put(route("svc-t", "other.test", age=20), tag_template=template)
    conflict = index.conflict("default/svc-t")
    assert conflict is not None
    assert conflict.host == "svc-t.default"
