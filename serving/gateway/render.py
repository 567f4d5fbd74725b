"""IR to a snapshot of Envoy resources, doing again only what changed. Pure apart from its cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from serving.api.podnetwork import PodNetworkFacts
from serving.gateway.ir import Endpoints, Ir, RequestLog, RevisionCluster, VirtualHost
from serving.gateway.translate import names
from serving.gateway.translate.activator_listener import activator_listener
from serving.gateway.translate.clusters import release_cluster, revision_cluster
from serving.gateway.translate.endpoints import load_assignment
from serving.gateway.translate.listeners import Entrance, entrance
from serving.gateway.translate.pod_entrances import api_cluster, pod_entrances
from serving.gateway.translate.proto import serialize
from serving.gateway.translate.routes import (
    UNKNOWN_HOST,
    clusters_of,
    route_configuration,
    unknown_host,
    virtual_host,
)
from serving.gateway.xds.snapshot import Item, Snapshot, item

_PROTOCOLS: Final = (False, True)


class Renderer:
    """`nonce`: secret of this boot of Envoy (see translate/routes.py). `api`: where the API server is, for
    pods."""

    def __init__(self, *, nonce: str, entrances: Sequence[Entrance], api: tuple[str, int] | None = None) -> None:
        self._nonce = nonce
        self._has_api = api is not None
        self._hosts: dict[str, Item] = {}
        self._clusters: dict[str, Item] = {}
        self._endpoints: dict[str, tuple[int | None, Item]] = {}
        self._unknown = item(unknown_host())
        self._bases = {name: serialize(route_configuration(name)) for name in (names.PUBLIC, names.LOCAL)}
        self._fixed = {names.activator_name(h2c=h2c): item(release_cluster(h2c=h2c)) for h2c in _PROTOCOLS}
        self._entrances = tuple(entrances)
        self._network: PodNetworkFacts | None = None
        self._request_log: RequestLog | None = None
        self._listeners = self._fixed_listeners()
        self._pod_listeners: dict[str, Item] = {}
        if api is not None:
            self._fixed[names.KUBERNETES] = item(api_cluster(*api))

    def set_pod_network(self, network: PodNetworkFacts | None) -> None:
        """Where pods of this machine come in."""
        self._network = network
        self._pod_listeners = {}
        if network is not None:
            listeners = pod_entrances(network, api=self._has_api, request_log=self._request_log)
            self._pod_listeners = {listener.name: item(listener) for listener in listeners}

    def set_request_log(self, log: RequestLog | None) -> None:
        """Whether and how requests are logged."""
        if log != self._request_log:
            self._request_log = log
            self._listeners = self._fixed_listeners()
            self.set_pod_network(self._network)

    def _fixed_listeners(self) -> dict[str, Item]:
        log = self._request_log
        listeners = {
            names.activator_name(h2c=h2c): item(
                activator_listener(h2c=h2c, nonce=self._nonce, tell_pod=log is not None)
            )
            for h2c in _PROTOCOLS
        }
        logged = (msgspec.structs.replace(at, request_log=log) for at in self._entrances)
        return listeners | {at.name: item(entrance(at)) for at in logged}

    def snapshot(self, ir: Ir, endpoints: Mapping[str, Endpoints]) -> Snapshot:
        """Everything. `endpoints` by revision key; a revision without has no pods."""
        self._clusters = {key: self._cluster(cluster) for key, cluster in ir.revisions.items()}
        self._endpoints = {key: row for key, row in self._endpoints.items() if key in ir.revisions}
        public = self._virtual_hosts(names.PUBLIC, ir.public)
        local = self._virtual_hosts(names.LOCAL, ir.local)
        self._hosts = {f"{names.PUBLIC} {name}": host for name, host in public.items()}
        self._hosts |= {f"{names.LOCAL} {name}": host for name, host in local.items()}
        unknown = {UNKNOWN_HOST: self._unknown}
        return Snapshot(
            clusters=self._clusters,
            endpoints={
                key: self.endpoints(cluster, endpoints.get(key) or Endpoints(revision=key, h2c=cluster.config.h2c))
                for key, cluster in ir.revisions.items()
            },
            listeners=self._listeners | self._pod_listeners,
            virtual_hosts={names.PUBLIC: public | unknown, names.LOCAL: local | unknown},
            bases=self._bases,
            fixed_clusters=self._fixed,
        )

    def endpoints(self, cluster: RevisionCluster, endpoints: Endpoints) -> Item:
        per_host = cluster.per_host_connections
        known = self._endpoints.get(cluster.key)
        if known is None or known[0] != per_host or known[1].source != endpoints:
            known = (per_host, item(load_assignment(endpoints, per_host=per_host), source=endpoints))
            self._endpoints[cluster.key] = known
        return known[1]

    def _cluster(self, cluster: RevisionCluster) -> Item:
        known = self._clusters.get(cluster.key)
        if known is not None and known.source == cluster:
            return known
        return item(revision_cluster(cluster), source=cluster)

    def _virtual_hosts(self, config: str, hosts: Mapping[str, VirtualHost]) -> dict[str, Item]:
        items: dict[str, Item] = {}
        for name, host in hosts.items():
            known = self._hosts.get(f"{config} {name}")
            if known is not None and known.source == host:
                items[name] = known
            else:
                items[name] = item(virtual_host(host, nonce=self._nonce), refs=clusters_of([host]), source=host)
        return items
