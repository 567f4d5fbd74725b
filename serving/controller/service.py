"""The controller process: informers in, decisions of the pure modules, writes out.

One queue per kind; an event only adds keys. Everything in memory here is a cache of the API server, or soft state
of the autoscaler that the next reports refill.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable

from prometheus_client import REGISTRY, CollectorRegistry

from serving.api import keys
from serving.api.pod import Pod
from serving.api.reports import (
    ColdRevisions,
    Demand,
    Drains,
    GatewayMessage,
    Hello,
    Poke,
    Programmed,
    Settings,
)
from serving.api.resources import CONFIGURATIONS, LEASES, NODES, PODS, REVISIONS
from serving.api.v1 import Configuration, Revision, Route
from serving.autoscaler.service import Autoscaler
from serving.controller.configurations import Configurations, ConfigurationSources
from serving.controller.digests import DigestResolver
from serving.controller.domain_mappings import DomainMappings
from serving.controller.gateways import GatewayReports
from serving.controller.index import (
    Index,
    configuration_of_revision,
    revision_named_by_configuration,
    revision_of_pod,
    targets_of_route,
    uids_of_pod,
)
from serving.controller.ksvcs import Ksvcs, KsvcSources
from serving.controller.reports_server import ReportsServer
from serving.controller.revisions import Revisions, Sources
from serving.controller.routes import Routes, RouteSources
from serving.controller.settings import ControllerSettings
from serving.controller.shared import Shared
from serving.kube.client import KubeClient
from serving.kube.configmaps import LiveConfig
from serving.kube.informer import Informer
from serving.kube.lease import ADDRESS_ANNOTATION, COMPONENT_LABEL, Elector, Lease, LeaseObserver
from serving.pool.placement import Node
from serving.pool.usage import NodeUsage

__all__ = ["Controller", "ControllerSettings", "run"]

log = logging.getLogger(__name__)

LEASE_NAME = "nodeless-controller-00"


async def run(
    settings: ControllerSettings,
    *,
    client: KubeClient,
    resolver: DigestResolver,
    now: Callable[[], float],
    started: Callable[[], None],
    registry: CollectorRegistry = REGISTRY,
) -> None:
    """Serve until cancelled: stand by, and lead while the Lease is ours. `started`: leading, and synced."""
    elector = Elector(
        client,
        name=LEASE_NAME,
        identity=settings.identity,
        now=now,
        annotations={ADDRESS_ANNOTATION: settings.advertise},
    )

    async def lead() -> None:
        controller = Controller(settings, client=client, resolver=resolver, now=now)
        registry.register(controller.autoscaler)
        try:
            await controller.run(started)
        finally:
            registry.unregister(controller.autoscaler)

    await elector.lead(lead)


class Controller:
    """Everything that the leader does. Made anew for each term."""

    def __init__(
        self,
        settings: ControllerSettings,
        *,
        client: KubeClient,
        resolver: DigestResolver,
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._client = client
        self._now = now
        self._configurations: Informer[Configuration] = Informer(client, CONFIGURATIONS, Configuration)
        self._revisions: Informer[Revision] = Informer(client, REVISIONS, Revision)
        self._pods: Informer[Pod] = Informer(client, PODS, Pod, label_selector=keys.REVISION)
        self._nodes: Informer[Node] = Informer(client, NODES, Node)
        self._leases: Informer[Lease] = Informer(
            client, LEASES, Lease, namespace=keys.SYSTEM_NAMESPACE, label_selector=f"{COMPONENT_LABEL}=gateway"
        )
        self._config = LiveConfig(client, changed=self._config_changed)
        self._observer = LeaseObserver(self._leases)
        self._alive: frozenset[str] = frozenset()
        self._expiry: asyncio.TimerHandle | None = None
        self._reports = GatewayReports()
        self._shared = Shared(client, now=now)
        self._usage = NodeUsage()
        self._pods_by_revision: Index[Pod] = Index(revision_of_pod)
        self._pods_by_uid: Index[Pod] = Index(uids_of_pod)
        self._configurations_by_name: Index[Configuration] = Index(revision_named_by_configuration)
        self._revisions_by_configuration: Index[Revision] = Index(configuration_of_revision)
        self._routes_by_target: Index[Route] = Index(targets_of_route)
        self._configuration_part = Configurations(
            self._shared,
            ConfigurationSources(
                configuration=self._configurations.get,
                revision=self._revisions.get,
                revisions_of=self._revisions_by_configuration.get,
                routes_of=self._routes_of_targets,
                gc=lambda: self._config.value.gc,
            ),
        )
        self._route_part = Routes(
            self._shared,
            RouteSources(
                configuration=self._configurations.get,
                revision=self._revisions.get,
                config=lambda: self._config.value,
                programmed=self._programmed,
            ),
            gateway=settings.cluster_gateway,
        )
        self._ksvc_part = Ksvcs(
            self._shared,
            KsvcSources(
                configuration=self._configurations.get,
                route=self._route_part.informer.get,
                revision=self._revisions.get,
                config=lambda: self._config.value,
            ),
        )
        self._mapping_part = DomainMappings(
            self._shared,
            self._route_part,
            ksvc=self._ksvc_part.informer.get,
            config=lambda: self._config.value,
            programmed=self._programmed,
        )
        self._server = ReportsServer(
            token=settings.token,
            settings=Settings(report_interval_seconds=settings.report_interval_seconds),
            on_message=self._on_message,
        )
        sources = Sources(
            revision=self._revisions.get,
            configuration=self._configurations.get,
            routes_of=self._routes_of,
            pod=self._pods.get,
            pods=self._pods_of,
            all_pods=self._pods.all,
            usage=lambda: self._usage.by_node,
            nodes=lambda: list(self._nodes.all()),
            gateways=lambda: self._alive,
            config=lambda: self._config.value,
        )
        self._revision_part = Revisions(
            self._shared,
            sources,
            self._reports,
            resolver=resolver,
            created=self._server.broadcast,
        )
        self._synced = False

    @property
    def autoscaler(self) -> Autoscaler:
        return self._revision_part.autoscaler

    async def run(self, started: Callable[[], None]) -> None:
        """Until cancelled."""
        informers = (
            self._ksvc_part.informer,
            self._configurations,
            self._revisions,
            self._route_part.informer,
            self._route_part.services,
            self._mapping_part.informer,
            self._mapping_part.claims,
            self._pods,
            self._nodes,
            self._leases,
            self._config.informer,
        )
        self._subscribe()
        try:
            async with asyncio.TaskGroup() as group:
                for informer in informers:
                    group.create_task(informer.run(), name=f"informer {informer.resource.plural}")
                for informer in informers:
                    await informer.synced.wait()
                self._synced = True
                self._gateways_changed()
                queues = (
                    self._ksvc_part.queue,
                    self._configuration_part.queue,
                    self._route_part.queue,
                    self._route_part.placeholder_queue,
                    self._mapping_part.queue,
                    self._shared.malformed.queue,
                )
                for queue in queues:
                    group.create_task(queue.run(), name="queue")
                group.create_task(self._shared.events.run(), name="events")
                group.create_task(self._revision_part.run(), name="revisions")
                listening = asyncio.Event()
                group.create_task(self._server.run(self._settings.listen, started=listening.set), name="reports")
                await listening.wait()
                started()
        finally:
            if self._expiry is not None:
                self._expiry.cancel()

    def _subscribe(self) -> None:
        self._shared.malformed.watch(self._ksvc_part.informer, self._configurations, self._revisions)
        self._shared.malformed.watch(self._route_part.informer, self._mapping_part.informer)
        self._ksvc_part.subscribe()
        self._ksvc_part.informer.subscribe(lambda key, old, new: self._mapping_part.referent_changed(key))
        self._configurations.subscribe(self._configuration_changed)
        self._revisions.subscribe(self._revision_changed)
        self._route_part.subscribe()
        self._route_part.informer.subscribe(self._route_changed)
        self._route_part.services.subscribe(lambda key, old, new: self._mapping_part.referent_changed(key))
        self._mapping_part.subscribe()
        self._pods.subscribe(self._pod_changed)
        self._nodes.subscribe(self._node_changed)
        self._leases.subscribe(lambda key, old, new: self._gateways_changed())

    def _configuration_changed(self, key: str, old: Configuration | None, new: Configuration | None) -> None:
        self._configurations_by_name.change(key, old, new)
        self._configuration_part.queue.add(key)
        self._ksvc_part.child_changed(key)
        for route in self._routes_by_target.keys(f"configuration/{key}"):
            self._route_part.queue.add(route)
        for revision in self._revisions_by_configuration.keys(key):
            self._revision_part.queue.add(revision)

    def _revision_changed(self, key: str, old: Revision | None, new: Revision | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._revision_part.forget(key)
        for configuration in self._revisions_by_configuration.change(key, old, new):
            self._configuration_part.queue.add(configuration)
        if old is None or new is None:
            # Somebody's own name for a Revision was taken, or is free again.
            for configuration in self._configurations_by_name.keys(key):
                self._configuration_part.queue.add(configuration)
                self._ksvc_part.queue.add(configuration)
        for route in self._routes_by_target.keys(f"revision/{key}"):
            self._route_part.queue.add(route)
        self._revision_part.queue.add(key)

    def _route_changed(self, key: str, old: Route | None, new: Route | None) -> None:
        self._ksvc_part.child_changed(key)
        self._mapping_part.referent_changed(key)
        for target in self._routes_by_target.change(key, old, new):
            kind, _, name = target.partition("/")
            if kind == "revision":
                self._revision_part.queue.add(name)
                for configuration in self._configurations_of(name):
                    self._configuration_part.queue.add(configuration)
            else:
                self._configuration_part.queue.add(name)
                for revision in self._revisions_by_configuration.keys(name):
                    self._revision_part.queue.add(revision)

    def _configurations_of(self, key: str) -> tuple[str, ...]:
        revision = self._revisions.get(key)
        return () if revision is None else configuration_of_revision(revision)

    def _pod_changed(self, key: str, old: Pod | None, new: Pod | None) -> None:
        self._usage.change(old, new)
        self._pods_by_uid.change(key, old, new)
        for revision in self._pods_by_revision.change(key, old, new):
            self._revision_part.pods_changed(revision)
        if new is not None:
            self._revision_part.pool.leaving(new)

    def _node_changed(self, key: str, old: Node | None, new: Node | None) -> None:
        if self._synced and (old is None or new is None or old.ready != new.ready):
            self._revision_part.pool.all_changed()

    def _config_changed(self) -> None:
        self._route_part.config_changed()
        self._mapping_part.config_changed()
        for configuration in self._configurations.all():
            self._configuration_part.queue.add(configuration.metadata.key)
        for revision in self._revisions.all():
            self._revision_part.queue.add(revision.metadata.key)

    def _gateways_changed(self) -> None:
        """A gateway's Lease came, was renewed, expired or went."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        loop = asyncio.get_running_loop()
        next_expiry = self._observer.next_expiry()
        if next_expiry is not None:
            self._expiry = loop.call_at(next_expiry + 0.01, self._gateways_changed)
        alive = frozenset(self._observer.alive())
        if alive == self._alive or not self._synced:
            self._alive = alive
            return
        log.info("gateways alive: %s", ", ".join(sorted(alive)) or "none")
        for gone in self._alive - alive:
            self._reports.forget(gone)
        self._alive = alive
        self._revision_part.gateways_changed()
        for route in self._route_part.informer.all():
            self._route_part.queue.add(route.metadata.key)
        for mapping in self._mapping_part.informer.all():
            self._mapping_part.queue.add(mapping.metadata.key)

    def _programmed(self, key: str, expected: str) -> bool | None:
        """Whether every live gateway serves a Route or DomainMapping so; None = not known."""
        return self._reports.programmed(key, expected, alive=self._alive)

    def _on_message(self, gateway: str, message: GatewayMessage) -> None:
        match message:
            case Poke():
                self._revision_part.on_poke(message)
            case Demand():
                self._revision_part.on_demand(gateway, message)
            case Drains():
                for uid in self._reports.set_drains(gateway, message):
                    for pod in self._pods_by_uid.get(uid):
                        self._revision_part.pool.leaving(pod)
                        for revision in revision_of_pod(pod):
                            self._revision_part.pool.pods_changed(revision)
            case Programmed():
                for key in self._reports.set_programmed(gateway, message):
                    self._programmed_changed(key)
            case ColdRevisions():
                for revision in self._reports.set_cold(gateway, message):
                    self._revision_part.autoscaler.evaluate(revision)
            case Hello():
                self._reports.hello(message)
            case _:
                log.debug("budget of %s: %s", message.revision, message.stages)

    def _programmed_changed(self, key: str) -> None:
        kind, _, mapping = key.partition("/")
        if kind == "domainmapping" and "/" in mapping:
            self._mapping_part.queue.add(mapping)
        else:
            self._route_part.queue.add(key)

    def _pods_of(self, key: str) -> Collection[Pod]:
        """Pods of the Revision of this name that exists now: not of a deleted one whose name was used again."""
        revision = self._revisions.get(key)
        return () if revision is None else self._pods_by_uid.get(revision.metadata.uid)

    def _routes_of(self, revision: Revision) -> list[Route]:
        """Routes that name the Revision, or its Configuration."""
        meta = revision.metadata
        groups = [f"revision/{meta.key}"]
        groups += [f"configuration/{name}" for name in configuration_of_revision(revision)]
        return self._routes_of_targets(groups)

    def _routes_of_targets(self, targets: Iterable[str]) -> list[Route]:
        found = {route.metadata.key: route for target in targets for route in self._routes_by_target.get(target)}
        return list(found.values())
