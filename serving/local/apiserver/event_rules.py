"""Events, core and events.k8s.io: what they always have, and what they must say. Pure."""

from __future__ import annotations

from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause

_CORE: Final = ("firstTimestamp", "lastTimestamp", "eventTime")
_NEW: Final = ("deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime")
_TYPES: Final = ("Normal", "Warning")
_MAX_NOTE: Final = 1024


def default_core_event(obj: JsonObject, _old: JsonObject | None) -> None:
    """In place."""
    for field in _CORE:
        obj.setdefault(field, None)
    obj.setdefault("source", {})
    obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")


def default_new_event(obj: JsonObject, _old: JsonObject | None) -> None:
    """In place."""
    for field in _NEW:
        obj.setdefault(field, None)
    obj.setdefault("deprecatedSource", {})


def core_event_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    if old is not None:
        return []
    return _namespace_causes(obj, "involvedObject")


def _namespace_causes(obj: JsonObject, field: str) -> list[Cause]:
    """An Event is in the namespace of its object; those of cluster-scoped objects are in `default`."""
    namespace = (obj.get(field) or {}).get("namespace") or ""
    own = obj["metadata"].get("namespace") or ""
    if namespace == own or (not namespace and own == "default"):
        return []
    return [errors.invalid_value("involvedObject.namespace", namespace, "does not match event.namespace")]


def new_event_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    if old is not None:
        before = old.get("deprecatedCount")
        if obj.get("deprecatedCount") != before:
            return [errors.invalid_value("count", obj.get("deprecatedCount"), "field is immutable")]
        return []
    found = [] if obj.get("eventTime") else [errors.required("eventTime")]
    controller = obj.get("reportingController") or ""
    if not controller:
        found.append(errors.required("reportingController"))
    found += identifiers.causes("reportingController", controller, identifiers.qualified(controller))
    missing = [field for field in ("reportingInstance", "action", "reason") if not obj.get(field)]
    found += [errors.required(field) for field in missing]
    kind = obj.get("type") or ""
    if kind not in _TYPES:
        found.append(errors.invalid_value("type", "", f"has invalid value: {kind}"))
    if len((obj.get("note") or "").encode()) > _MAX_NOTE:
        found.append(errors.invalid_value("message", "", f"can have at most {_MAX_NOTE} bytes"))
    return found + _namespace_causes(obj, "regarding")
