"""The gateway's state between watches, Envoy and the activator. No I/O, no clock; calls back in the same turn.

Objects come in one by one (`set_route`, `set_revision`, `set_pod`, `set_config`). A change of a pod recomputes the
endpoints of its revision and nothing else. A change that moves routing marks the table stale; `rebuild` makes it
anew from everything, once for a burst of changes. What Envoy acknowledged comes in through `answered`, load
reports through `loaded`; the levels that the controller wants to know (`programmed`, `cold`, `drains`) are
computed from what Envoy *has*, never from what was sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from serving.activator.model import PodEndpoint, RevisionConfig
from serving.api.pod import Pod
from serving.api.podnetwork import PodNetworkFacts
from serving.api.reports import ColdRevisions, Drains, PodDrain, Programmed
from serving.api.routing import mapping_facts, routing_facts
from serving.api.v1 import Revision, Route
from serving.api.v1beta1 import DomainMapping
from serving.gateway.build import GatewayConfig, build, revision_cluster
from serving.gateway.demand import ClusterLoad, DrainTracker
from serving.gateway.ir import Endpoints, Ir, Mode, Problem, Stored
from serving.gateway.pod_table import PodTable
from serving.gateway.pods import endpoints_of
from serving.gateway.render import Renderer
from serving.gateway.translate import names
from serving.gateway.xds.control import Answer, Control
from serving.gateway.xds.snapshot import ENDPOINT_TYPE, LISTENER_TYPE

log = logging.getLogger(__name__)

TRUST_SECONDS: Final = 10.0
"""After a start, pods that Envoy already had are believed ready for so long without an answer to a probe."""


class ActivatorLike(Protocol):
    """What we need of the activator (serving/activator/service.py)."""

    def update(self, revision: RevisionConfig, pods: Sequence[PodEndpoint]) -> None: ...
    def forget(self, key: str) -> None: ...
    def ready(self, key: str) -> frozenset[str]: ...
    def held(self, key: str) -> int: ...
    def in_flight(self, pod_uid: str) -> int: ...


class Programming:
    """`activator` may call `refresh` from within `update`. `wake` is called when Envoy should be sent something,
    `stale` when `rebuild` should be called soon."""

    def __init__(
        self,
        *,
        activator: ActivatorLike,
        renderer: Renderer,
        config: GatewayConfig,
        wake: Callable[[], None],
        stale: Callable[[], None],
    ) -> None:
        self.control = Control(busy=self._busy, draining=self._draining)
        self.ir = Ir()
        self.problems: list[Problem] = []
        self.loads: Mapping[str, ClusterLoad] = {}
        self._activator = activator
        self._renderer = renderer
        self._config = config
        renderer.set_request_log(config.request_log)
        self._wake = wake
        self._stale = stale
        self._routes: dict[str, Route] = {}
        self._revisions: dict[str, Revision] = {}
        self._mappings: dict[str, DomainMapping] = {}
        self._pods = PodTable(port=self._port, uid=self._uid)
        self._endpoints: dict[str, Endpoints] = {}
        self._listed: dict[str, set[str]] = {}
        self._trusted: set[str] = set()
        self._refreshing: set[str] = set()
        self._tracker = DrainTracker()
        self._live = False
        self._from_store = False
        self._pod_network: PodNetworkFacts | None = None
        self._told_pod_network: PodNetworkFacts | None = None

    # Objects

    def set_config(self, config: GatewayConfig) -> None:
        if config != self._config:
            self._config = config
            self._renderer.set_request_log(config.request_log)
            self._stale()

    def set_pod_network(self, network: PodNetworkFacts | None) -> None:
        """Where pods of this machine come in. Another path to the same namespace is no news, unless Envoy could
        not open the former one."""
        self._told_pod_network = network
        known = self._pod_network
        same = known is not None and network is not None and known.identity == network.identity
        if network != known and (not same or any(kind == LISTENER_TYPE for kind, _ in self.control.refusals())):
            self._pod_network = network
            self._renderer.set_pod_network(network)
            self._stale()

    def set_route(self, key: str, route: Route | None) -> None:
        old = self._routes.get(key)
        if route is None:
            self._routes.pop(key, None)
        else:
            self._routes[key] = route
        if old is None or route is None or routing_facts(old) != routing_facts(route):
            self._stale()

    def set_mapping(self, key: str, mapping: DomainMapping | None) -> None:
        old = self._mappings.get(key)
        if mapping is None:
            self._mappings.pop(key, None)
        else:
            self._mappings[key] = mapping
        if old is None or mapping is None or mapping_facts(old) != mapping_facts(mapping):
            self._stale()

    def set_revision(self, key: str, revision: Revision | None) -> None:
        old = self._revisions.get(key)
        if revision is None:
            self._revisions.pop(key, None)
        else:
            self._revisions[key] = revision
        if old is None or revision is None or _serving(old) != _serving(revision):
            self._stale()

    def set_pod(self, key: str, pod: Pod | None) -> None:
        """`key` is the Pod's own. A Pod that is created again under its name replaces the former."""
        touched = self._pods.put(key, pod)
        if not self._live:
            return
        for revision in sorted(touched):
            if (revision in self.ir.revisions) != self._is_wanted(revision):
                self._stale()
            if revision in self.ir.revisions:
                self._tell(revision)
                self.refresh(revision)

    # Routing

    def rebuild(self) -> None:
        """Everything anew, from all objects. From now on changes are sent."""
        if self._from_store:
            self._from_store = False
            self._pods.drop_adopted()
        self._live = True
        ir, problems = build(
            self._routes.values(),
            self._revisions,
            config=self._config,
            populated=list(self._pods.revisions()),
            mappings=self._mappings.values(),
        )
        for problem in problems:
            if problem not in self.problems:
                log.warning("%s: %s: %s", problem.object, problem.reason, problem.message)
        former, self.ir, self.problems = self.ir, ir, problems
        if former.revisions != ir.revisions:
            self._pods.file_again()
        for key in former.revisions.keys() - ir.revisions.keys():
            self._activator.forget(key)
        for key in ir.revisions:
            self._tell(key)
            self._compute(key)
        self._publish()

    def restore(self, stored: Stored) -> None:
        """Begin with what a former agent knew, as a basis for `serve_stored` and for trust in its pods."""
        self._trusted = {row.uid for rows in stored.endpoints.values() for row in rows.healthy}
        self._listed = {
            key: {row.uid for row in (*rows.healthy, *rows.draining)} for key, rows in stored.endpoints.items()
        }
        if self._pod_network is None:
            self._pod_network = self._told_pod_network = stored.pod_network
            self._renderer.set_pod_network(stored.pod_network)

    def serve_stored(self, stored: Stored) -> None:
        """Serve what a former agent served, because the API server cannot be asked. A later `rebuild` replaces
        it."""
        self.ir = stored.ir
        self._live = self._from_store = True
        self._endpoints = dict(stored.endpoints)
        self._pods.adopt(stored.pods)
        for key in stored.ir.revisions:
            self._tell(key)
            self._compute(key)
        self._publish()

    def distrust(self) -> None:
        """Believe nobody ready who has not answered. Call `TRUST_SECONDS` after the start."""
        trusted, self._trusted = self._trusted, set()
        for key in {owner for uid in trusted if (owner := self._pods.owner(uid)) is not None}:
            self.refresh(key)

    def stored(self) -> Stored:
        return Stored(
            ir=self.ir,
            pods={
                key: tuple(self._pods.of(key).values())
                for key in self._pods.revisions()
                if key in self.ir.revisions
            },
            endpoints=dict(self._endpoints),
            pod_network=self._pod_network,
        )

    # Endpoints

    def refresh(self, key: str) -> None:
        """A pod of the revision changed, or answered its probe: one revision's endpoints anew."""
        if not self._live or key not in self.ir.revisions or key in self._refreshing:
            return
        before = self._endpoints.get(key)
        self._compute(key)
        after = self._endpoints[key]
        if after != before:
            self.control.want_endpoints(key, self._renderer.endpoints(self.ir.revisions[key], after))
            self._wake()

    def _tell(self, key: str) -> None:
        """Tell the activator of the revision and its pods. An address that two live pods claim is nobody's."""
        pods = [
            msgspec.structs.replace(pod, address="") if self._pods.is_contested(pod.address) else pod
            for pod in self._pods.of(key).values()
        ]
        self._activator.update(self.ir.revisions[key].config, pods)

    def _compute(self, key: str) -> None:
        pods = self._pods.of(key)
        self._refreshing.add(key)  # asking the activator may make it call us
        try:
            ready = self._activator.ready(key)
            self._trusted -= ready
            endpoints = endpoints_of(
                self.ir.revisions[key],
                pods.values(),
                ready=ready | (self._trusted & pods.keys()),
                listed=self._listed.get(key, set()),
                contested={pod.address for pod in pods.values() if self._pods.is_contested(pod.address)},
                in_flight=self._activator.in_flight,
            )
        finally:
            self._refreshing.discard(key)
        self._endpoints[key] = endpoints
        self._listed[key] = {row.uid for row in (*endpoints.healthy, *endpoints.draining)}

    def _publish(self) -> None:
        for level in (self._endpoints, self._listed):
            for key in level.keys() - self.ir.revisions.keys():
                del level[key]
        self.control.want(self._renderer.snapshot(self.ir, self._endpoints))
        self._wake()

    # Envoy

    def answered(self, answer: Answer) -> None:
        """Envoy acknowledged or refused something."""
        if answer.type_url == LISTENER_TYPE and answer.refused:
            self.set_pod_network(self._told_pod_network)
        if answer.type_url == ENDPOINT_TYPE and answer.acked:
            for key in answer.names:
                self._note_off(key)

    def connected(self) -> None:
        """A new stream from Envoy."""
        self._tracker.reset()

    def loaded(self, loads: Mapping[str, ClusterLoad]) -> None:
        """A load report."""
        self.loads = loads
        self._tracker.reported()
        for key, cluster in self.ir.revisions.items():
            if cluster.mode is Mode.LIMITED and self._activator.ready(key) - self._listed.get(key, set()):
                self.refresh(key)
        self._wake()

    def _note_off(self, key: str) -> None:
        known = self.control.endpoints.known.get(key)
        if known is None or not isinstance(known.source, Endpoints):
            return
        healthy = {row.uid for row in known.source.healthy}
        for uid in self._pods.of(key):
            self._tracker.acked(uid, healthy=uid in healthy)

    def listening(self) -> bool:
        """Envoy has both entrances with their routes."""
        listeners, routes = self.control.listeners.applier.acked, self.control.known_routes
        return all(name in listeners and name in routes for name in (names.PUBLIC, names.LOCAL))

    # Levels

    def programmed(self) -> Programmed:
        """Routes that Envoy serves exactly as they are."""
        missing = {
            host.route
            for config, hosts in ((names.PUBLIC, self.ir.public), (names.LOCAL, self.ir.local))
            for name, host in hosts.items()
            if not self.control.serves(config, name)
        }
        return Programmed({key: hash_ for key, hash_ in self.ir.routes.items() if key not in missing})

    def cold(self) -> ColdRevisions:
        """Revisions whose new requests all go to the activator."""
        return ColdRevisions(
            frozenset(
                key
                for key, item in self.control.endpoints.known.items()
                if key in self.ir.revisions and isinstance(item.source, Endpoints) and item.source.cold
            )
        )

    def drains(self) -> Drains:
        """Pods that leave. One of which Envoy never heard is off from the start.

        A revision that is gone has no row to look at: its cluster goes when nothing runs on it, and until then
        its pods are not off.
        """
        self._tracker.keep(self._pods.uids())
        rows = {}
        for key, pod in self._pods.leaving():
            if key not in self.ir.revisions:
                gone = key not in self.control.clusters.known
                rows[pod.uid] = PodDrain(acked=gone, in_flight=self._activator.in_flight(pod.uid))
                continue
            self._note_off(key)
            load = self.loads.get(key)
            running = load.by_address.get(pod.address, 0) if load else 0
            in_flight = running + self._activator.in_flight(pod.uid)
            rows[pod.uid] = self._tracker.drain(pod.uid, in_flight=in_flight)
        return Drains(rows)

    @property
    def is_draining(self) -> bool:
        return bool(self._pods.leaving())

    # Inside

    def _port(self, key: str) -> int:
        cluster = self.ir.revisions.get(key)
        if cluster is not None:
            return cluster.config.port
        revision = self._revisions.get(key)
        try:
            return revision_cluster(revision)[0].config.port if revision else 8080
        except ValueError:
            return 8080

    def _uid(self, key: str) -> str | None:
        revision = self._revisions.get(key)
        return revision.metadata.uid if revision is not None else None

    def _is_wanted(self, key: str) -> bool:
        """The revision belongs into the table: it has pods, or a Route names it."""
        if key not in self._revisions:
            return key in self.ir.revisions
        return bool(self._pods.of(key)) or any(
            target.revision == key
            for hosts in (self.ir.public, self.ir.local)
            for host in hosts.values()
            for target in host.targets()
        )

    def _busy(self, cluster: str) -> bool:
        load = self.loads.get(cluster)
        return bool(load and load.in_progress) or self._activator.held(cluster) > 0

    def _draining(self, cluster: str) -> bool:
        known = self.control.endpoints.known.get(cluster)
        return known is not None and isinstance(known.source, Endpoints) and bool(known.source.draining)


def _serving(revision: Revision) -> tuple[Any, ...]:
    """What of a Revision decides how it is served."""
    return (revision.metadata.uid, revision.spec, revision.metadata.annotations)
