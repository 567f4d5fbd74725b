"""The Configuration side of the controller: Revisions made, and collected again. Shell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from serving.api import timestamps
from serving.api.config.gc import GcConfig
from serving.api.resources import CONFIGURATIONS
from serving.api.v1 import Configuration, Revision, Route
from serving.controller.configuration import (
    creation_failed,
    reconcile_configuration,
    reconcile_routes_annotation,
)
from serving.controller.executor import carry_out
from serving.controller.happenings import of_configuration
from serving.controller.naming import wanted_name
from serving.controller.revision_gc import collect_revisions
from serving.controller.shared import Shared
from serving.kube.errors import ApiError
from serving.kube.queue import WorkQueue

QUEUE_CONCURRENCY = 16


class ConfigurationSources:
    """What this part reads of the rest of the controller."""

    def __init__(
        self,
        *,
        configuration: Callable[[str], Configuration | None],
        revision: Callable[[str], Revision | None],
        revisions_of: Callable[[str], Collection[Revision]],
        routes_of: Callable[[Iterable[str]], Collection[Route]],
        gc: Callable[[], GcConfig],
    ) -> None:
        self.configuration = configuration
        self.revision = revision
        self.revisions_of = revisions_of
        self.routes_of = routes_of
        self.gc = gc


class Configurations:
    def __init__(self, shared: Shared, sources: ConfigurationSources) -> None:
        guarded = shared.malformed.guarded(CONFIGURATIONS, self._reconcile)
        self.queue = WorkQueue("configuration", guarded, concurrency=QUEUE_CONCURRENCY)
        self._client = shared.client
        self._sources = sources
        self._now = shared.now
        self._events = shared.events

    async def _reconcile(self, key: str) -> float | None:
        configuration = self._sources.configuration(key)
        if configuration is None or configuration.metadata.deletion_timestamp is not None:
            return None
        revisions = self._sources.revisions_of(key)
        at = self._now()
        now = timestamps.format_seconds(at)
        targets = [f"configuration/{key}", *(f"revision/{revision.metadata.key}" for revision in revisions)]
        wanted = f"{configuration.metadata.namespace}/{wanted_name(configuration)}"
        routes = self._sources.routes_of(targets)
        writes = reconcile_routes_annotation(configuration, routes=routes)
        writes += reconcile_configuration(
            configuration, revisions=revisions, named_revision=self._sources.revision(wanted), now=now
        )
        in_use = {
            target.revision_name for route in routes for target in (*route.spec.traffic, *route.status.traffic)
        }
        doomed, again = collect_revisions(
            configuration, revisions=revisions, in_use=in_use, config=self._sources.gc(), now=at
        )
        about = (CONFIGURATIONS, configuration.metadata)
        try:
            await carry_out(self._client, [*writes, *doomed], about=about, events=self._events)
        except ApiError as error:
            if not error.transient and error.code != 409:
                await carry_out(self._client, creation_failed(configuration, message=error.message, now=now))
            raise  # what forbids it, e.g. a quota, may go without any event
        self._events.happened(*about, of_configuration(configuration, writes))
        return again
