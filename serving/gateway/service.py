"""The gateway agent: watches objects, programs Envoy, hosts the activator, reports to the controller. Shell.

Order of a start: an Envoy that still runs is recognised; the informers fill; only then is xDS served (or, when the
API server cannot be asked, the stored snapshot); then Envoy is started if none was there; when it listens, the
gateway is ready and takes its Lease. The informers' callbacks, ACKs, probes and load reports all run in one event
loop and act in the same turn.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc

from serving.activator.rpc import SERVER_OPTIONS
from serving.activator.service import Activator
from serving.api.keys import REVISION, SYSTEM_NAMESPACE
from serving.api.pod import Pod
from serving.api.podnetwork import NodeFacts
from serving.api.reports import Budget, ControllerMessage, Decided, Demand, GatewayMessage, Hello, Poke, Settings
from serving.api.resources import DOMAIN_MAPPINGS, LEASES, NODES, PODS, REVISIONS, ROUTES
from serving.api.v1 import Revision, Route
from serving.api.v1beta1 import DomainMapping
from serving.gateway.build import GatewayConfig, config_from
from serving.gateway.demand import ClusterLoad, demand, read_report
from serving.gateway.envoy import read_boot
from serving.gateway.envoy_process import Envoy
from serving.gateway.levels import Levels
from serving.gateway.metrics import DemandMetrics
from serving.gateway.ports import free_port, is_free
from serving.gateway.programming import TRUST_SECONDS, Programming
from serving.gateway.render import Renderer
from serving.gateway.report_stream import ReportStream
from serving.gateway.settings import GatewaySettings
from serving.gateway.store import Store
from serving.gateway.translate import names
from serving.gateway.translate.bootstrap import BootstrapConfig
from serving.gateway.translate.listeners import Entrance
from serving.gateway.xds.control import Answer
from serving.gateway.xds.server import LoadServer, XdsServer
from serving.gateway.xds.snapshot import ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from serving.kube.client import KubeClient
from serving.kube.configmaps import LiveConfig
from serving.kube.informer import Informer
from serving.kube.lease import ADDRESS_ANNOTATION, Lease, heartbeat
from serving.telemetry.budget import BudgetRecorder

__all__ = ["Gateway", "GatewaySettings", "run"]

log = logging.getLogger(__name__)

CONTROLLER_LEASE: Final = "nodeless-controller-00"
_IDLE_INTERVAL_SECONDS: Final = 1.0
_BUSY_INTERVAL_SECONDS: Final = 0.2
_MESSAGE_OPTIONS: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


class Gateway:
    """One gateway agent. `run` serves until cancelled; the attributes are for tests and metrics."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        client: KubeClient,
        now: Callable[[], float] = time.time,
        recorder: BudgetRecorder | None = None,
    ) -> None:
        self.settings = settings
        self._recorder = recorder
        self.envoy = Envoy(
            data_dir=settings.data_dir,
            config=BootstrapConfig(
                node_id=settings.name,
                agent_socket=str(settings.agent_socket),
                admin_socket=str(settings.admin_socket),
                max_connections=settings.max_connections,
            ),
            workers=settings.concurrency,
            logs=(settings.request_log_file,),
        )
        self._client = client
        self._now = now
        self._store = Store(settings.data_dir)
        self._config = LiveConfig(client, changed=self._config_changed)
        self._routes: Informer[Route] = Informer(client, ROUTES, Route)
        self._revisions: Informer[Revision] = Informer(client, REVISIONS, Revision)
        self._mappings: Informer[DomainMapping] = Informer(client, DOMAIN_MAPPINGS, DomainMapping)
        self._pods: Informer[Pod] = Informer(client, PODS, Pod, label_selector=REVISION)
        self._leases: Informer[Lease] = Informer(
            client, LEASES, Lease, namespace=SYSTEM_NAMESPACE, field_selector=f"metadata.name={CONTROLLER_LEASE}"
        )
        self.activator: Activator
        self.programming: Programming
        self._levels: Levels
        self.xds: XdsServer
        self.loads = LoadServer(interval=_IDLE_INTERVAL_SECONDS, reported=self._reported)
        self.stream = ReportStream(
            hello=Hello(gateway=settings.name, incarnation=secrets.token_hex(8)),
            token=settings.token,
            greet=self._greet,
            received=self._told,
        )
        self._report_interval = _IDLE_INTERVAL_SECONDS
        self._last_report = now()
        self._last_demand: Demand | None = None
        self._former_loads: dict[str, ClusterLoad] = {}
        self._synced = False
        self._rebuild_due = False
        self._listening = asyncio.Event()

    async def run(self, *, ready: Callable[..., None] = lambda **_: None) -> None:
        """Serve until cancelled; then let requests finish and stop Envoy. A killed agent leaves Envoy running.

        `ready(port=, local_port=)` is called once, when both listeners are open. Raises EnvoyFailed, LedgerBusy.
        """
        await asyncio.to_thread(self.settings.data_dir.mkdir, parents=True, exist_ok=True)
        await self.envoy.adopt()
        ports = self._choose_ports()
        self.activator = Activator(
            poke=self._poke,
            changed=lambda key: self.programming.refresh(key),
            now=self._now,
            budget=self._budget,
            recorder=self._recorder,
            state_dir=self.settings.data_dir,
        )
        self._make_programming(ports)
        self.metrics = DemandMetrics(revisions=lambda: self.programming.ir.revisions, held=self.activator.held)
        server = grpc.aio.server(options=[*SERVER_OPTIONS, *_MESSAGE_OPTIONS])
        try:
            async with asyncio.TaskGroup() as group:
                for name, work in self._background().items():
                    group.create_task(work, name=name)
                await self._first_configuration()
                await self._serve(server)
                await self.envoy.start()
                watching = group.create_task(self.envoy.watch(), name="envoy")
                group.create_task(self.envoy.rotate_log(), name="envoy log")
                await self._listening.wait()
                self.envoy.note_ports(ports)
                group.create_task(self._heartbeat(ports), name="lease")
                ready(port=ports[0], local_port=ports[1])
                log.info("gateway %s listens on %s:%d", self.settings.name, self.settings.address, ports[0])
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    watching.cancel()
                    await self.envoy.stop(drain_seconds=self.settings.drain_seconds)
        finally:
            self.metrics.close()
            await server.stop(grace=None)
            self.activator.close()

    # Set-up

    def _make_programming(self, ports: tuple[int, int]) -> None:
        settings = self.settings
        local = settings.local_address or settings.address
        entrances = [
            Entrance(
                name=names.PUBLIC, address=settings.address, port=ports[0], trusted_hops=settings.trusted_hops
            ),
            Entrance(name=names.LOCAL, address=local, port=ports[1]),
        ]
        self.programming = Programming(
            activator=self.activator,
            renderer=Renderer(nonce=self.envoy.nonce, entrances=entrances, api=settings.api),
            config=self._gateway_config(),
            wake=self._wake,
            stale=self._stale,
        )
        self.xds = XdsServer(self.programming.control, connected=self._connected, answered=self._answered)
        self._levels = Levels(
            read={
                "programmed": self.programming.programmed,
                "cold": self.programming.cold,
                "drains": self.programming.drains,
            },
            send=self.stream.level,
        )

    def _background(self) -> dict[str, Any]:
        informers: dict[str, Informer[Any]] = {
            "configmaps": self._config.informer,
            "routes": self._routes,
            "revisions": self._revisions,
            "domain mappings": self._mappings,
            "pods": self._pods,
            "controller lease": self._leases,
        }
        if self.settings.node:
            nodes = Informer(self._client, NODES, NodeFacts, field_selector=f"metadata.name={self.settings.node}")
            nodes.subscribe(lambda _key, _old, new: self._node_changed(new))
            informers["node"] = nodes
        self._routes.subscribe(lambda key, _old, new: self.programming.set_route(key, new))
        self._mappings.subscribe(lambda key, _old, new: self.programming.set_mapping(key, new))
        self._revisions.subscribe(lambda key, _old, new: self.programming.set_revision(key, new))
        self._pods.subscribe(lambda key, _old, new: self.programming.set_pod(key, new))
        self._leases.subscribe(lambda _key, _old, new: self._lease_changed(new))
        self.stream.set_address(self.settings.controller)
        return {
            **{name: informer.run() for name, informer in informers.items()},
            "activator": self.activator.run(),
            "reports": self.stream.run(),
            "snapshot": self._store.run(self.programming.stored),
        }

    async def _first_configuration(self) -> None:
        """Wait for the informers; when that takes long, serve what the last agent served until they are there."""
        stored = await asyncio.to_thread(self._store.load)
        if stored is not None:
            self.programming.restore(stored)
        asyncio.get_running_loop().call_later(TRUST_SECONDS, self.programming.distrust)
        informers: Iterable[Informer[Any]] = (
            self._config.informer,
            self._routes,
            self._mappings,
            self._revisions,
            self._pods,
        )
        synced = asyncio.gather(*(informer.synced.wait() for informer in informers))
        synced.add_done_callback(self._informers_synced)
        if stored is None:
            await synced
            return
        done, _ = await asyncio.wait((synced,), timeout=self.settings.stored_after_seconds)
        if not done:
            log.warning("the API server does not answer; serving the stored snapshot")
            self.programming.serve_stored(stored)

    def _informers_synced(self, waiting: asyncio.Future[Any]) -> None:
        if waiting.cancelled():
            return
        self._synced = True
        self.programming.set_config(self._gateway_config())
        self.programming.rebuild()
        self._levels.open()

    async def _serve(self, server: grpc.aio.Server) -> None:
        path = self.settings.agent_socket
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self.activator.add_to_server(server)
        self.xds.add_to_server(server)
        self.loads.add_to_server(server)
        if server.add_insecure_port(f"unix:{path}") == 0:
            raise OSError(f"cannot listen on {path}")
        await server.start()
        path.chmod(0o600)

    async def _heartbeat(self, ports: tuple[int, int]) -> None:
        settings = self.settings
        await heartbeat(
            self._client,
            name=f"nodeless-gateway-{settings.name}",
            component="gateway",
            identity=settings.name,
            now=self._now,
            annotations={ADDRESS_ANNOTATION: f"{settings.address}:{ports[0]}"},
        )

    def _choose_ports(self) -> tuple[int, int]:
        """The wanted ports; for 0, those of the last run if nobody else took them, else free ones."""
        former = read_boot(self.settings.data_dir)
        kept = former.ports if former is not None and len(former.ports) == 2 else (0, 0)
        wanted = (self.settings.port, self.settings.local_port)
        public, local = (
            port or (old if old and (self.envoy.adopted or is_free(self.settings.address, old)) else 0)
            for port, old in zip(wanted, kept, strict=True)
        )
        public = public or free_port(self.settings.address)
        return public, local or free_port(self.settings.address)

    def _gateway_config(self) -> GatewayConfig:
        return config_from(
            self._config.value,
            cluster_domain=self.settings.cluster_domain,
            workers=self.settings.concurrency,
            request_log_path=str(self.settings.request_log_file),
        )

    # Events of the API server

    def _config_changed(self) -> None:
        if self._synced:
            self.programming.set_config(self._gateway_config())

    def _lease_changed(self, lease: Lease | None) -> None:
        if not self.settings.controller:
            annotations = lease.metadata.annotations if lease is not None else {}
            self.stream.set_address(annotations.get(ADDRESS_ANNOTATION, ""))

    def _node_changed(self, node: NodeFacts | None) -> None:
        self.programming.set_pod_network(node.pod_network if node is not None else None)

    def _stale(self) -> None:
        """Rebuild at the end of this turn, once for all changes that one read of the watch brought."""
        if self._synced and not self._rebuild_due:
            self._rebuild_due = True
            asyncio.get_running_loop().call_soon(self._rebuild)

    def _rebuild(self) -> None:
        self._rebuild_due = False
        self.programming.rebuild()
        self._levels.changed("programmed", "cold", "drains")

    def _wake(self) -> None:
        self._store.touch()
        self.xds.wake()
        self._adapt_interval()

    # Events of Envoy

    def _connected(self) -> None:
        self.programming.connected()

    def _answered(self, answer: Answer) -> None:
        """Envoy said what it has (after a reconnect), subscribed, acknowledged or refused."""
        self.programming.answered(answer)
        if answer.type_url == ENDPOINT_TYPE:
            self._levels.changed("cold", "drains")
        elif answer.type_url == ROUTE_TYPE:
            self._levels.changed("programmed")
        elif answer.type_url == LISTENER_TYPE and answer.refused:
            log.error("Envoy cannot open %s: %s", ", ".join(answer.refused), answer.error)
        if not self._listening.is_set() and self.programming.listening():
            self._listening.set()

    def _reported(self, message: Any) -> None:
        """A load report of Envoy."""
        now = self._now()
        loads = read_report(message)
        self.programming.loaded(loads)
        sampled = now - self.loads.interval
        for key in loads.keys() | self._former_loads.keys():
            load = loads.get(key)
            through_activator = load.in_progress - sum(load.by_address.values()) if load else 0
            self.activator.reconcile_revision(key, through_activator, sampled)
        self._former_loads = loads
        report = demand(
            loads,
            revisions=self.programming.ir.revisions,
            held=self.activator.held,
            start=self._last_report,
            end=now,
        )
        self._last_report, self._last_demand = now, report
        self.metrics.record(report)
        self.stream.event(report)
        self._levels.changed("drains")
        self._adapt_interval()

    def _adapt_interval(self) -> None:
        """Reports come fast while somebody waits for a drain."""
        fast = self.programming.is_draining
        self.loads.set_interval(
            min(self._report_interval, _BUSY_INTERVAL_SECONDS) if fast else self._report_interval
        )

    # Reports

    def _greet(self) -> list[GatewayMessage]:
        """What a controller that just connected must know at once, besides the levels."""
        now = self._now()
        pokes = [
            Poke(revision=key, held=held, at=now)
            for key in self.programming.ir.revisions
            if (held := self.activator.held(key)) and not self.activator.ready(key)
        ]
        return [*([self._last_demand] if self._last_demand else []), *pokes]

    def _poke(self, key: str, held: int) -> None:
        self.stream.event(Poke(revision=key, held=held, at=self._now()))

    def _budget(self, budget: Budget) -> None:
        self.stream.event(budget)

    def _told(self, message: ControllerMessage) -> None:
        match message:
            case Settings():
                self._report_interval = message.report_interval_seconds
                self._adapt_interval()
            case Decided():
                self.activator.note_decided(message)


async def run(
    settings: GatewaySettings, *, client: KubeClient, ready: Callable[..., None] = lambda **_: None
) -> None:
    """Run one gateway agent and its Envoy until cancelled (see `Gateway.run`)."""
    await Gateway(settings, client=client).run(ready=ready)
