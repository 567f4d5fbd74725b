"""Structural schemas of the built-in kinds, made from the field table: what fields there are, and their types.

They say nothing about ranges, enumerations or required fields. Recursive messages give schemas that contain
themselves, which is fine for walks along a value.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver.wire.table import Field, message_of, messages

_META: Final = "k8s.io.apimachinery.pkg.apis.meta.v1."
_INT_OR_STRING: Final[JsonObject] = {"x-kubernetes-int-or-string": True}
_ANYTHING: Final[JsonObject] = {"x-kubernetes-preserve-unknown-fields": True}
_SPECIAL: Final[dict[str, JsonObject]] = {
    "string": {"type": "string"},
    "bytes": {"type": "string"},
    "bool": {"type": "boolean"},
    "double": {"type": "number"},
    **{name: {"type": "integer"} for name in ("int32", "int64", "uint32", "uint64")},
    f"{_META}Time": {"type": "string"},
    f"{_META}MicroTime": {"type": "string"},
    f"{_META}Duration": {"type": "string"},
    f"{_META}FieldsV1": _ANYTHING,
    f"{_META}Verbs": {"type": "array", "items": {"type": "string"}},
    "k8s.io.apimachinery.pkg.api.resource.Quantity": _ANYTHING,
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": _INT_OR_STRING,
    "k8s.io.apimachinery.pkg.runtime.RawExtension": _ANYTHING,
}


@cache
def metadata_schema() -> JsonObject:
    """ObjectMeta, which every kind has."""
    schema = _message_schema(f"{_META}ObjectMeta")
    schema["properties"]["clusterName"] = {"type": "string"}
    return schema


@cache
def builtin_schema(api_version: str, kind: str) -> JsonObject | None:
    """The schema of a built-in kind; None when the table does not have it."""
    message = message_of(api_version, kind)
    if message is None:
        return None
    schema = _message_schema(message)
    properties = {name: inner for name, inner in schema["properties"].items() if name != "metadata"}
    return {**schema, "properties": properties}


@cache
def _message_schema(message: str) -> JsonObject:
    return _build(message, {})


def _build(message: str, known: dict[str, JsonObject]) -> JsonObject:
    special = _SPECIAL.get(message)
    if special is not None:
        return special
    if message in known:
        return known[message]
    properties: JsonObject = {}
    schema = known[message] = {"type": "object", "properties": properties}
    for field in messages()[message].values():
        if field.inline:
            properties.update(_build(field.type, known)["properties"])
        else:
            properties[field.name] = _field_schema(field, known)
    return schema


def _field_schema(field: Field, known: dict[str, JsonObject]) -> JsonObject:
    if field.map_value:
        return {"type": "object", "additionalProperties": _build(field.map_value, known)}
    inner = _build(field.type, known)
    return {"type": "array", "items": inner} if field.repeated else inner
