"""Pods to endpoints, and what is known of those that leave."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.endpoint.v3.load_report_pb2 import (
    ClusterStats,
    UpstreamEndpointStats,
    UpstreamLocalityStats,
)
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest

from serving.activator.model import PodEndpoint
from serving.api.pod import Pod
from serving.api.reports import PodDrain, RevisionDemand
from serving.api.v1 import Revision, Route
from serving.gateway.build import GatewayConfig, revision_cluster
from serving.gateway.demand import DrainTracker, demand, read_report
from serving.gateway.ir import Endpoints
from serving.gateway.pods import endpoints_of, pod_endpoint
from serving.gateway.programming import Programming
from serving.gateway.render import Renderer
from serving.gateway.xds.control import Answer, Request
from serving.gateway.xds.snapshot import CLUSTER_TYPE, ENDPOINT_TYPE
from tests.gateway import objects
from tests.gateway.fake_activator import FakeActivator


def a_pod(name: str, **fields: Any) -> PodEndpoint:
    given: dict[str, Any] = {"port": 80, "ip": "10.0.0.1"} | fields
    body = objects.pod(name, "r1", **given)
    endpoint = pod_endpoint(msgspec.convert(body, Pod), port=8080)
    assert endpoint is not None
    return endpoint


def rows(*pods: PodEndpoint, **given: Any) -> tuple[list[str], list[str]]:
    concurrency = given.pop("concurrency", 0)
    revision = msgspec.convert(objects.revision("r1", concurrency=concurrency), Revision)
    cluster, _ = revision_cluster(revision)
    known: dict[str, Any] = {
        "ready": [p.uid for p in pods],
        "listed": (),
        "contested": (),
        "in_flight": lambda _: 0,
    }
    found = endpoints_of(cluster, pods, **(known | given))
    return [row.uid for row in found.healthy], [row.uid for row in found.draining]


def test_what_is_read_from_a_pod() -> None:
    pod = objects.pod("a", "r1", port=9000, ip="2001:db8::1", ready=True)
    pod["metadata"]["annotations"]["nodeless.dev/stages"] = '{"seen": 1.5}'
    endpoint = pod_endpoint(msgspec.convert(pod, Pod), port=8080)
    assert endpoint is not None
    assert (endpoint.address, endpoint.kube_ready, endpoint.stages) == ("[2001:db8::1]:9000", True, {"seen": 1.5})


@pytest.mark.parametrize("port", ["", "x", "0", "99999", "-1", "8080.5"])
def test_a_broken_port_annotation_means_the_container_port(port: str) -> None:
    body = objects.pod("a", "r1", port=1)
    body["metadata"]["annotations"] = {"nodeless.dev/port": port, "nodeless.dev/stages": "{"}
    endpoint = pod_endpoint(msgspec.convert(body, Pod), port=8080)
    assert endpoint is not None
    assert endpoint.address == "127.0.0.1:8080"


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_finished_pod_is_no_endpoint(phase: str) -> None:
    assert pod_endpoint(msgspec.convert(objects.pod("a", "r1", port=1, phase=phase), Pod), port=80) is None


@pytest.mark.parametrize(
    ("fields", "given", "expected"),
    [
        ({}, {}, (["uid-a"], [])),
        ({}, {"ready": ()}, ([], [])),
        ({}, {"ready": (), "listed": {"uid-a"}}, ([], ["uid-a"])),
        ({"draining": True}, {}, ([], ["uid-a"])),
        ({"deleted": True}, {}, ([], ["uid-a"])),
        ({"ip": ""}, {}, ([], [])),
        ({}, {"contested": {"10.0.0.1:80"}}, ([], [])),
        ({}, {"concurrency": 1}, ([], [])),
        ({}, {"concurrency": 20}, (["uid-a"], [])),
        ({}, {"concurrency": 20, "in_flight": lambda _: 1}, ([], [])),
        ({}, {"concurrency": 20, "in_flight": lambda _: 1, "listed": {"uid-a"}}, (["uid-a"], [])),
        ({}, {"in_flight": lambda _: 1}, (["uid-a"], [])),
    ],
)
def test_rows(fields: dict[str, Any], given: dict[str, Any], expected: tuple[list[str], list[str]]) -> None:
    assert rows(a_pod("a", **fields), **given) == expected


def report(cluster: str, *, in_progress: int, issued: int, by_port: dict[int, int]) -> LoadStatsRequest:
    stats = ClusterStats(cluster_name=cluster)
    locality = UpstreamLocalityStats(total_requests_in_progress=in_progress, total_issued_requests=issued)
    for port, running in by_port.items():
        address = Address(socket_address=SocketAddress(address="10.0.0.1", port_value=port))
        locality.upstream_endpoint_stats.append(
            UpstreamEndpointStats(address=address, total_requests_in_progress=running)
        )
    stats.upstream_locality_stats.append(locality)
    return LoadStatsRequest(cluster_stats=[stats, ClusterStats(cluster_name="default/idle")])


def test_demand() -> None:
    loads = read_report(report("default/r1", in_progress=5, issued=7, by_port={80: 2, 81: 0}))
    assert set(loads) == {"default/r1"}
    assert loads["default/r1"].by_address == {"10.0.0.1:80": 2}
    waiting = {"default/r1": 3, "default/new": 2}
    found = demand(
        loads,
        revisions=["default/r1", "default/idle", "default/new"],
        held=lambda key: waiting.get(key, 0),
        start=1.0,
        end=2.0,
    )
    assert found.revisions == {"default/r1": RevisionDemand(5, 7, 3), "default/new": RevisionDemand(2, 0, 2)}


def test_a_drain_takes_a_report_that_began_after_the_ack() -> None:
    tracker = DrainTracker()
    tracker.acked("a", healthy=True)
    assert tracker.drain("a", in_flight=0) == PodDrain(False, 0)
    tracker.acked("a", healthy=False)
    assert not tracker.drain("a", in_flight=0).acked
    tracker.reported()
    tracker.acked("a", healthy=False)
    assert not tracker.drain("a", in_flight=0).acked, "this report's interval began before the ACK"
    tracker.reported()
    assert tracker.drain("a", in_flight=4) == PodDrain(True, 4)
    tracker.acked("a", healthy=True)
    assert not tracker.drain("a", in_flight=0).acked, "a cancelled drain begins anew"
    tracker.acked("a", healthy=False)
    tracker.reported()
    tracker.reset()
    tracker.reported()
    assert not tracker.drain("a", in_flight=0).acked, "a new Envoy has not said so"


class Bench:
    """Programming with a fake activator and a fake Envoy that acknowledges at once."""

    def __init__(self) -> None:
        self.activator = FakeActivator()
        self.stale = 0
        self.woken = 0
        self.it = Programming(
            activator=self.activator,
            renderer=Renderer(nonce="n", entrances=()),
            config=GatewayConfig(),
            wake=self._wake,
            stale=self._stale,
        )
        self.it.set_route("default/x", msgspec.convert(objects.route("x", {"r1": 100}), Route))
        self.it.set_revision("default/r1", msgspec.convert(objects.revision("r1"), Revision))
        self.it.rebuild()
        self.it.control.opened()
        for kind, names in ((CLUSTER_TYPE, ()), (ENDPOINT_TYPE, ("default/r1", "default/r2"))):
            self.answer(Request(type_url=kind, first=True, subscribe=names))

    def _wake(self) -> None:
        self.woken += 1

    def _stale(self) -> None:
        self.stale += 1

    def answer(self, request: Request) -> Answer:
        answer = self.it.control.receive(request)
        self.it.answered(answer)
        for response in self.it.control.pending():
            self.answer(Request(type_url=response.type_url, nonce=response.nonce))
        return answer

    def pod(self, name: str, *, revision: str = "r1", **fields: Any) -> None:
        given: dict[str, Any] = {"port": 80, "ip": "10.0.0.1", "ready": True} | fields
        body = objects.pod(name, revision, **given)
        self.it.set_pod(f"default/{name}", msgspec.convert(body, Pod))
        self.answer(Request(type_url=ENDPOINT_TYPE))

    @property
    def known(self) -> Endpoints:
        source = self.it.control.endpoints.known["default/r1"].source
        assert isinstance(source, Endpoints)
        return source


def test_cold_and_drains_follow_what_envoy_has() -> None:
    bench = Bench()
    assert bench.it.cold().revisions == {"default/r1"}
    bench.pod("a")
    assert bench.it.cold().revisions == frozenset()
    bench.pod("a", draining=True)
    bench.activator.on["uid-a"] = 2
    assert bench.it.cold().revisions == {"default/r1"}
    for _ in range(2):
        bench.it.loaded(read_report(report("default/r1", in_progress=1, issued=0, by_port={80: 1})))
    assert bench.it.drains().pods == {"uid-a": PodDrain(True, 3)}
    bench.it.set_pod("default/a", None)
    assert bench.it.drains().pods == {}


def test_only_the_touched_revision_is_told() -> None:
    bench = Bench()
    woken = bench.woken
    bench.pod("b", revision="unknown")
    assert (bench.woken, bench.stale) == (woken, 2), "stale: the first Route and Revision, not a stranger's pod"


def test_an_unready_pod_keeps_its_row() -> None:
    bench = Bench()
    bench.pod("a")
    bench.pod("a", ready=False)
    assert [row.uid for row in bench.known.draining] == ["uid-a"]


def test_a_contested_address_goes_to_nobody_until_the_other_is_gone() -> None:
    bench = Bench()
    bench.pod("a")
    bench.pod("b")
    assert (bench.known.healthy, bench.known.draining) == ((), ())
    assert {pod.address for pod in bench.activator.pods["default/r1"]} == {""}
    bench.it.set_pod("default/b", None)
    bench.answer(Request(type_url=ENDPOINT_TYPE))
    assert [row.uid for row in bench.known.healthy] == ["uid-a"]


def test_a_replaced_pod_of_the_same_name() -> None:
    bench = Bench()
    bench.pod("a")
    body = objects.pod("a", "r1", port=80, ip="10.0.0.2", ready=True)
    body["metadata"]["uid"] = "second"
    bench.it.set_pod("default/a", msgspec.convert(body, Pod))
    bench.answer(Request(type_url=ENDPOINT_TYPE))
    assert [row.uid for row in bench.known.healthy] == ["second"]


def test_pods_of_a_former_agent_are_trusted_until_told_otherwise() -> None:
    before = Bench()
    before.pod("a")
    after = Bench()
    after.it.restore(before.it.stored())
    after.pod("a", ready=False)
    assert [row.uid for row in after.known.healthy] == ["uid-a"]
    after.it.distrust()
    after.answer(Request(type_url=ENDPOINT_TYPE))
    assert after.known.healthy == ()
