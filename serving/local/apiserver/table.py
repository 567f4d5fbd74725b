"""Tables (`meta.k8s.io/v1 Table`): what `kubectl get` shows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.columns import PRINTERS, Printer
from serving.local.apiserver.durations import age
from serving.local.apiserver.encoders import line, partial
from serving.local.apiserver.jsonpath import PathError, first
from serving.local.apiserver.kinds import Column, Kind
from serving.local.apiserver.schemas.definitions import OBJECT_META, described
from serving.local.apiserver.state import Entry, Event
from serving.local.apiserver.versions import from_storage

_encode = msgspec.json.Encoder().encode


def build(
    kind: Kind, objects: list[JsonObject], metadata: JsonObject, *, include: str, now: datetime
) -> JsonObject:
    """`include`: what each row carries besides its cells: `Metadata`, `Object` or `None`."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions(kind),
        "rows": [row(kind, obj, include=include, now=now) for obj in objects],
    }


def definitions(kind: Kind) -> list[JsonObject]:
    name: JsonObject = {
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": described(OBJECT_META, "name"),
        "priority": 0,
    }
    printer = _printer(kind)
    if printer is not None:
        return [name, *(column.definition() for column in printer.columns)]
    return [name, *(_custom_definition(column) for column in kind.columns)]


def row(kind: Kind, obj: JsonObject, *, include: str, now: datetime) -> JsonObject:
    printer = _printer(kind)
    cells: list[Any] = [obj["metadata"]["name"]]
    if printer is not None:
        cells += printer.cells(obj, now)
    else:
        cells += [_custom_cell(obj, column, now) for column in kind.columns]
    made: JsonObject = {"cells": cells}
    if kind.storage == "pods" and (ended := _ENDED.get((obj.get("status") or {}).get("phase", ""))):
        reason, message = ended
        made["conditions"] = [{"type": "Completed", "status": "True", "reason": reason, "message": message}]
    if include == "Object":
        made["object"] = obj
    else:
        made["object"] = partial(obj) if include != "None" else None
    return made


_ENDED: Final = {
    "Succeeded": ("Succeeded", "The pod has completed successfully."),
    "Failed": ("Failed", "The pod failed."),
}
"""Phases of Pods whose rows are crossed out."""


def _printer(kind: Kind) -> Printer | None:
    if kind.custom:
        return None
    return PRINTERS.get(kind.storage, PRINTERS[""])


def _custom_definition(column: Column) -> JsonObject:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description or _about(column),
        "priority": column.priority,
    }


def _about(column: Column) -> str:
    if column.json_path == ".metadata.creationTimestamp":
        return described(OBJECT_META, "creationTimestamp")
    return f"Custom resource definition column (in JSONPath format): {column.json_path}"


def _custom_cell(obj: JsonObject, column: Column, now: datetime) -> Any:
    try:
        value = first(obj, column.json_path)
    except PathError:
        return None
    if value is None:
        return None
    match column.type:
        case "date":
            return age(value, now)
        case "integer":
            return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        case "number":
            return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case _:
            return value if isinstance(value, str) else _encode(value).decode()


class TableRows:
    """Watch events as one-row tables; only the first carries the column definitions."""

    def __init__(self, kind: Kind, *, include: str, now: Callable[[], datetime]) -> None:
        self._kind = kind
        self._include = include
        self._now = now
        self._columns: list[JsonObject] | None = definitions(kind)

    def event(self, type_: str, entry: Entry, event: Event | None) -> bytes:
        obj = from_storage(entry.obj, self._kind)
        rows = [row(self._kind, obj, include=self._include, now=self._now())]
        return line(type_, _encode(self._one(str(entry.revision), rows)))

    def bookmark(self, revision: int, *, initial_end: bool) -> bytes:
        metadata: JsonObject = {"resourceVersion": str(revision)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        body = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return line("BOOKMARK", _encode(self._one(str(revision), [{"cells": [], "object": body}])))

    def _one(self, revision: str, rows: list[JsonObject]) -> JsonObject:
        table: JsonObject = {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": revision},
            "columnDefinitions": self._columns,
            "rows": rows,
        }
        self._columns = None
        return table
