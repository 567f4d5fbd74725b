"""The DomainMapping side of the controller: references, claims and status of each mapping. Shell."""

from __future__ import annotations

from collections.abc import Callable

from serving.api import timestamps
from serving.api.config.store import ApiConfig
from serving.api.resources import DOMAIN_CLAIMS, DOMAIN_MAPPINGS, KSERVICES, ROUTES, SERVICES, Resource
from serving.api.routing import mapping_hash
from serving.api.v1 import Address, Service
from serving.api.v1beta1 import ClusterDomainClaim, DomainMapping
from serving.controller.domain_mapping import Referent, finalize_domain_mapping, reconcile_domain_mapping
from serving.controller.executor import carry_out
from serving.controller.index import KeyIndex
from serving.controller.routes import Routes
from serving.controller.shared import Shared
from serving.kube.informer import Informer
from serving.kube.queue import WorkQueue


class DomainMappings:
    """`programmed` tells whether all gateways serve a mapping's key with a hash; None = not known."""

    def __init__(
        self,
        shared: Shared,
        routes: Routes,
        *,
        ksvc: Callable[[str], Service | None],
        config: Callable[[], ApiConfig],
        programmed: Callable[[str, str], bool | None],
    ) -> None:
        self.informer: Informer[DomainMapping] = Informer(shared.client, DOMAIN_MAPPINGS, DomainMapping)
        self.claims: Informer[ClusterDomainClaim] = Informer(shared.client, DOMAIN_CLAIMS, ClusterDomainClaim)
        guarded = shared.malformed.guarded(DOMAIN_MAPPINGS, self._reconcile)
        self.queue = WorkQueue("domain mapping", guarded, concurrency=4)
        self._client = shared.client
        self._routes = routes
        self._ksvc = ksvc
        self._config = config
        self._programmed = programmed
        self._now = shared.now
        self._events = shared.events
        self._by_domain = KeyIndex()
        self._by_referent = KeyIndex()

    def subscribe(self) -> None:
        """Follow the informers. Call once, before they run."""
        self.informer.subscribe(self._mapping_changed)
        self.claims.subscribe(lambda key, old, new: self._add(self._by_domain.users(key)))

    def config_changed(self) -> None:
        for mapping in self.informer.all():
            self.queue.add(mapping.metadata.key)

    def referent_changed(self, key: str) -> None:
        """A Service, Route or Kubernetes Service with this key came, changed or went."""
        self._add(self._by_referent.users(key))

    def _add(self, mappings: frozenset[str]) -> None:
        for key in mappings:
            self.queue.add(key)

    def _mapping_changed(self, key: str, old: DomainMapping | None, new: DomainMapping | None) -> None:
        self.queue.add(key)
        if new is None:
            self._by_domain.put(key, frozenset())
            self._by_referent.put(key, frozenset())
            return
        self._by_domain.put(key, frozenset({new.metadata.name}))
        ref = new.spec.ref
        self._by_referent.put(key, frozenset({f"{ref.namespace or new.metadata.namespace}/{ref.name}"}))

    async def _reconcile(self, key: str) -> None:
        mapping = self.informer.get(key)
        if mapping is None:
            return
        network = self._config().network
        claim = self.claims.get(mapping.metadata.name)
        autocreate = network.autocreate_cluster_domain_claims
        if mapping.metadata.deletion_timestamp is not None:
            writes = finalize_domain_mapping(mapping, claim=claim, autocreate=autocreate)
        else:
            writes = reconcile_domain_mapping(
                mapping,
                claim=claim,
                referent=self._referent(mapping),
                autocreate=autocreate,
                scheme=network.default_external_scheme,
                host_owner=self._routes.hosts.owner(mapping.metadata.name),
                programmed=self._programmed(mapping.programmed_key, mapping_hash(mapping)),
                now=timestamps.format_seconds(self._now()),
            )
        await carry_out(self._client, writes, about=(DOMAIN_MAPPINGS, mapping.metadata), events=self._events)

    def _referent(self, mapping: DomainMapping) -> Referent:
        ref, namespace = mapping.spec.ref, mapping.metadata.namespace
        key = f"{ref.namespace or namespace}/{ref.name}"
        match (ref.api_version, ref.kind):
            case (KSERVICES.api_version, "Service"):
                ksvc = self._ksvc(key)
                address = ksvc.status.address if ksvc is not None else None
                return _addressed(key, KSERVICES, exists=ksvc is not None, address=address)
            case (ROUTES.api_version, "Route"):
                route = self._routes.informer.get(key)
                address = route.status.address if route is not None else None
                return _addressed(key, ROUTES, exists=route is not None, address=address)
            case (SERVICES.api_version, "Service"):
                service = self._routes.services.get(key)
                if service is None:
                    return Referent(error=f'failed to get object {key}: services "{ref.name}" not found')
                name, tag = self._routes.behind(service) or ("", "")
                target = f"{name}/{tag}" if tag else name
                host = f"{ref.name}.{service.metadata.namespace}.svc.cluster.local"
                return Referent(url=f"http://{host}", target=target)
            case _:
                return Referent(error=f"{ref.kind} of {ref.api_version} has no address that is known here")


def _addressed(key: str, resource: Resource, *, exists: bool, address: Address | None) -> Referent:
    name, kinds = key.partition("/")[2], f"{resource.plural}.{resource.group}"
    if not exists:
        return Referent(error=f'failed to get object {key}: {kinds} "{name}" not found')
    if address is None or not address.url:
        return Referent(error=f"address not set for {kinds} {key}")
    return Referent(url=address.url, target=name)
