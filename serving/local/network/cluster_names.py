"""What cluster-local names mean to pods: Routes, their tags, Services. Pure.

A Route's names, and those of its tags, lead to the gateway, whatever placeholder Service there may be beside
them. Other Services: ExternalName is an alias; any other kind stands for the ready addresses of its
EndpointSlices, since there is no proxy behind a cluster IP here. `kubernetes.default.svc` leads to the API server.
"""

from __future__ import annotations

from collections.abc import Mapping

from serving.api.meta import Model, ObjectMeta
from serving.api.routing import DEFAULT_CLUSTER_DOMAIN, DEFAULT_TAG_TEMPLATE, tag_name
from serving.api.v1 import Route
from serving.local.network.resolver import MISSING, Found

_SERVICE_NAME = "kubernetes.io/service-name"
_KUBERNETES = ("default", "kubernetes")


class ServiceSpec(Model, frozen=True, kw_only=True):
    type: str = "ClusterIP"
    external_name: str = ""


class CoreService(Model, frozen=True, kw_only=True):
    """A Kubernetes Service, as far as names go."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ServiceSpec = ServiceSpec()


class EndpointConditions(Model, frozen=True, kw_only=True):
    ready: bool | None = None


class SliceEndpoint(Model, frozen=True, kw_only=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""


class EndpointSlice(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    address_type: str = "IPv4"
    endpoints: tuple[SliceEndpoint, ...] = ()


_Name = tuple[str, str]
"""(namespace, name)."""


class ClusterNames:
    """`gateway` and `kubernetes` are the pods' addresses of both, empty while there are none."""

    def __init__(self, *, cluster_domain: str = DEFAULT_CLUSTER_DOMAIN) -> None:
        self.gateway = ""
        self.kubernetes = ""
        self._domain = cluster_domain
        self._tag_template = DEFAULT_TAG_TEMPLATE
        self._routes: dict[str, Route] = {}
        self._claims: dict[_Name, set[str]] = {}
        self._services: dict[_Name, CoreService] = {}
        self._slices: dict[_Name, dict[str, EndpointSlice]] = {}

    # What there is

    def set_tag_template(self, template: str) -> None:
        """`tag-template` of config-network."""
        if template != self._tag_template:
            self._tag_template = template
            self._claims = {}
            for key, route in self._routes.items():
                self._claim(key, route)

    def set_route(self, key: str, route: Route | None) -> None:
        former = self._routes.pop(key, None)
        for name in self._names(former) if former is not None else ():
            claims = self._claims.get(name, set())
            claims.discard(key)
            if not claims:
                self._claims.pop(name, None)
        if route is not None:
            self._routes[key] = route
            self._claim(key, route)

    def set_service(self, key: str, service: CoreService | None) -> None:
        namespace, _, name = key.partition("/")
        if service is None:
            self._services.pop((namespace, name), None)
        else:
            self._services[namespace, name] = service

    def set_slice(self, key: str, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if old is not None:
            owner = _owner(old)
            rows = self._slices.get(owner, {})
            rows.pop(key, None)
            if not rows:
                self._slices.pop(owner, None)
        if new is not None:
            self._slices.setdefault(_owner(new), {})[key] = new

    # What it means

    def lookup(self, name: str) -> Found | None:
        """See `resolver.Lookup`. Everything below the cluster domain is ours."""
        suffix = f".{self._domain}"
        if not name.endswith(suffix):
            return MISSING if name == self._domain else None
        labels = name.removesuffix(suffix).split(".")
        if labels == ["svc"]:
            return Found()
        if labels[-1] != "svc" or len(labels) not in (2, 3, 4):
            return MISSING
        if len(labels) == 2:
            return Found() if self._has_namespace(labels[0]) else MISSING
        host, (service, namespace) = labels[:-3], labels[-3:-1]
        return self._host(host[0], (namespace, service)) if host else self._service((namespace, service))

    def _service(self, name: _Name) -> Found:
        if name in self._claims and self.gateway:
            return Found(addresses=(self.gateway,))
        if name == _KUBERNETES and self.kubernetes:
            return Found(addresses=(self.kubernetes,))
        service = self._services.get(name)
        if service is None:
            return MISSING
        if service.spec.type == "ExternalName":
            return Found(alias=service.spec.external_name)
        return Found(addresses=self._addresses(name))

    def _host(self, host: str, name: _Name) -> Found:
        """One endpoint of a Service, by its host name."""
        addresses = self._addresses(name, host=host)
        return Found(addresses=addresses) if addresses else MISSING

    def _addresses(self, name: _Name, *, host: str | None = None) -> tuple[str, ...]:
        found = {
            address
            for piece in self._slices.get(name, {}).values()
            if piece.address_type == "IPv4"
            for endpoint in piece.endpoints
            if endpoint.conditions.ready is not False and (host is None or endpoint.hostname == host)
            for address in endpoint.addresses
        }
        return tuple(sorted(found))

    def _has_namespace(self, namespace: str) -> bool:
        known: tuple[Mapping[_Name, object], ...] = (self._claims, self._services)
        return any(name[0] == namespace for names in known for name in names)

    # Inside

    def _claim(self, key: str, route: Route) -> None:
        for name in self._names(route):
            self._claims.setdefault(name, set()).add(key)

    def _names(self, route: Route) -> set[_Name]:
        meta = route.metadata
        tags = {target.tag for target in route.status.traffic if target.tag}
        names = {tag_name(tag, meta.name, template=self._tag_template) for tag in tags} | {meta.name}
        return {(meta.namespace, name) for name in names}


def _owner(piece: EndpointSlice) -> _Name:
    return piece.metadata.namespace, piece.metadata.labels.get(_SERVICE_NAME, "")
