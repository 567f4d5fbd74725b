"""Listeners inside the pods' network come, stay and go with what the node agent says."""

from __future__ import annotations

import msgspec
import pytest
from envoy.config.listener.v3.listener_pb2 import Listener

from serving.api import podnetwork
from serving.api.podnetwork import PodNetworkFacts
from serving.gateway.build import GatewayConfig
from serving.gateway.programming import Programming
from serving.gateway.render import Renderer
from serving.gateway.xds.control import Request
from serving.gateway.xds.snapshot import LISTENER_TYPE
from tests.gateway.fake_activator import FakeActivator

FACTS = PodNetworkFacts(gateway="198.18.0.1", kubernetes="198.18.0.2", identity="4026", namespace="/proc/7/fd/9")


class Bench:
    """Programming with an Envoy that acknowledges or refuses listeners as told."""

    def __init__(self) -> None:
        self.it = Programming(
            activator=FakeActivator(),
            renderer=Renderer(nonce="n", entrances=(), api=("127.0.0.1", 6443)),
            config=GatewayConfig(),
            wake=lambda: None,
            stale=self._stale,
        )
        self._due = False
        self.it.rebuild()
        self.it.control.opened()
        self._receive(Request(type_url=LISTENER_TYPE, first=True))

    def _stale(self) -> None:
        self._due = True

    def _receive(self, request: Request) -> None:
        self.it.answered(self.it.control.receive(request))

    def tell(self, facts: PodNetworkFacts | None) -> None:
        self.it.set_pod_network(facts)

    def exchange(self, *, refuse: bool = False) -> dict[str, Listener]:
        """What Envoy is sent now, by name; it refuses listeners of pods when told so."""
        sent: dict[str, Listener] = {}
        for _ in range(20):
            if self._due:
                self._due = False
                self.it.rebuild()
            responses = [r for r in self.it.control.pending() if r.type_url == LISTENER_TYPE]
            if not responses:
                return sent
            for response in responses:
                batch = {r.name: Listener.FromString(r.data) for r in response.resources}
                sent |= batch
                guilty = refuse and any("/" in name for name in batch)
                self._receive(
                    Request(
                        type_url=LISTENER_TYPE, nonce=response.nonce, error="no such namespace" if guilty else None
                    )
                )
        raise AssertionError("Envoy is sent the same again and again")

    def acked(self) -> set[str]:
        return {name for name in self.it.control.listeners.applier.acked if not name.startswith("activator")}


def test_they_follow_the_node() -> None:
    bench = Bench()
    assert bench.exchange().keys() == {"activator-h1", "activator-h2c"}
    bench.tell(FACTS)
    sent = bench.exchange()
    assert bench.acked() == {"cluster-local-pods/4026", "kubernetes/4026"}
    http = sent["cluster-local-pods/4026"].address.socket_address
    assert (http.address, http.port_value) == ("198.18.0.1", 80)
    assert http.network_namespace_filepath == "/proc/7/fd/9"
    api = sent["kubernetes/4026"].address.socket_address
    assert (api.address, api.port_value) == ("198.18.0.2", 443)
    bench.tell(None)
    bench.exchange()
    assert bench.acked() == set()


def test_another_way_to_the_same_namespace_is_no_news() -> None:
    bench = Bench()
    bench.tell(FACTS)
    bench.exchange()
    bench.tell(msgspec.structs.replace(FACTS, namespace="/proc/8/fd/9"))
    assert bench.exchange() == {}


def test_another_namespace_is_another_listener() -> None:
    bench = Bench()
    bench.tell(FACTS)
    bench.exchange()
    bench.tell(msgspec.structs.replace(FACTS, identity="4027"))
    bench.exchange()
    assert bench.acked() == {"cluster-local-pods/4027", "kubernetes/4027"}


def test_a_way_that_has_vanished_is_replaced() -> None:
    """Envoy was started anew and cannot open the path of a node agent that is gone."""
    bench = Bench()
    bench.tell(FACTS)
    bench.exchange(refuse=True)
    assert bench.acked() == set()
    bench.tell(msgspec.structs.replace(FACTS, namespace="/proc/8/fd/9"))
    bench.exchange()
    assert bench.acked() == {"cluster-local-pods/4026", "kubernetes/4026"}


def test_it_is_part_of_what_is_stored() -> None:
    first, second = Bench(), Bench()
    first.tell(FACTS)
    first.exchange()
    second.it.restore(first.it.stored())
    second.it.rebuild()
    second.exchange()
    assert second.acked() == {"cluster-local-pods/4026", "kubernetes/4026"}


@pytest.mark.parametrize("text", ["", None, "{", "[]", '{"gateway": 1}'])
def test_an_annotation_that_says_nothing(text: str | None) -> None:
    assert podnetwork.parse(text) is None
