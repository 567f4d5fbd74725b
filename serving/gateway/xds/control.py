"""What to send to Envoy next, and what Envoy has. Pure; one stream at a time.

Order, make before break:

1. A cluster that is new goes out at once; Envoy then subscribes to its endpoints.
2. A virtual host goes out only when every cluster that it names, with its endpoints, was acknowledged. Until
   then Envoy keeps the virtual host's last version.
3. A cluster is removed only when no virtual host that Envoy has, or may be about to have, names it, and nothing
   runs on it. A cluster with draining pods is not changed: its load reports would vanish.

When a stream opens, Envoy says which versions it has. Versions are content hashes, so after a restart of the
agent nothing is sent that Envoy already has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from serving.gateway.xds.applier import Refusal
from serving.gateway.xds.collection import Collection
from serving.gateway.xds.snapshot import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    Item,
    Snapshot,
    route_configuration,
    version_of,
)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A DeltaDiscoveryRequest as far as it matters. `first` of its type on its stream. `error` is None for an
    ACK or a mere subscription."""

    type_url: str
    first: bool = False
    subscribe: Sequence[str] = ()
    unsubscribe: Sequence[str] = ()
    initial_versions: Mapping[str, str] = {}
    nonce: str = ""
    error: str | None = None


class Resource(msgspec.Struct, frozen=True):
    name: str
    version: str
    data: bytes


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A DeltaDiscoveryResponse."""

    type_url: str
    nonce: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a request taught us. `refused`: names that are at fault for a NACK."""

    type_url: str
    acked: bool = False
    names: frozenset[str] = frozenset()
    refused: tuple[str, ...] = ()
    error: str = ""


class Control:
    """`busy(cluster)`: requests may still run on it, do not remove it. `draining(cluster)`: do not change it."""

    def __init__(
        self,
        *,
        busy: Callable[[str], bool] = lambda _name: False,
        draining: Callable[[str], bool] = lambda _name: False,
    ) -> None:
        self.clusters = Collection()
        self.endpoints = Collection()
        self.listeners = Collection()
        self.hosts: dict[str, Collection] = {}
        self._bases: dict[str, bytes] = {}
        self._fixed: frozenset[str] = frozenset()
        self._busy = busy
        self._draining = draining
        self._subscribed: dict[str, set[str]] = {}
        self._open: set[str] = set()
        self._unknown: set[str] = set()
        self._under_way: dict[str, tuple[str, Collection]] = {}
        self._nonces = 0
        self._named: frozenset[str] | None = None

    # What should be

    def want(self, snapshot: Snapshot) -> None:
        """Everything. What is gone from the snapshot is removed in its order."""
        self._bases = dict(snapshot.bases)
        self._fixed = frozenset(snapshot.fixed_clusters)
        self.clusters.want_all(snapshot.clusters | snapshot.fixed_clusters)
        subscribed = self._subscribed.get(ENDPOINT_TYPE, set())
        self.endpoints.want_all(snapshot.endpoints, keep=subscribed.__contains__)
        self.listeners.want_all(snapshot.listeners)
        for name in snapshot.virtual_hosts.keys() | self.hosts.keys():
            self.hosts.setdefault(name, Collection()).want_all(snapshot.virtual_hosts.get(name, {}))
        self._named = None

    def want_endpoints(self, name: str, item: Item) -> None:
        """Endpoints of one cluster."""
        self.endpoints.want(name, item)

    # The stream

    def opened(self) -> None:
        """A new stream replaces the last one; nothing is subscribed yet."""
        self._subscribed, self._open, self._under_way = {}, set(), {}
        self._unknown = set(self.hosts)
        for collection in (self.clusters, self.endpoints, self.listeners, *self.hosts.values()):
            collection.reset({})
        self._named = None

    def receive(self, request: Request) -> Answer:
        if request.first:
            self._begin(request)
        else:
            self._subscribe(request)
        self._named = None
        under_way = self._under_way.pop(request.nonce, None) if request.nonce else None
        if under_way is None:
            return Answer(type_url=request.type_url)
        _type, collection = under_way
        if request.error is None:
            return self._acked(request.type_url, collection)
        names = frozenset(collection.sent)
        refused = collection.nack(request.error)
        return Answer(type_url=request.type_url, names=names, refused=tuple(refused), error=request.error)

    def pending(self) -> list[Response]:
        """What to send now. Each returned response is under way until its nonce comes back."""
        responses = [
            *self._plain(CLUSTER_TYPE, self.clusters, self._may_cluster),
            *self._plain(ENDPOINT_TYPE, self.endpoints, self._may_endpoints),
            *self._plain(LISTENER_TYPE, self.listeners, lambda _name: True),
        ]
        for name in sorted(self.hosts):
            responses += self._routes(name, self.hosts[name])
        return responses

    # What is

    def ready(self, cluster: str) -> bool:
        """Envoy has the cluster and its endpoints, and keeps them: a route may name it."""
        if cluster not in self.clusters.applier.acked or self._is_leaving(cluster):
            return False
        return cluster in self._fixed or cluster in self.endpoints.applier.acked

    def serves(self, config: str, host: str) -> bool:
        """Envoy has the virtual host as it is wanted."""
        collection = self.hosts.get(config)
        wanted = collection.wanted.get(host) if collection else None
        if collection is None or wanted is None or config in self._unknown:
            return False
        return collection.applier.acked.get(host) == wanted.version

    @property
    def known_routes(self) -> frozenset[str]:
        """Route configurations that Envoy acknowledged."""
        return frozenset(self.hosts) - self._unknown

    def refusals(self) -> dict[tuple[str, str], Refusal]:
        """What Envoy refused and is left out, by type and name."""
        kinds = [
            (CLUSTER_TYPE, self.clusters),
            (ENDPOINT_TYPE, self.endpoints),
            (LISTENER_TYPE, self.listeners),
            *((ROUTE_TYPE, hosts) for hosts in self.hosts.values()),
        ]
        return {
            (kind, name): refusal
            for kind, collection in kinds
            for name, refusal in collection.applier.refused.items()
        }

    # Inside

    def _begin(self, request: Request) -> None:
        kind = request.type_url
        self._open.add(kind)
        self._subscribed[kind] = set(request.subscribe) - {"*"}
        initial = request.initial_versions
        match kind:
            case _ if kind == CLUSTER_TYPE:
                self.clusters.reset(initial)
            case _ if kind == ENDPOINT_TYPE:
                self.endpoints.reset(initial)
            case _ if kind == LISTENER_TYPE:
                self.listeners.reset(initial)
            case _ if kind == ROUTE_TYPE:
                for name, version in initial.items():
                    self._adopt_routes(name, version)

    def _subscribe(self, request: Request) -> None:
        names = self._subscribed.setdefault(request.type_url, set())
        for name in request.subscribe:
            names.add(name)
            if request.type_url == ENDPOINT_TYPE:
                self.endpoints.applier.touch(name)
            elif request.type_url == ROUTE_TYPE and name in self.hosts:
                self._restart_routes(name)
        for name in request.unsubscribe:
            names.discard(name)
            if request.type_url == ENDPOINT_TYPE:
                self.endpoints.forget(name)
                if name not in self.clusters.wanted:
                    self.endpoints.want(name, None)

    def _restart_routes(self, name: str) -> None:
        """Envoy asks for a route configuration anew and has nothing of it."""
        collection = self.hosts[name]
        collection.reset({})
        self._unknown.add(name)
        self._under_way = {nonce: sent for nonce, sent in self._under_way.items() if sent[1] is not collection}

    def _adopt_routes(self, name: str, version: str) -> None:
        """Envoy has a route configuration. If it is exactly the wanted one, nothing need be sent."""
        collection = self.hosts.get(name)
        if collection is None or name not in self._bases:
            return
        if version_of(route_configuration(self._bases[name], collection.wanted)) == version:
            collection.reset({host: item.version for host, item in collection.wanted.items()})
            self._unknown.discard(name)

    def _acked(self, kind: str, collection: Collection) -> Answer:
        change = collection.ack()
        for name, hosts in self.hosts.items():
            if hosts is collection:
                self._unknown.discard(name)
        return Answer(type_url=kind, acked=True, names=frozenset(change.puts) | change.removals)

    def _plain(self, kind: str, collection: Collection, may: Callable[[str], bool]) -> list[Response]:
        if kind not in self._open:
            return []
        change = collection.next(may)
        if change is None:
            return []
        if collection is self.clusters:
            # A changed cluster warms up again. It waits for its endpoints, which Envoy does not ask for again,
            # and acknowledges the cluster only then.
            for name in change.puts.keys() & self.endpoints.applier.acked.keys():
                self.endpoints.applier.touch(name)
        resources = tuple(
            Resource(name, version, collection.sent[name].data) for name, version in sorted(change.puts.items())
        )
        return [self._send(kind, collection, resources, tuple(sorted(change.removals)))]

    def _routes(self, name: str, collection: Collection) -> list[Response]:
        if name not in self._subscribed.get(ROUTE_TYPE, ()) or name not in self._bases:
            return []
        if name in self._unknown and not all(map(self._decided, collection.wanted.values())):
            return []
        change = collection.next(lambda host: self._may_host(collection, host))
        if change is None:
            return []
        hosts = {host: item for host, item in collection.known.items() if host not in change.removals}
        data = route_configuration(self._bases[name], hosts | collection.sent)
        self._named = None
        return [self._send(ROUTE_TYPE, collection, (Resource(name, version_of(data), data),))]

    def _send(
        self, kind: str, collection: Collection, resources: tuple[Resource, ...], removed: tuple[str, ...] = ()
    ) -> Response:
        self._nonces += 1
        nonce = str(self._nonces)
        self._under_way[nonce] = (kind, collection)
        return Response(type_url=kind, nonce=nonce, resources=resources, removed=removed)

    def _may_endpoints(self, name: str) -> bool:
        wanted = name in self.endpoints.wanted and name in self.clusters.wanted
        return wanted and name in self._subscribed[ENDPOINT_TYPE] and not self._is_leaving(name)

    def _is_leaving(self, cluster: str) -> bool:
        """Its removal is under way, although it may be wanted again meanwhile."""
        change = self.clusters.applier.in_flight
        return change is not None and cluster in change.removals

    def _may_host(self, collection: Collection, host: str) -> bool:
        item = collection.wanted.get(host)
        return item is None or all(map(self.ready, item.refs))

    def _decided(self, host: Item) -> bool:
        """The virtual host can be sent, or never will be because Envoy refused a cluster of it."""
        refused = (self.clusters.applier.refused, self.endpoints.applier.refused)
        return all(self.ready(ref) or any(ref in kind for kind in refused) for ref in host.refs)

    def _may_cluster(self, name: str) -> bool:
        if name in self.clusters.wanted:
            return name not in self.clusters.applier.acked or not self._draining(name)
        return not self._unknown and name not in self._named_clusters() and not self._busy(name)

    def _named_clusters(self) -> frozenset[str]:
        """Clusters that some virtual host names: wanted, under way, or in Envoy."""
        if self._named is None:
            self._named = frozenset(
                ref
                for collection in self.hosts.values()
                for items in (collection.wanted, collection.sent, collection.known)
                for item in items.values()
                for ref in item.refs
            )
        return self._named
