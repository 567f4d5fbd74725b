"""Whether the schema of a CustomResourceDefinition is structural: every field typed, and nothing that cannot be
pruned or merged. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, schema, validation
from serving.local.apiserver.errors import Cause

_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_LIST_TYPES: Final = ("atomic", "set", "map")
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_JUNCTORS: Final = ("allOf", "anyOf", "oneOf")
_NOT_NESTED: Final = ("additionalProperties", "default", "description", "nullable", "title", "type")


def causes(root: JsonObject, path: str) -> list[Cause]:
    """Everything that is wrong with the schema of a version; `path` names it."""
    kind = root.get("type")
    if not kind:
        return [errors.required(f"{path}.type", "must not be empty at the root")]
    if kind != "object":
        return [errors.invalid_value(f"{path}.type", kind, "must be object at the root")]
    found = list(_metadata(root, path))
    return found + list(_node(root, path, root=True))


def _metadata(root: JsonObject, path: str) -> Iterator[Cause]:
    metadata = (root.get("properties") or {}).get("metadata")
    if not isinstance(metadata, dict):
        return
    given = set(metadata.get("properties") or {}) - {"name", "generateName"}
    if given or set(metadata) - {"type", "description", "properties"}:
        text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        yield errors.forbidden_field(f"{path}.properties[metadata]", text)


def _node(node: Any, path: str, *, root: bool = False, item: bool = False) -> Iterator[Cause]:
    if not isinstance(node, dict):
        return
    yield from _keywords(node, path)
    kind = node.get("type")
    free = node.get(_PRESERVE) or node.get(_INT_OR_STRING)
    if not kind and not free:
        where = "array items" if item else "object fields"
        yield errors.required(f"{path}.type", f"must not be empty for specified {where}")
    elif kind and kind not in _TYPES:
        yield errors.not_supported(f"{path}.type", kind, _TYPES)
    yield from _list_rules(node, path)
    for name in _JUNCTORS:
        for index, part in enumerate(node.get(name) or ()):
            if not node.get(_INT_OR_STRING):
                yield from _nested(part, f"{path}.{name}[{index}]")
    yield from _nested(node.get("not"), f"{path}.not")
    if "default" in node and not root:
        yield from _default(node, f"{path}.default")
    for name, inner in (node.get("properties") or {}).items():
        if not (root and name in ("apiVersion", "kind", "metadata")):
            yield from _node(inner, f"{path}.properties[{name}]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _node(node["additionalProperties"], f"{path}.additionalProperties")
    if isinstance(node.get("items"), dict):
        yield from _node(node["items"], f"{path}.items", item=True)


def _keywords(node: JsonObject, path: str) -> Iterator[Cause]:
    if node.get("$ref"):
        yield errors.forbidden_field(f"{path}.$ref", "$ref is not supported")
    if node.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield errors.forbidden_field(f"{path}.uniqueItems", text)
    if node.get("additionalProperties") is False:
        text = "additionalProperties cannot be set to false"
        yield errors.forbidden_field(f"{path}.additionalProperties", text)
    elif node.get("additionalProperties") and node.get("properties"):
        text = "additionalProperties and properties are mutual exclusive"
        yield errors.forbidden_field(f"{path}.additionalProperties", text)
    if isinstance(pattern := node.get("pattern"), str):
        try:
            re.compile(pattern)
        except re.error as error:
            detail = (
                f"must be a valid regular expression, but isn't: error parsing regexp: {_go_error(error, pattern)}"
            )
            yield errors.invalid_value(f"{path}.pattern", pattern, detail)


def _go_error(error: re.error, pattern: str) -> str:
    if "unterminated subpattern" in error.msg:
        return f"missing closing ): `{pattern}`"
    return f"{error.msg}: `{pattern}`"


def _list_rules(node: JsonObject, path: str) -> Iterator[Cause]:
    items = node.get("items")
    if node.get("type") == "array" and not items:
        yield errors.required(f"{path}.items", "must be specified")
    if isinstance(items, list):
        yield errors.forbidden_field(f"{path}.items", "items must be a schema object and not an array")
    how = node.get("x-kubernetes-list-type")
    if how is None:
        return
    if how not in _LIST_TYPES:
        yield errors.not_supported(f"{path}.x-kubernetes-list-type", how, _LIST_TYPES)
    keys = node.get("x-kubernetes-list-map-keys") or []
    inner = items if isinstance(items, dict) else {}
    if how == "map":
        field = f"{path}.x-kubernetes-list-map-keys"
        if not keys:
            yield errors.required(field, "must not be empty if x-kubernetes-list-type is map")
        elif set(keys) - set(inner.get("properties") or {}):
            yield errors.invalid_value(field, keys, "entries must all be names of item properties")
    if how == "set" and inner.get("type") == "object" and inner.get("x-kubernetes-map-type") != "atomic":
        field = f"{path}.items.x-kubernetes-map-type"
        detail = "must be atomic as item of a list with x-kubernetes-list-type=set"
        yield errors.invalid_value(field, inner.get("x-kubernetes-map-type"), detail)


def _nested(node: Any, path: str) -> Iterator[Cause]:
    """Below a junctor only values are constrained, the structure is said outside."""
    if not isinstance(node, dict):
        return
    for name in _NOT_NESTED:
        if node.get(name):
            yield errors.forbidden_field(f"{path}.{name}", "must be empty to be structural")
    for name, inner in (node.get("properties") or {}).items():
        yield from _nested(inner, f"{path}.properties[{name}]")
    yield from _nested(node.get("items"), f"{path}.items")


def _default(node: JsonObject, path: str) -> Iterator[Cause]:
    value = copy.deepcopy(node["default"])
    if isinstance(value, dict) and schema.prune_value(value, node):
        yield errors.invalid_value(path, node["default"], "must not have unknown fields")
        return
    for cause in validation.of_value(value, node):
        yield Cause(path, cause.reason, cause.text)
