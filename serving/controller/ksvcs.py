"""The Service side of the controller: Configuration, Route and status of each Service. Shell.

A Service mirrors its children, which pass through many states on their way to Ready. While they are under way the
Service follows a moment later: one write instead of several, and none in front of the write that makes its pod.
"""

from __future__ import annotations

from collections.abc import Callable

from serving.api import timestamps
from serving.api.config.store import ApiConfig
from serving.api.defaulting import default_configuration_spec
from serving.api.resources import KSERVICES
from serving.api.v1 import Configuration, Revision, Route, Service
from serving.controller.executor import carry_out
from serving.controller.ksvc import is_under_way, reconcile_ksvc
from serving.controller.shared import Shared
from serving.kube.informer import Informer
from serving.kube.queue import WorkQueue

QUEUE_CONCURRENCY = 16
_UNDER_WAY_SECONDS = 0.05


class KsvcSources:
    """What this part reads of the rest of the controller."""

    def __init__(
        self,
        *,
        configuration: Callable[[str], Configuration | None],
        route: Callable[[str], Route | None],
        revision: Callable[[str], Revision | None],
        config: Callable[[], ApiConfig],
    ) -> None:
        self.configuration = configuration
        self.route = route
        self.revision = revision
        self.config = config


class Ksvcs:
    def __init__(self, shared: Shared, sources: KsvcSources) -> None:
        self.informer: Informer[Service] = Informer(shared.client, KSERVICES, Service)
        guarded = shared.malformed.guarded(KSERVICES, self._reconcile)
        self.queue = WorkQueue("service", guarded, concurrency=QUEUE_CONCURRENCY)
        self._client = shared.client
        self._sources = sources
        self._now = shared.now
        self._events = shared.events

    def subscribe(self) -> None:
        """Follow the informer. Call once, before it runs."""
        self.informer.subscribe(self._changed)

    def child_changed(self, key: str) -> None:
        """The Configuration or Route of this name came, changed or went."""
        if is_under_way(self._sources.configuration(key), self._sources.route(key)):
            self.queue.add_after(key, _UNDER_WAY_SECONDS)
        else:
            self.queue.add(key)

    def _changed(self, key: str, old: Service | None, new: Service | None) -> None:
        if old is not None and new is not None and _wish(old) == _wish(new):
            self.child_changed(key)  # our own write of the status, as a rule
        else:
            self.queue.add(key)

    async def _reconcile(self, key: str) -> None:
        ksvc = self.informer.get(key)
        if ksvc is None or ksvc.metadata.deletion_timestamp is not None:
            return
        name = (ksvc.spec.template.get("metadata") or {}).get("name", "")
        writes = reconcile_ksvc(
            ksvc,
            configuration=self._sources.configuration(key),
            route=self._sources.route(key),
            named_revision=self._sources.revision(f"{ksvc.metadata.namespace}/{name}") if name else None,
            defaulted=lambda spec: default_configuration_spec(spec, config=self._sources.config()),
            now=timestamps.format_seconds(self._now()),
        )
        await carry_out(self._client, writes, about=(KSERVICES, ksvc.metadata), events=self._events)


def _wish(ksvc: Service) -> tuple[object, ...]:
    """What of a Service its children are made of."""
    meta = ksvc.metadata
    return (meta.uid, meta.generation, meta.labels, meta.annotations, ksvc.spec)
