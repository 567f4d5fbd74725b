"""The order of configuration, against a model of Envoy that notices every breach of it."""

from __future__ import annotations

from envoy.config.route.v3.route_pb2 import RouteConfiguration
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.gateway.xds.control import Control, Request, Response
from serving.gateway.xds.snapshot import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    Item,
    Snapshot,
    consistent,
    version_of,
)

BASE = RouteConfiguration(name="public").SerializeToString()
KEYS = ("r1", "r2", "r3", "r4")


def make(data: str, refs: frozenset[str] = frozenset()) -> Item:
    raw = RouteConfiguration(name=data).SerializeToString()
    return Item(raw, version_of(raw), refs)


def snapshot(routes: dict[str, frozenset[str]], *, unrouted: frozenset[str] = frozenset()) -> Snapshot:
    """Virtual hosts by name to the clusters they name; those clusters and `unrouted` exist."""
    keys = unrouted.union(*routes.values()) if routes else unrouted
    return Snapshot(
        clusters={key: make(f"c {key}") for key in keys},
        endpoints={key: make(f"e {key}") for key in keys},
        listeners={"public": make("l")},
        virtual_hosts={
            "public": {
                "unknown": make("unknown"),
                **{name: make(f"{name} {sorted(refs)}", refs) for name, refs in routes.items()},
            }
        },
        bases={"public": BASE},
        fixed_clusters={"activator": make("a")},
    )


class ModelEnvoy:
    """Subscribes, acknowledges, and asserts make-before-break. Clusters wait for their endpoints."""

    def __init__(self, control: Control) -> None:
        self.control = control
        self.clusters: dict[str, str] = {}
        self.endpoints: dict[str, str] = {}
        self.routes: dict[str, str] = {}
        self.listeners: dict[str, str] = {}
        self.named: frozenset[str] = frozenset()
        self.received = 0
        self._queue: list[Response] = []
        self._asked: set[str] = set()

    def connect(self) -> None:
        self.control.opened()
        self._queue, self._asked = [], set()
        self._ask(CLUSTER_TYPE, initial=self.clusters)
        if self.clusters:
            self._ask(ENDPOINT_TYPE, names=tuple(self._eds_names()), initial=self.endpoints)
        self._ask(LISTENER_TYPE, initial=self.listeners)
        if self.listeners:
            self._ask(ROUTE_TYPE, names=("public",), initial=self.routes)

    def run(self, steps: int = 1000) -> None:
        for _ in range(steps):
            self._queue += self.control.pending()
            if not self._queue:
                return
            self._handle(self._queue.pop(0))
        assert steps < 1000, "it never settles"

    def _handle(self, response: Response) -> None:
        self.received += len(response.resources) + len(response.removed)
        got = {resource.name: resource.version for resource in response.resources}
        match response.type_url:
            case _ if response.type_url == CLUSTER_TYPE:
                assert not self.named & set(response.removed), "a route still names it"
                before = self._eds_names()
                self.clusters |= got
                for name in response.removed:
                    del self.clusters[name]
                    self.endpoints.pop(name, None)
                after = self._eds_names()
                self._ask(ENDPOINT_TYPE, names=tuple(after - before), gone=tuple(before - after))
            case _ if response.type_url == ENDPOINT_TYPE:
                assert got.keys() <= self._eds_names(), "not subscribed"
                self.endpoints |= got
            case _ if response.type_url == LISTENER_TYPE:
                self.listeners |= got
                if ROUTE_TYPE not in self._asked:
                    self._ask(ROUTE_TYPE, names=("public",))
            case _:
                self.routes = got
                self.named = clusters_named(response)
                missing = self.named - (self.clusters.keys() & self.endpoints.keys())
                assert not missing, f"routes name clusters that are not there: {missing}"
        self.control.receive(Request(type_url=response.type_url, nonce=response.nonce))

    def _eds_names(self) -> set[str]:
        return self.clusters.keys() - {"activator"}

    def _ask(
        self,
        kind: str,
        *,
        names: tuple[str, ...] = (),
        gone: tuple[str, ...] = (),
        initial: dict[str, str] | None = None,
    ) -> None:
        first = kind not in self._asked
        if first or names or gone:
            self._asked.add(kind)
            self.control.receive(
                Request(
                    type_url=kind,
                    first=first,
                    subscribe=names,
                    unsubscribe=gone,
                    initial_versions=dict(initial or {}),
                )
            )


def clusters_named(response: Response) -> frozenset[str]:
    """The model's virtual hosts are messages whose name lists their clusters."""
    config = RouteConfiguration.FromString(response.resources[0].data)
    return frozenset(key for host in config.virtual_hosts for key in KEYS if f"'{key}'" in host.name)


ROUTES = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.frozensets(st.sampled_from(KEYS), min_size=1))
SNAPSHOTS = st.builds(
    lambda routes, more: snapshot(routes, unrouted=more), ROUTES, st.frozensets(st.sampled_from(KEYS))
)


@settings(max_examples=150, deadline=None)
@given(wishes=st.lists(st.tuples(SNAPSHOTS, st.integers(0, 4), st.booleans()), min_size=1, max_size=8))
def test_any_sequence_of_snapshots_and_reconnects_is_in_order(wishes: list[tuple[Snapshot, int, bool]]) -> None:
    """Whatever changes, and whenever Envoy or the agent is lost in between: no breach, and the end is right."""
    control = Control()
    control.want(wishes[0][0])
    envoy = ModelEnvoy(control)
    envoy.connect()
    for wanted, steps, agent_dies in wishes:
        assert consistent(wanted) == []
        if agent_dies:
            control = envoy.control = Control()
            control.want(wanted)
            envoy.connect()
        control.want(wanted)
        envoy.run(steps)
    envoy.run()
    last = wishes[-1][0]
    assert envoy.clusters.keys() == last.clusters.keys() | {"activator"}
    assert envoy.endpoints == {key: item.version for key, item in last.endpoints.items()}
    assert all(control.serves("public", name) for name in last.virtual_hosts["public"])


def test_a_reconnect_sends_nothing_again() -> None:
    wanted = snapshot({"a": frozenset({"r1", "r2"}), "b": frozenset({"r3"})})
    control = Control()
    control.want(wanted)
    envoy = ModelEnvoy(control)
    envoy.connect()
    envoy.run()
    received = envoy.received
    successor = envoy.control = Control()
    successor.want(wanted)
    envoy.connect()
    envoy.run()
    assert envoy.received == received
    assert successor.serves("public", "a")
    assert successor.ready("r1")


def test_one_pods_change_is_one_resource() -> None:
    control = Control()
    control.want(snapshot({"a": frozenset({"r1"}), "b": frozenset({"r2"})}))
    envoy = ModelEnvoy(control)
    envoy.connect()
    envoy.run()
    received = envoy.received
    control.want_endpoints("r1", make("e r1 changed"))
    envoy.run()
    assert envoy.received == received + 1


def test_a_cluster_with_requests_is_not_removed() -> None:
    busy = {"r1"}
    control = Control(busy=busy.__contains__)
    control.want(snapshot({"a": frozenset({"r1"})}))
    envoy = ModelEnvoy(control)
    envoy.connect()
    envoy.run()
    control.want(snapshot({}))
    envoy.run()
    assert "r1" in envoy.clusters
    busy.clear()
    envoy.run()
    assert "r1" not in envoy.clusters
    assert "r1" not in envoy.endpoints


def test_a_changed_cluster_gets_its_endpoints_again() -> None:
    control = Control()
    control.want(snapshot({"a": frozenset({"r1"})}))
    envoy = ModelEnvoy(control)
    envoy.connect()
    envoy.run()
    control.clusters.want("r1", make("c r1 changed"))
    responses = control.pending()
    assert [response.type_url for response in responses] == [CLUSTER_TYPE, ENDPOINT_TYPE]
