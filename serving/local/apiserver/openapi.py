"""OpenAPI v3: enough for kubectl to see that the server validates fields, and for `kubectl explain` of CRDs."""

from __future__ import annotations

import hashlib

from serving.api.meta import JsonObject
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.registry import Registry


def group_path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def index(registry: Registry) -> JsonObject:
    """`/openapi/v3`: one document per group and version, cached by clients under its hash."""
    paths: JsonObject = {}
    for group in registry.groups():
        for version in registry.versions(group):
            path = group_path(group, version)
            digest = hashlib.sha256(repr(registry.kinds(group, version)).encode()).hexdigest()[:32].upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def document(registry: Registry, path: str) -> JsonObject | None:
    """The document of `api/v1` or `apis/<group>/<version>`; None when it is not served."""
    parts = path.split("/")
    group, version = ("", parts[1]) if parts[0] == "api" and len(parts) == 2 else ("", "")
    if parts[0] == "apis" and len(parts) == 3:
        group, version = parts[1], parts[2]
    kinds = registry.kinds(group, version)
    if not kinds:
        return None
    paths: JsonObject = {}
    schemas: JsonObject = {}
    for kind in kinds:
        schemas[schema_name(kind)] = _schema(kind)
        paths |= _paths(kind)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "nodeless"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def schema_name(kind: Kind) -> str:
    reversed_group = ".".join(reversed((kind.group or "core.api.k8s.io").split(".")))
    return f"{reversed_group}.{kind.version}.{kind.kind}"


def _gvk(kind: Kind) -> JsonObject:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _schema(kind: Kind) -> JsonObject:
    own = kind.schema if kind.custom and kind.schema else {"type": "object"}
    return {**own, "x-kubernetes-group-version-kind": [_gvk(kind)]}


def _parameter(name: str) -> JsonObject:
    return {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}


_PARAMETERS = [_parameter(name) for name in ("dryRun", "fieldManager", "fieldValidation")]


def _operation(kind: Kind, action: str) -> JsonObject:
    reference = {"$ref": f"#/components/schemas/{schema_name(kind)}"}
    content = {"application/json": {"schema": reference}}
    operation: JsonObject = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
        "responses": {"200": {"description": "OK", "content": content}},
    }
    if action in ("post", "put", "patch"):
        operation["parameters"] = _PARAMETERS
    if action in ("post", "put"):
        operation["requestBody"] = {"content": content}
    return operation


def _paths(kind: Kind) -> JsonObject:
    base = "/" + group_path(kind.group, kind.version)
    collection = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    made: JsonObject = {collection: {"post": _operation(kind, "post")}}
    if "patch" in kind.verbs:
        made[collection]["get"] = _operation(kind, "list")
        made[collection + "/{name}"] = {
            "get": _operation(kind, "get"),
            "put": _operation(kind, "put"),
            "patch": _operation(kind, "patch"),
            "delete": _operation(kind, "delete"),
        }
    return made
