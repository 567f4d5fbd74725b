"""OpenAPI v2 (`/openapi/v2`), which older clients ask for: all kinds in one document. Pure.

Made from the v3 schemas. What v2 cannot say (alternatives, nullable) is left out, as kube-apiserver does.
"""

from __future__ import annotations

from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.openapi import group_path, gvk_of, schema_name, schemas
from serving.local.apiserver.registry import Registry
from serving.local.apiserver.schemas.definitions import referred

_DROPPED: Final = frozenset({"allOf", "anyOf", "default", "not", "nullable", "oneOf", "x-kubernetes-validations"})
_STRINGS: Final = ("IntOrString", "Quantity")


def document(registry: Registry, *, version: str) -> JsonObject:
    kinds = list(registry)
    paths: JsonObject = {}
    for kind in kinds:
        paths |= _paths(kind)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": {name: _definition(name, schema) for name, schema in schemas(kinds).items()},
    }


def _definition(name: str, schema: JsonObject) -> JsonObject:
    converted = _convert(schema)
    if name.endswith(_STRINGS):
        converted["type"] = "string"
    return converted


def _convert(schema: JsonObject) -> JsonObject:
    name = referred(schema)
    if name is not None:
        described = {"description": schema["description"]} if "description" in schema else {}
        kept = {key: value for key, value in schema.items() if key.startswith("x-")}
        return {"$ref": f"#/definitions/{name}", **described, **kept}
    result: JsonObject = {}
    for key, value in schema.items():
        if key in _DROPPED:
            continue
        result[key] = _children(key, value)
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    elif schema.get("nullable"):
        # A type would refuse the null.
        for key in ("type", "items", "properties"):
            result.pop(key, None)
    return result


def _children(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: _convert(inner) for name, inner in value.items()}
    if key in ("items", "additionalProperties") and isinstance(value, dict):
        return _convert(value)
    return value


def _paths(kind: Kind) -> JsonObject:
    base = "/" + group_path(kind.group, kind.version)
    collection = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    body = {
        "in": "body",
        "name": "body",
        "required": True,
        "schema": {"$ref": f"#/definitions/{schema_name(kind)}"},
    }
    queries = [
        {"in": "query", "name": name, "type": "string", "uniqueItems": True}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]
    ok = {"200": {"description": "OK", "schema": {"$ref": f"#/definitions/{schema_name(kind)}"}}}

    def operation(action: str, parameters: list[JsonObject]) -> JsonObject:
        return {
            "consumes": ["*/*"],
            "produces": ["application/json"],
            "parameters": parameters,
            "responses": ok,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk_of(kind),
        }

    made: JsonObject = {collection: {"post": operation("post", [body, *queries])}}
    if "patch" in kind.verbs:
        made[collection + "/{name}"] = {
            "get": operation("get", []),
            "put": operation("put", [body, *queries]),
            "patch": operation("patch", [{**body, "schema": {"type": "object"}}, *queries]),
            "delete": operation("delete", []),
        }
    return made
