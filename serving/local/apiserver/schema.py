"""Structural schemas of CustomResourceDefinitions: prune, default.

A structural schema describes every level by `type`, `properties`, `items` and `additionalProperties`, so each
pass is one walk over the value. `validation` holds the third pass.
"""

from __future__ import annotations

import copy
from typing import Any

from serving.api.meta import JsonObject

_META_FIELDS = frozenset({"apiVersion", "kind", "metadata"})
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_INT_OR_STRING = "x-kubernetes-int-or-string"


_SCALARS: dict[type, tuple[str, ...]] = {
    str: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
}


def is_clean(value: Any, schema: JsonObject, *, typed: bool) -> bool:
    """Whether surely nothing is to be pruned or dropped and, if `typed`, no type is wrong: one quick look that
    spares the walks that would say what is."""
    wanted = schema.get("type")
    if type(value) is list:
        items = schema.get("items")
        if items is None or (typed and wanted != "array"):
            return not typed and items is None
        return all(_item_is_clean(item, items, typed) for item in value)
    if typed and wanted not in ("object", None):
        return False
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    if type(additional) is not dict and (additional is True or schema.get(_PRESERVE)):
        additional = _ANYTHING
    for name, item in value.items():
        inner = properties.get(name, additional)
        if type(inner) is not dict or not _item_is_clean(item, inner, typed):
            return False
    return True


_ANYTHING: JsonObject = {_PRESERVE: True}


def _item_is_clean(item: Any, schema: JsonObject, typed: bool) -> bool:
    kind = type(item)
    if kind is dict or kind is list:
        if schema is _ANYTHING:
            return True
        return _EMBEDDED not in schema and is_clean(item, schema, typed=typed)
    if item is None:
        return schema is _ANYTHING
    if not typed:
        return True
    wanted = schema.get("type")
    if wanted is None:
        return _INT_OR_STRING not in schema or kind is int or kind is str
    return wanted in _SCALARS[kind]


def prune(obj: JsonObject, schema: JsonObject) -> list[str]:
    """Remove the fields that the schema does not know, in place; their paths in order of appearance."""
    unknown: list[str] = []
    _prune(obj, schema, "", unknown, resource=True)
    return unknown


def prune_value(value: JsonObject, schema: JsonObject) -> list[str]:
    """`prune` for a value that is no object of its own, such as metadata."""
    unknown: list[str] = []
    _prune(value, schema, "", unknown, resource=False)
    return unknown


def _prune(value: Any, schema: JsonObject, path: str, unknown: list[str], *, resource: bool) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            embedded = bool(items.get(_EMBEDDED))
            for index, item in enumerate(value):
                _prune(item, items, f"{path}[{index}]", unknown, resource=embedded)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    preserve = bool(schema.get(_PRESERVE))
    for name in list(value):
        child = f"{path}.{name}" if path else name
        inner = properties.get(name)
        if resource and name in _META_FIELDS:
            continue
        if inner is not None:
            _prune(value[name], inner, child, unknown, resource=bool(inner.get(_EMBEDDED)))
        elif isinstance(additional, dict):
            _prune(value[name], additional, child, unknown, resource=bool(additional.get(_EMBEDDED)))
        elif not preserve and additional is not True:
            del value[name]
            unknown.append(child)


def default(value: Any, schema: JsonObject) -> None:
    """Fill in missing fields, in place, also below fields that were filled in. Explicit nulls of fields that are
    not nullable and have a default are replaced."""
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for item in value:
                default(item, items)
        return
    if not isinstance(value, dict):
        return
    properties = schema.get("properties") or {}
    for name, inner in properties.items():
        if name in value and (value[name] is not None or inner.get("nullable")):
            default(value[name], inner)
        elif "default" in inner:
            value[name] = copy.deepcopy(inner["default"])
            default(value[name], inner)
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        for name, item in value.items():
            if name not in properties:
                default(item, additional)


def drop_nulls(value: Any, schema: JsonObject) -> None:
    """Null in a field that is not nullable means absent (the API server drops it when pruning)."""
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for item in value:
                drop_nulls(item, items)
    elif isinstance(value, dict):
        properties = schema.get("properties") or {}
        for name in [n for n, item in value.items() if item is None and n in properties]:
            if not properties[name].get("nullable"):
                del value[name]
        additional = schema.get("additionalProperties")
        for name, item in value.items():
            inner = properties.get(name, additional)
            if isinstance(inner, dict):
                drop_nulls(item, inner)
