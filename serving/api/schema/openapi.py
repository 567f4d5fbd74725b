"""Structural schemas of the CRDs, rendered from the tables.

The API server prunes what a schema does not have, so a field is served exactly when its table says so; fields
behind a feature flag are kept as they are, because which of their parts are allowed is decided at admission.
"""

from __future__ import annotations

from typing import Any, Final

from serving.api.schema.nodes import Array, Dictionary, Field, Node, Opaque, Scalar, Special, Struct

Schema = dict[str, Any]

_DIGITS: Final = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
QUANTITY_PATTERN: Final = rf"^(\+|-)?{_DIGITS}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{_DIGITS}))?$"
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_TEMPLATE_METADATA: Final = ("name", "namespace", "labels", "annotations", "finalizers")


def kind_schema(root: Struct) -> Schema:
    """`openAPIV3Schema` of a kind; `root` is its entry in `kinds.KINDS`."""
    properties: Schema = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    for key in ("spec", "status"):
        if key in root.fields:
            properties[key] = _field(root.fields[key])
    return {"description": root.about, "type": "object", "properties": properties}


def _field(item: Field) -> Schema:
    schema = _kept_whole(item.node) if item.opaque else _node(item.node)
    return {"description": item.about, **schema} if item.about else schema


def _node(node: Node) -> Schema:
    if isinstance(node, Struct):
        return _object(node)
    if isinstance(node, Array):
        schema: Schema = {"type": "array", "items": _node(node.item)}
        if node.keys:
            schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(node.keys)}
        elif node.atomic:
            schema["x-kubernetes-list-type"] = "atomic"
        return schema
    if isinstance(node, Dictionary):
        schema = {"type": "object", "additionalProperties": _node(node.value)}
        return schema | ({"x-kubernetes-map-type": "atomic"} if node.atomic else {})
    if isinstance(node, Opaque):
        return {"type": "object", _PRESERVE: True}
    return _scalar(node) if isinstance(node, Scalar) else _special(node)


def _object(node: Struct) -> Schema:
    if node.name == "ObjectMeta":
        fields = {key: node.fields[key] for key in _TEMPLATE_METADATA}
        properties = {key: _field(item) for key, item in fields.items()}
        return {"type": "object", "properties": properties, _PRESERVE: True}
    schema: Schema = {"type": "object"}
    if node.required:
        schema["required"] = list(node.required)
    schema["properties"] = {
        key: _field(node.fields[key]) for key in sorted(node.fields) if node.fields[key].served
    }
    if node.atomic:
        schema["x-kubernetes-map-type"] = "atomic"
    return schema


def _kept_whole(node: Node) -> Schema:
    whole: Schema = {"type": "object", _PRESERVE: True}
    if isinstance(node, Array):
        return {"type": "array", "items": whole}
    return whole | ({"x-kubernetes-map-type": "atomic"} if isinstance(node, Struct) and node.atomic else {})


def _scalar(node: Scalar) -> Schema:
    schema: Schema = {
        "string": {"type": "string"},
        "bool": {"type": "boolean"},
        "int32": {"type": "integer", "format": "int32"},
        "int64": {"type": "integer", "format": "int64"},
        "float64": {"type": "number"},
    }[node.kind]
    return schema if node.default is None else {**schema, "default": node.default}


def _special(node: Special) -> Schema:
    either: Schema = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
    if node.kind == "int-or-string":
        return either
    return {"pattern": QUANTITY_PATTERN, **either} if node.kind == "quantity" else {"type": "string"}
