"""Objects to IR."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.rollout import ROLLOUT_ANNOTATION, RevisionShare, Rollout, TargetRollout, write_rollout
from serving.api.routing import host_claims, host_owners, programmed_hash
from serving.api.v1 import Revision, Route
from serving.api.v1beta1 import DomainMapping
from serving.gateway.build import GatewayConfig, build, revision_cluster
from serving.gateway.ir import Ir, Mode, validate
from tests.gateway import objects

CONFIG = GatewayConfig()


def a_route(name: str, traffic: dict[str, int], **fields: Any) -> Route:
    return msgspec.convert(objects.route(name, traffic, **fields), Route)


def a_revision(name: str, **fields: Any) -> Revision:
    return msgspec.convert(objects.revision(name, **fields), Revision)


def revisions(*names: str) -> dict[str, Revision]:
    return {f"default/{name}": a_revision(name) for name in names}


@pytest.mark.parametrize(
    ("fields", "workers", "mode"),
    [
        ({}, 1, Mode.DIRECT),
        ({"h2c": True}, 1, Mode.DIRECT),
        ({"concurrency": 1}, 1, Mode.SLOTS),
        ({"concurrency": 10}, 1, Mode.SLOTS),
        ({"concurrency": 11}, 1, Mode.LIMITED),
        ({"concurrency": 11, "h2c": True}, 1, Mode.SLOTS),
        ({"concurrency": 11}, 2, Mode.SLOTS),
        ({}, 2, Mode.DIRECT),
    ],
)
def test_mode(fields: dict[str, Any], workers: int, mode: Mode) -> None:
    cluster, _ = revision_cluster(a_revision("r", **fields), workers=workers)
    assert cluster.mode is mode
    assert cluster.per_host_connections == (11 if mode is Mode.LIMITED else None)


def test_time_outs() -> None:
    cluster, _ = revision_cluster(
        a_revision("r", timeout=60, responseStartTimeoutSeconds=10, idleTimeoutSeconds=7)
    )
    assert (cluster.config.hold_seconds, cluster.idle_seconds) == (10.0, 7.0)
    cluster, _ = revision_cluster(a_revision("r", timeout=60))
    assert (cluster.config.hold_seconds, cluster.idle_seconds) == (60.0, 0.0)


def test_a_startup_probe_leaves_readiness_to_kubernetes() -> None:
    containers = [{"name": "c", "image": "x", "startupProbe": {"tcpSocket": {"port": 0}}}]
    cluster, _ = revision_cluster(a_revision("r", containers=containers))
    assert cluster.config.readiness is not None
    assert cluster.config.readiness.exec is not None


@pytest.mark.parametrize(
    ("text", "seconds", "complaint"),
    [("30s", 30.0, ""), ("2h", 4.0, "want 0s < value <= 1h, got '2h'"), ("0s", 4.0, "got '0s'"), ("x", 4.0, "x")],
)
def test_upstream_idle(text: str, seconds: float, complaint: str) -> None:
    cluster, problems = revision_cluster(a_revision("r", annotations={"nodeless.dev/upstream-idle-timeout": text}))
    assert cluster.upstream_idle_seconds == seconds
    assert bool(problems) == bool(complaint)
    assert all(complaint in problem.message for problem in problems)


def test_hosts_of_a_route() -> None:
    claims = host_claims(a_route("hello", {"r1": 100}, tags={"t": "r1"}))
    assert [(claim.host, claim.tag, claim.public) for claim in claims] == [
        ("hello.default.example.test", "", True),
        ("hello.default", "", False),
        ("hello.default.svc", "", False),
        ("hello.default.svc.cluster.local", "", False),
        ("t-hello.default.example.test", "t", True),
        ("t-hello.default", "t", False),
        ("t-hello.default.svc", "t", False),
        ("t-hello.default.svc.cluster.local", "t", False),
    ]


def test_a_tag_template_moves_the_local_names() -> None:
    claims = host_claims(a_route("hello", {"r1": 100}, tags={"t": "r1"}), tag_template="{{.Name}}-{{.Tag}}")
    assert "hello-t.default.svc" in {claim.host for claim in claims}


@pytest.mark.parametrize("url", ["http://*", "http://*.example.test", "http://", "nonsense"])
def test_no_route_gets_a_wildcard(url: str) -> None:
    assert not any(claim.public for claim in host_claims(a_route("hello", {"r1": 100}, url=url)))


def test_a_route_that_is_being_deleted_claims_nothing() -> None:
    body = objects.route("hello", {"r1": 100})
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ir, problems = build([msgspec.convert(body, Route)], revisions("r1"), config=CONFIG)
    assert (ir.public, ir.local, ir.routes, problems) == ({}, {}, {}, [])


def test_ties_between_claimants_are_broken_by_uid() -> None:
    url = "http://shared.example.test"
    routes = [a_route("b", {"r1": 100}, url=url, uid="1"), a_route("a", {"r1": 100}, url=url, uid="2")]
    granted, conflicts = host_owners(routes)
    assert "shared.example.test" in granted["default/b"]
    assert [(conflict.owner, conflict.loser) for conflict in conflicts] == [("default/b", "default/a")]


def test_an_unknown_revision_gives_its_share_to_the_others() -> None:
    ir, problems = build(
        [a_route("hello", {"gone": 50, "r1": 30, "r2": 20})], revisions("r1", "r2"), config=CONFIG
    )
    shares = {share.target.revision: share.percent for share in ir.public["default/hello"].shares}
    assert shares == {"default/r1": 60, "default/r2": 40}
    assert [problem.message for problem in problems] == ['Revision "gone" is unknown.']


def test_a_route_without_any_known_revision_is_not_programmed() -> None:
    ir, problems = build([a_route("hello", {"gone": 100})], {}, config=CONFIG)
    assert ir == Ir()
    assert problems


def test_a_broken_revision_takes_nobody_with_it() -> None:
    broken = a_revision("bad", containers=[{"name": "a"}, {"name": "b"}])
    known = revisions("r1") | {"default/bad": broken}
    ir, problems = build([a_route("x", {"bad": 100}), a_route("y", {"r1": 100})], known, config=CONFIG)
    assert list(ir.routes) == ["default/y"]
    assert {problem.object for problem in problems} == {"Revision default/bad", "Route default/x"}


def test_a_revision_with_pods_keeps_its_cluster_without_a_route() -> None:
    ir, _ = build([], revisions("r1", "r2"), config=CONFIG, populated=["default/r1"])
    assert set(ir.revisions) == {"default/r1"}


def test_the_hash_depends_on_what_is_served() -> None:
    base = a_route("hello", {"r1": 100})
    assert programmed_hash(base) == programmed_hash(a_route("hello", {"r1": 100}))
    others = [
        a_route("hello", {"r2": 100}),
        a_route("hello", {"r1": 50, "r2": 50}),
        a_route("hello", {"r1": 100}, tags={"t": "r1"}),
        a_route("hello", {"r1": 100}, url="http://other.test"),
        a_route("hello", {"r1": 100}, uid="another"),
    ]
    assert len({programmed_hash(route) for route in (base, *others)}) == len(others) + 1


NAMES = st.sampled_from(["a", "b", "c"])
REVISION_NAMES = st.sampled_from(["r1", "r2", "r3", "gone"])
URLS = st.sampled_from([None, "http://shared.example.test", "http://a.default.svc.cluster.local", "http://*"])
ROUTES = st.lists(
    st.builds(
        a_route,
        NAMES,
        st.dictionaries(REVISION_NAMES, st.integers(0, 100), max_size=4),
        tags=st.dictionaries(NAMES, REVISION_NAMES, max_size=2),
        url=URLS,
        created=st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
    ),
    max_size=3,
    unique_by=lambda route: route.metadata.name,
)


@settings(deadline=None)
@given(routes=ROUTES, tag_headers=st.booleans())
def test_whatever_the_routes_the_ir_is_valid(routes: list[Route], tag_headers: bool) -> None:
    config = GatewayConfig(tag_headers=tag_headers)
    ir, _ = build(routes, revisions("r1", "r2", "r3"), config=config)
    assert validate(ir) == []
    again, _ = build(list(reversed(routes)), revisions("r3", "r2", "r1"), config=config)
    assert again == ir, "the order of objects does not matter"


@settings(deadline=None)
@given(routes=ROUTES)
def test_the_ir_survives_the_disk(routes: list[Route]) -> None:
    ir, _ = build(routes, revisions("r1", "r2"), config=CONFIG)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ir), type=Ir) == ir


def a_mapping(name: str, target: str, **metadata: Any) -> DomainMapping:
    body = {
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", **metadata},
        "spec": {"ref": {"kind": "Service", "name": "hello", "apiVersion": "serving.knative.dev/v1"}},
        "status": {"annotations": {"nodeless.dev/target": target} if target else {}},
    }
    return msgspec.convert(body, DomainMapping)


@pytest.mark.parametrize(
    ("target", "shares"),
    [
        ("hello", {"default/r1": 70, "default/r2": 30}),
        ("hello/t", {"default/r2": 100}),
        ("hello/x", None),
        ("", None),
    ],
)
def test_a_domain_mapping_serves_what_its_route_serves(target: str, shares: dict[str, int] | None) -> None:
    route = a_route("hello", {"r1": 70, "r2": 30}, tags={"t": "r2"})
    ir, problems = build(
        [route], revisions("r1", "r2"), config=CONFIG, mappings=[a_mapping("www.example.com", target)]
    )
    assert not problems
    assert not validate(ir)
    host = ir.public.get("domainmapping/default/www.example.com")
    assert (host is None) == (shares is None)
    if host is not None:
        assert {share.target.revision: share.percent for share in host.shares} == shares
        assert (host.domains, host.rewrite) == (("www.example.com",), "hello.default.svc.cluster.local")
        assert "domainmapping/default/www.example.com" in ir.routes
    assert "domainmapping/default/www.example.com" not in ir.local


def test_a_domain_that_a_route_has_is_not_given_to_a_mapping() -> None:
    route = a_route("hello", {"r1": 100}, url="http://www.example.com")
    mapping = a_mapping("www.example.com", "hello")
    ir, problems = build([route], revisions("r1"), config=CONFIG, mappings=[mapping])
    assert list(ir.public) == ["default/hello"]
    assert [problem.object for problem in problems] == ["DomainMapping default/www.example.com"]


def test_a_mapping_that_is_being_deleted_is_not_served() -> None:
    mapping = a_mapping("www.example.com", "hello", deletionTimestamp="2026-01-01T00:00:00Z")
    ir, _ = build([a_route("hello", {"r1": 100})], revisions("r1"), config=CONFIG, mappings=[mapping])
    assert list(ir.public) == ["default/hello"]


@pytest.mark.parametrize(
    ("annotation", "default", "redirected"),
    [
        ("", "enabled", False),
        ("", "redirected", True),
        ("Redirected", "enabled", True),
        ("enabled", "redirected", False),
        ("nonsense", "redirected", True),
    ],
)
def test_only_public_hosts_are_redirected(annotation: str, default: str, *, redirected: bool) -> None:
    body = objects.route("hello", {"r1": 100})
    if annotation:
        body["metadata"]["annotations"] = {"networking.knative.dev/http-protocol": annotation}
    route = msgspec.convert(body, Route)
    ir, _ = build([route], revisions("r1"), config=GatewayConfig(http_protocol=default))
    assert ir.public["default/hello"].redirect is redirected
    assert ir.local["default/hello"].redirect is False


def test_during_a_rollout_a_tag_shares_revisions_too() -> None:
    body = objects.route("hello", {"r1": 99, "r2": 1}, tags={"t": "r2"})
    before = programmed_hash(msgspec.convert(body, Route))
    rows = (RevisionShare(revision_name="r1", percent=90), RevisionShare(revision_name="r2", percent=10))
    rollout = Rollout(
        configurations=(TargetRollout(configuration_name="c", tag="t", percent=100, revisions=rows),)
    )
    body["status"]["annotations"] = {ROLLOUT_ANNOTATION: write_rollout(rollout)}
    route = msgspec.convert(body, Route)
    config = GatewayConfig(tag_headers=True)
    ir, _ = build([route], revisions("r1", "r2"), config=config)
    expected = {"default/r1": 90, "default/r2": 10}
    assert {one.target.revision: one.percent for one in ir.public["default/hello#t"].shares} == expected
    (tag, shares) = ir.public["default/hello"].by_tag[0]
    assert tag == "t"
    assert {one.target.revision: one.percent for one in shares} == expected
    assert programmed_hash(route) != before
    assert not validate(ir)


@pytest.mark.parametrize(
    ("api_version", "rewrite"),
    [("serving.knative.dev/v1", ""), ("v1", "hello.default.svc.cluster.local")],
)
def test_applications_may_see_the_mapped_host(api_version: str, rewrite: str) -> None:
    mapping = a_mapping("www.example.com", "hello")
    ref = msgspec.structs.replace(mapping.spec.ref, api_version=api_version)
    mapping = msgspec.structs.replace(mapping, spec=msgspec.structs.replace(mapping.spec, ref=ref))
    config = GatewayConfig(direct_mappings=True)
    ir, _ = build([a_route("hello", {"r1": 100})], revisions("r1"), config=config, mappings=[mapping])
    host = ir.public["domainmapping/default/www.example.com"]
    assert (host.rewrite, host.mapped) == (rewrite, True)
