"""Garbage collection of Revisions that no Route uses any more, by config-gc.

Of the Revisions in the routing state `reserve` the `min-non-active-revisions` newest are always kept. That state
is a label, which follows the Routes a moment later: what a Route names by now is never collected.
Of the others those go that are both old enough and inactive long enough; beyond `max-non-active-revisions` the
oldest go whatever their age. The latest Revisions, and one with `serving.knative.dev/no-gc`, never count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from serving.api import keys, timestamps
from serving.api.config.gc import GcConfig
from serving.api.resources import REVISIONS
from serving.api.v1 import Configuration, Revision
from serving.controller.writes import Delete


def collect_revisions(
    configuration: Configuration,
    *,
    revisions: Iterable[Revision],
    in_use: Collection[str],
    config: GcConfig,
    now: float,
) -> tuple[list[Delete], float | None]:
    """What is to be deleted at `now` (Unix seconds), and in how many seconds to look again (None: on a change).

    `in_use`: names of Revisions that Routes name.
    """
    candidates = sorted(
        (
            revision
            for revision in revisions
            if revision.metadata.name not in in_use and _is_collectable(revision, configuration)
        ),
        key=_last_active,
    )
    spare = len(candidates) - config.min_non_active_revisions
    if spare <= 0:
        return [], None
    stale = [revision for revision in candidates if _stale_in(revision, config, now) == 0][:spare]
    kept = [revision for revision in candidates if revision not in stale]
    surplus = 0
    if config.max_non_active_revisions is not None:
        surplus = min(len(kept) - config.max_non_active_revisions, spare - len(stale))
    doomed = [*stale, *kept[: max(surplus, 0)]]
    waits = [wait for revision in kept if (wait := _stale_in(revision, config, now))]
    again = min(waits) if waits and len(doomed) < spare else None
    return [_delete(revision) for revision in doomed], again


def _is_collectable(revision: Revision, configuration: Configuration) -> bool:
    meta, status = revision.metadata, configuration.status
    return (
        meta.deletion_timestamp is None
        and meta.name not in (status.latest_ready_revision_name, status.latest_created_revision_name)
        and meta.labels.get(keys.ROUTING_STATE) == "reserve"
        and meta.annotations.get(keys.NO_GC, "").lower() != "true"
    )


def _stale_in(revision: Revision, config: GcConfig, now: float) -> float | None:
    """Seconds until the Revision is old and inactive enough, 0 when it is; None: age never matters."""
    waits = []
    if config.retain_since_create_time is not None:
        waits.append(_created(revision) + config.retain_since_create_time - now)
    if config.retain_since_last_active_time is not None:
        waits.append(_last_active(revision) + config.retain_since_last_active_time - now)
    return max(0.0, *waits) if waits else None


def _created(revision: Revision) -> float:
    created = revision.metadata.creation_timestamp
    return timestamps.parse(created) if created else 0.0


def _last_active(revision: Revision) -> float:
    modified = revision.metadata.annotations.get(keys.ROUTING_STATE_MODIFIED, "")
    try:
        return timestamps.parse(modified) if modified else _created(revision)
    except ValueError:
        return _created(revision)


def _delete(revision: Revision) -> Delete:
    meta = revision.metadata
    return Delete(resource=REVISIONS, namespace=meta.namespace, name=meta.name, uid=meta.uid)
