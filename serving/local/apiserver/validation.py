"""Validation of a value by a structural schema (the subset of JSON Schema that CustomResourceDefinitions may use).

CEL rules (`x-kubernetes-validations`) are not evaluated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.errors import Cause


def validate(obj: JsonObject, schema: JsonObject) -> list[Cause]:
    """Everything that is wrong, in order of the object; empty = valid. metadata is checked elsewhere."""
    properties = {name: inner for name, inner in (schema.get("properties") or {}).items() if name != "metadata"}
    return list(_check(obj, {**schema, "properties": properties}, ""))


def of_value(value: Any, schema: JsonObject) -> list[Cause]:
    """What is wrong with a value on its own, such as a default."""
    return list(_check(value, schema, ""))


class Mismatch(msgspec.Struct, frozen=True):
    """A value of the wrong JSON type. `place` is its path as Go's decoder tells it: without indices and keys."""

    path: str
    place: str
    found: str
    wanted: str
    value: Any


def mismatches(value: Any, schema: JsonObject, path: str, place: str = "") -> Iterator[Mismatch]:
    """Values of the wrong type, and nothing else: what a typed decoder notices. Null is the zero value."""
    wanted = schema.get("type")
    place = place or path
    if value is None:
        return
    if schema.get("x-kubernetes-int-or-string"):
        if _type_of(value) not in ("integer", "string"):
            yield Mismatch(path, place, _type_of(value), "intstr.IntOrString", value)
        return
    if wanted is None:
        return
    if not _has_type(value, wanted):
        strings = (schema.get("additionalProperties") or {}) == {"type": "string"}
        yield Mismatch(path, place, _type_of(value), "map[string]string" if strings else wanted, value)
    elif wanted == "array":
        for index, item in enumerate(value):
            yield from mismatches(item, schema["items"], f"{path}[{index}]", place)
    elif wanted == "object":
        properties = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        for name, item in value.items():
            inner = properties.get(name, additional)
            if isinstance(inner, dict):
                told = _join(place, name) if name in properties else place
                yield from mismatches(item, inner, _join(path, name), told)


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _has_type(value: Any, wanted: str) -> bool:
    found = _type_of(value)
    if found == wanted:
        return True
    if wanted == "number":
        return found == "integer"
    return wanted == "integer" and isinstance(value, float) and value.is_integer()


def _check(value: Any, schema: JsonObject, path: str) -> Iterator[Cause]:
    if value is None and schema.get("nullable"):
        return
    if schema.get("x-kubernetes-int-or-string"):
        if _type_of(value) not in ("integer", "string"):
            yield errors.wrong_type(path, _type_of(value), "integer,string")
            return
    elif (wanted := schema.get("type")) and not _has_type(value, wanted):
        yield errors.wrong_type(path, _type_of(value), wanted)
        if wanted == "integer" and isinstance(value, float):
            yield _not_of_format(path, "(default format)")
        if schema.get("enum") is not None and value not in schema["enum"]:
            yield errors.not_supported(path, value, schema["enum"])
        return
    allowed = schema.get("enum")
    if allowed is not None and value not in allowed:
        yield errors.not_supported(path, value, allowed)
    if isinstance(value, dict):
        yield from _check_object(value, schema, path)
    elif isinstance(value, list):
        yield from _check_list(value, schema, path)
    elif isinstance(value, str):
        yield from _check_string(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _check_number(value, schema, path)
    yield from _check_junctors(value, schema, path)


_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_FORMATS = {"int32": 2**31, "int64": 2**63}


def _not_of_format(path: str, what: str) -> Cause:
    text = f'Invalid value: "": Checked value must be of type integer {what} in {path}'
    return Cause("<nil>", "FieldValueInvalid", text)


def _check_object(value: JsonObject, schema: JsonObject, path: str) -> Iterator[Cause]:
    for name in schema.get("required") or ():
        if name not in value:
            yield errors.required(_join(path, name))
    properties = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    for name, item in value.items():
        inner = properties.get(name, additional if isinstance(additional, dict) else None)
        if inner is not None:
            yield from _check(item, inner, _join(path, name))
    limit, least = schema.get("maxProperties"), schema.get("minProperties")
    if limit is not None and len(value) > limit:
        yield Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {limit} items")
    if least is not None and len(value) < least:
        yield errors.invalid_value(path, value, f"{path} in body should have at least {least} properties")


def _check_list(value: list[Any], schema: JsonObject, path: str) -> Iterator[Cause]:
    limit, least = schema.get("maxItems"), schema.get("minItems")
    if limit is not None and len(value) > limit:
        yield Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {limit} items")
    if least is not None and len(value) < least:
        yield errors.invalid_value(path, len(value), f"{path} in body should have at least {least} items")
    items = schema.get("items")
    if isinstance(items, dict):
        for index, item in enumerate(value):
            yield from _check(item, items, f"{path}[{index}]")
    yield from _check_unique(value, schema, path)


def _check_unique(value: list[Any], schema: JsonObject, path: str) -> Iterator[Cause]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("map", "set"):
        return
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    seen: set[str] = set()
    for index, item in enumerate(value):
        if kind == "map" and not isinstance(item, dict):
            detail = "must be an object for an array of list-type map"
            yield errors.invalid_value(f"{path}[{index}]", item, detail)
            continue
        if kind == "map":
            identity: Any = {name: item.get(name) for name in keys} if isinstance(item, dict) else item
        else:
            identity = item
        text = json.dumps(identity, sort_keys=True)
        if text in seen:
            yield errors.duplicate_value(f"{path}[{index}]", identity)
        seen.add(text)


def _check_string(value: str, schema: JsonObject, path: str) -> Iterator[Cause]:
    limit, least, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
    if limit is not None and len(value) > limit:
        yield errors.too_long(path, limit, "bytes")
    elif least is not None and len(value) < least:
        yield errors.invalid_value(path, value, f"{path} in body should be at least {least} chars long")
    elif pattern is not None and not re.search(pattern, value):
        yield errors.invalid_value(path, value, f"{path} in body should match '{pattern}'")
    elif schema.get("format") == "date-time" and not _DATE_TIME.fullmatch(value):
        detail = f'{path} in body must be of type date-time: "{value}"'
        yield Cause(path, "FieldValueInvalid", f'Invalid value: "{value}": {detail}')


def _check_number(value: float, schema: JsonObject, path: str) -> Iterator[Cause]:
    bound = _FORMATS.get(schema.get("format") or "")
    if bound is not None and schema.get("type") == "integer" and not -bound <= value < bound:
        yield _not_of_format(path, f"with format {schema['format']}")
    least, limit, step = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    if least is not None:
        exclusive = bool(schema.get("exclusiveMinimum"))
        if value < least or (exclusive and value == least):
            word = "greater than" if exclusive else "greater than or equal to"
            yield errors.invalid_value(path, value, f"{path} in body should be {word} {least}")
    if limit is not None:
        exclusive = bool(schema.get("exclusiveMaximum"))
        if value > limit or (exclusive and value == limit):
            word = "less than" if exclusive else "less than or equal to"
            yield errors.invalid_value(path, value, f"{path} in body should be {word} {limit}")
    if step and value % step:
        yield errors.invalid_value(path, value, f"{path} in body should be a multiple of {step}")


def _check_junctors(value: Any, schema: JsonObject, path: str) -> Iterator[Cause]:
    for part in schema.get("allOf") or ():
        yield from _check(value, part, path)
    any_of = schema.get("anyOf")
    if any_of and not any(_valid(value, part, path) for part in any_of):
        yield errors.invalid_value(path, value, f"{path} in body must validate at least one schema (anyOf)")
    one_of = schema.get("oneOf")
    if one_of and sum(_valid(value, part, path) for part in one_of) != 1:
        yield errors.invalid_value(path, value, f"{path} in body must validate one and only one schema (oneOf)")
    negated = schema.get("not")
    if negated and _valid(value, negated, path):
        yield errors.invalid_value(path, value, f"{path} in body must not validate the schema (not)")


def _valid(value: Any, schema: JsonObject, path: str) -> bool:
    return next(_check(value, schema, path), None) is None


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
