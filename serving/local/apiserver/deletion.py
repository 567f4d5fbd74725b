"""What a delete request does to an object: remove it now, mark it, or nothing.

Marking sets `deletionTimestamp`; the object goes when its grace period is over (Pods: when the node agent deletes
it with grace 0) and its last finalizer is removed.
"""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import Cause, bad_request, invalid, invalid_value, not_supported
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.meta import timestamp

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
CRD_CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
DEFAULT_GRACE_SECONDS: Final = 30
_POLICIES: Final = ("Background", "Foreground", "Orphan")


class DeleteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`grace_period_seconds` None = the object's own."""

    grace_period_seconds: int | None = None
    propagation: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


class Action(enum.Enum):
    REMOVE = enum.auto()
    MARK = enum.auto()
    NOTHING = enum.auto()


def parse_options(body: JsonObject, query: dict[str, str]) -> DeleteOptions:
    """From the body, else from the query. Raises StatusError 400, 422."""
    grace = body.get("gracePeriodSeconds")
    if grace is None and "gracePeriodSeconds" in query:
        grace = query["gracePeriodSeconds"]
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy") or None
    orphan = body.get("orphanDependents", query.get("orphanDependents"))
    dry_run = body.get("dryRun") or [value for value in (query.get("dryRun"),) if value]
    causes = _option_causes(propagation, orphan, dry_run)
    if causes:
        raise invalid("DeleteOptions", "meta.k8s.io", "", causes)
    if propagation is None and orphan is not None:
        propagation = "Orphan" if str(orphan).lower() == "true" else "Background"
    preconditions = body.get("preconditions") or {}
    try:
        seconds = None if grace is None else int(grace)
    except (TypeError, ValueError):
        raise bad_request(f"gracePeriodSeconds: {grace!r} is not a number of seconds") from None
    return DeleteOptions(
        grace_period_seconds=seconds,
        propagation=propagation,
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        dry_run=bool(dry_run),
    )


def _option_causes(propagation: Any, orphan: Any, dry_run: list[str]) -> list[Cause]:
    causes: list[Cause] = []
    if propagation is not None and orphan is not None:
        text = "orphanDependents and deletionPropagation cannot be both set"
        causes.append(invalid_value("propagationPolicy", propagation, text))
    elif propagation is not None and propagation not in _POLICIES:
        causes.append(
            not_supported("propagationPolicy", propagation, ("Foreground", "Background", "Orphan", "nil"))
        )
    if any(value != "All" for value in dry_run):
        causes.append(not_supported("dryRun", dry_run, ("All",)))
    return causes


def decide(obj: JsonObject, kind: Kind, options: DeleteOptions, now: datetime) -> tuple[Action, JsonObject]:
    """What to do, and the object that is left (the unchanged one unless Action.MARK)."""
    metadata = dict(obj["metadata"])
    before = list(metadata.get("finalizers") or ())
    finalizers = _finalizers(before, options.propagation)
    grace = _grace(obj, kind, options)
    marked = "deletionTimestamp" in metadata
    held = bool(finalizers) or _namespace_held(obj, kind)
    if marked:
        current = int(metadata.get("deletionGracePeriodSeconds") or 0)
        grace = min(grace, current)
        if not held and grace == 0:
            return Action.REMOVE, _ended(obj, kind, now)
        if grace == current and finalizers == before:
            return Action.NOTHING, obj
    elif not held and grace == 0:
        return Action.REMOVE, _ended(obj, kind, now)
    metadata["finalizers"] = finalizers
    if not finalizers:
        metadata.pop("finalizers")
    if not marked and kind.generation:
        metadata["generation"] = metadata.get("generation", 0) + 1
    if not marked or grace != int(metadata.get("deletionGracePeriodSeconds") or 0):
        metadata["deletionTimestamp"] = timestamp(now + timedelta(seconds=grace))
    if kind.qualified != "namespaces":
        metadata["deletionGracePeriodSeconds"] = grace
    left: JsonObject = {**obj, "metadata": metadata}
    if kind.qualified == "namespaces":
        left["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
    return Action.MARK, left


def _ended(obj: JsonObject, kind: Kind, now: datetime) -> JsonObject:
    """What a client is told of an object that is removed: one that could have had a grace had none left."""
    if not kind.graceful:
        return obj
    metadata = {"deletionTimestamp": timestamp(now), **obj["metadata"], "deletionGracePeriodSeconds": 0}
    if "deletionTimestamp" not in obj["metadata"] and kind.generation:
        metadata["generation"] = metadata.get("generation", 0) + 1
    return {**obj, "metadata": metadata}


def is_finished(obj: JsonObject, kind: Kind) -> bool:
    """A marked object that nothing holds any more: the write that made it so removes it."""
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers") or _namespace_held(obj, kind):
        return False
    return not kind.graceful or not metadata.get("deletionGracePeriodSeconds")


def _namespace_held(obj: JsonObject, kind: Kind) -> bool:
    return kind.qualified == "namespaces" and bool((obj.get("spec") or {}).get("finalizers"))


def _finalizers(before: list[str], propagation: str | None) -> list[str]:
    if propagation is None:
        return before
    kept = [name for name in before if name not in (FOREGROUND, ORPHAN)]
    if propagation == "Foreground":
        return [*kept, FOREGROUND]
    if propagation == "Orphan":
        return [*kept, ORPHAN]
    return kept


def _grace(obj: JsonObject, kind: Kind, options: DeleteOptions) -> int:
    if not kind.graceful:
        return 0
    spec = obj.get("spec") or {}
    phase = (obj.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    grace = options.grace_period_seconds
    if grace is None:
        grace = spec.get("terminationGracePeriodSeconds")
    if grace is None:
        return DEFAULT_GRACE_SECONDS
    return max(1, int(grace)) if grace < 0 else int(grace)
