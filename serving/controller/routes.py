"""The Route side of the controller: status, rollouts and placeholder Services of each Route. Shell.

Placeholders have a queue of their own, so that their writes never delay a Route's status. Those of a new Route
are made a moment after it, while its first pod starts: the write that makes the pod goes first.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.api import keys, timestamps
from serving.api.config.store import ApiConfig
from serving.api.duration import parse_seconds
from serving.api.http_option import HttpOptionError, check_http_option
from serving.api.kube_service import KubeService
from serving.api.resources import ROUTES, SERVICES
from serving.api.rollout import read_rollout
from serving.api.routing import programmed_hash
from serving.api.v1 import Configuration, Revision, Route
from serving.controller.executor import carry_out
from serving.controller.host_index import HostIndex
from serving.controller.index import Index, KeyIndex, route_of_service
from serving.controller.placeholder import (
    foreign_placeholder,
    local_tags,
    placeholder_names,
    reconcile_placeholders,
)
from serving.controller.rollout import SECOND
from serving.controller.route import Lookup, Pace, Placeholders, reconcile_route
from serving.controller.shared import Shared
from serving.controller.urls import urls_of
from serving.kube.informer import Informer
from serving.kube.queue import WorkQueue

QUEUE_CONCURRENCY = 16
_PLACEHOLDERS_AT_ONCE = 4
_NEW_ROUTE_SECONDS = 0.05
_ROLLOUT_KEYS = (keys.ROLLOUT_DURATION, "serving.knative.dev/rolloutDuration")


class RouteSources:
    """What this part reads of the rest of the controller."""

    def __init__(
        self,
        *,
        configuration: Callable[[str], Configuration | None],
        revision: Callable[[str], Revision | None],
        config: Callable[[], ApiConfig],
        programmed: Callable[[str, str], bool | None],
    ) -> None:
        self.configuration = configuration
        self.revision = revision
        self.config = config
        self.programmed = programmed


class Routes:
    """`gateway` is the DNS name of the gateway's entrance for the cluster, where placeholders lead."""

    def __init__(
        self,
        shared: Shared,
        sources: RouteSources,
        *,
        gateway: str,
    ) -> None:
        self.informer: Informer[Route] = Informer(shared.client, ROUTES, Route)
        self.services: Informer[KubeService] = Informer(shared.client, SERVICES, KubeService)
        self.hosts = HostIndex()
        guarded = shared.malformed.guarded(ROUTES, self._reconcile)
        self.queue = WorkQueue("route", guarded, concurrency=QUEUE_CONCURRENCY)
        self.placeholder_queue = WorkQueue(
            "placeholder", self._reconcile_placeholders, concurrency=_PLACEHOLDERS_AT_ONCE
        )
        self._client = shared.client
        self._sources = sources
        self._gateway = gateway
        self._now = shared.now
        self._events = shared.events
        self._services_by_route: Index[KubeService] = Index(route_of_service)
        self._names = KeyIndex()

    def subscribe(self) -> None:
        """Follow the informers. Call once, before they run."""
        self.informer.subscribe(self._route_changed)
        self.services.subscribe(self._service_changed)

    def config_changed(self) -> None:
        """Templates, domains or rollouts may be others now."""
        for route in self.informer.all():
            self._index(route)
            self.queue.add(route.metadata.key)
            self.placeholder_queue.add(route.metadata.key)

    def behind(self, service: KubeService) -> tuple[str, str] | None:
        """Name and tag of the Route whose placeholder this is; None when it is nobody's."""
        owner = service.metadata.controller_ref()
        route = None
        if owner is not None and owner.kind == "Route":
            route = self.informer.get(f"{service.metadata.namespace}/{owner.name}")
        if route is None or not service.metadata.is_controlled_by(route.metadata.uid):
            return None
        names = self._placeholder_names(route)
        tags = [tag for tag, name in names.items() if name == service.metadata.name]
        return (route.metadata.name, tags[0]) if tags else None

    def _route_changed(self, key: str, old: Route | None, new: Route | None) -> None:
        self.queue.add(key)
        if new is None:
            self._names.put(key, frozenset())
            others = self.hosts.remove(key)
        else:
            others = self._index(new)
            if old is None:
                self.placeholder_queue.add_after(key, _NEW_ROUTE_SECONDS)
            elif _shape(old) != _shape(new):
                self.placeholder_queue.add(key)
        for other in others:
            self.queue.add(other)

    def _index(self, route: Route) -> set[str]:
        """Note the names and hosts that a Route asks for; returns Routes whose conflicts may have changed."""
        namespace = route.metadata.namespace
        names = self._placeholder_names(route).values()
        self._names.put(route.metadata.key, frozenset(f"{namespace}/{name}" for name in names))
        return self.hosts.put(route, tag_template=self._sources.config().network.tag_template.text)

    def _service_changed(self, key: str, old: KubeService | None, new: KubeService | None) -> None:
        touched = self._services_by_route.change(key, old, new) | self._names.users(key)
        for route in touched:
            self.queue.add(route)
            self.placeholder_queue.add(route)

    def _placeholder_names(self, route: Route) -> dict[str, str]:
        return placeholder_names(route, network=self._sources.config().network)

    async def _reconcile(self, key: str) -> float | None:
        route = self.informer.get(key)
        if route is None or route.metadata.deletion_timestamp is not None:
            return None
        now, config, namespace = self._now(), self._sources.config(), route.metadata.namespace
        names = self._placeholder_names(route)
        local = local_tags(names, services=self._services_by_route.get(key))
        writes = reconcile_route(
            route,
            lookup=Lookup(
                configuration=lambda name: self._sources.configuration(f"{namespace}/{name}"),
                revision=lambda name: self._sources.revision(f"{namespace}/{name}"),
            ),
            urls=urls_of(route, config, local_tags=local),
            conflict=self.hosts.conflict(key),
            programmed=lambda served: self._sources.programmed(key, programmed_hash(served)),
            placeholders=self._placeholders(route, names),
            pace=Pace(seconds=rollout_seconds(route, config), now=int(now * SECOND)),
            now=timestamps.format_seconds(now),
        )
        await carry_out(self._client, writes)
        try:
            check_http_option(route.metadata.annotations)
        except HttpOptionError as error:
            self._events.warning(ROUTES, route.metadata, reason="InternalError", message=str(error))
        return _seconds_to_next_step(route, now=now)

    def _placeholders(self, route: Route, names: dict[str, str]) -> Placeholders:
        namespace = route.metadata.namespace
        return Placeholders(
            complete=all(self.services.get(f"{namespace}/{name}") is not None for name in names.values()),
            foreign=foreign_placeholder(route, names, service=self._service_in(namespace)),
        )

    def _service_in(self, namespace: str) -> Callable[[str], KubeService | None]:
        return lambda name: self.services.get(f"{namespace}/{name}")

    async def _reconcile_placeholders(self, key: str) -> None:
        route = self.informer.get(key)
        if route is None or route.metadata.deletion_timestamp is not None:
            return  # owner references take its placeholders along
        writes = reconcile_placeholders(
            route,
            self._placeholder_names(route),
            services=self._services_by_route.get(key),
            service=self._service_in(route.metadata.namespace),
            gateway=self._gateway,
        )
        await carry_out(self._client, writes, about=(ROUTES, route.metadata), events=self._events)


def rollout_seconds(route: Route, config: ApiConfig) -> int:
    """Duration of a gradual rollout: the annotation's, else that of config-network; 0 = traffic moves at once."""
    text = next((text for key in _ROLLOUT_KEYS if (text := route.metadata.annotations.get(key))), "")
    try:
        seconds = int(parse_seconds(text)) if text else 0
    except ValueError:
        seconds = 0
    return seconds or config.network.rollout_duration


def _seconds_to_next_step(route: Route, *, now: float) -> float | None:
    """When a rollout that is stored in the status goes on."""
    rollout = read_rollout(route.status.annotations)
    due = rollout.next_step() if rollout is not None else 0
    return max(due / SECOND - now, 0.01) if due else None


def _shape(route: Route) -> tuple[object, ...]:
    """What of a Route decides its placeholders."""
    tags = {target.tag for target in (*route.spec.traffic, *route.status.traffic)}
    return (route.metadata.uid, route.metadata.labels, route.metadata.annotations, tags)
