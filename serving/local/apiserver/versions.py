"""One stored object, several served shapes: versions of a CRD (same fields) and the two kinds of Event."""

from __future__ import annotations

from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver.kinds import Kind

_TO_NEW_EVENT: Final = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_LEFT_OUT: Final = ("reportingComponent", "reportingInstance")
"""Empty in every core Event, absent in the other form."""
_TO_CORE_EVENT: Final = {new: core for core, new in _TO_NEW_EVENT.items()}


def is_stored_shape(kind: Kind) -> bool:
    """Whether objects of this kind are served as they are stored."""
    return kind.api_version == kind.storage_api_version


def from_storage(obj: JsonObject, kind: Kind) -> JsonObject:
    if is_stored_shape(kind):
        return obj
    if kind.storage == "events":
        obj = {name: value for name, value in obj.items() if value or name not in _LEFT_OUT}
        obj = _rename(obj, _TO_NEW_EVENT)
    return {**obj, "apiVersion": kind.api_version}


def to_storage(obj: JsonObject, kind: Kind) -> JsonObject:
    if is_stored_shape(kind):
        return obj
    renamed = _rename(obj, _TO_CORE_EVENT) if kind.storage == "events" else obj
    return {**renamed, "apiVersion": kind.storage_api_version}


def _rename(obj: JsonObject, names: dict[str, str]) -> JsonObject:
    return {names.get(name, name): value for name, value in obj.items()}
