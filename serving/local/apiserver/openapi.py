"""OpenAPI v3, one document per group and version, with the full schemas of all kinds. Pure.

`kubectl explain` shows them; other commands look whether the server validates fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.registry import Registry
from serving.local.apiserver.schemas.definitions import (
    META,
    OBJECT_META,
    REFERENCE,
    definition_of,
    definitions,
    referred,
)

_DESCRIPTIONS: Final = {
    "apiVersion": (
        "APIVersion defines the versioned schema of this representation of an object. Servers should convert "
        "recognized schemas to the latest internal value, and may reject unrecognized values. More info: "
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources"
    ),
    "kind": (
        "Kind is a string value representing the REST resource this object represents. Servers may infer this "
        "from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds"
    ),
    "metadata": (
        "Standard object's metadata. More info: "
        "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
    ),
}
_PATCHES: Final = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


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
    for kind in kinds:
        paths |= _paths(kind)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": schemas(kinds)},
    }


def schemas(kinds: Iterable[Kind]) -> dict[str, JsonObject]:
    """The schemas of these kinds and everything that they refer to, by name."""
    found: dict[str, JsonObject] = {}
    waiting = [META + name for name in ("DeleteOptions", "Patch", "Status", "WatchEvent")]
    for kind in kinds:
        name = schema_name(kind)
        if name in definitions():
            waiting.append(name)
        else:
            found[name] = custom_schema(kind)
            waiting.append(OBJECT_META)
        if "list" in kind.verbs:
            listed = definition_of(kind.api_version, kind.list_kind)
            if listed is None:
                found[_own_name(kind, kind.list_kind)] = _list_schema(kind)
                waiting.append(META + "ListMeta")
            else:
                waiting.append(listed)
        waiting += [
            known
            for sub in kind.subresources
            if (known := definition_of(_api_version(kind, sub.group, sub.version), sub.kind)) is not None
        ]
    while waiting:
        name = waiting.pop()
        if name not in found and name in definitions():
            found[name] = definitions()[name]
            waiting += references(found[name])
    return dict(sorted(found.items()))


def references(schema: Any) -> list[str]:
    """The definitions that a schema mentions."""
    if isinstance(schema, list):
        return [name for item in schema for name in references(item)]
    if not isinstance(schema, dict):
        return []
    name = referred(schema)
    found = [name] if name else []
    for item in schema.values():
        if isinstance(item, (dict, list)):
            found += references(item)
    return found


def schema_name(kind: Kind) -> str:
    return definition_of(kind.api_version, kind.kind) or _own_name(kind, kind.kind)


def _own_name(kind: Kind, name: str) -> str:
    reversed_group = ".".join(reversed((kind.group or "core.api.k8s.io").split(".")))
    return f"{reversed_group}.{kind.version}.{name}"


def _api_version(kind: Kind, group: str, version: str) -> str:
    if not version:
        return kind.api_version
    return f"{group}/{version}" if group else version


def gvk_of(kind: Kind, name: str = "") -> JsonObject:
    return {"group": kind.group, "version": kind.version, "kind": name or kind.kind}


def custom_schema(kind: Kind) -> JsonObject:
    """The schema of a definition with the fields that every object has."""
    anything: JsonObject = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    own = kind.schema or anything
    properties = dict(own.get("properties") or {})
    for name in ("apiVersion", "kind"):
        properties[name] = {"type": "string", "description": _DESCRIPTIONS[name]}
    properties["metadata"] = {
        "description": _DESCRIPTIONS["metadata"],
        "allOf": [{"$ref": REFERENCE + OBJECT_META}],
    }
    return {**own, "properties": properties, "x-kubernetes-group-version-kind": [gvk_of(kind)]}


def _list_schema(kind: Kind) -> JsonObject:
    return {
        "description": f"{kind.list_kind} is a list of {kind.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": _DESCRIPTIONS["apiVersion"]},
            "kind": {"type": "string", "description": _DESCRIPTIONS["kind"]},
            "metadata": {
                "description": _DESCRIPTIONS["metadata"],
                "allOf": [{"$ref": f"{REFERENCE}{META}ListMeta"}],
            },
            "items": {
                "description": f"List of {kind.plural}.",
                "type": "array",
                "items": {"$ref": REFERENCE + schema_name(kind)},
            },
        },
        "x-kubernetes-group-version-kind": [gvk_of(kind, kind.list_kind)],
    }


def _parameter(name: str, type_: str = "string") -> JsonObject:
    return {"name": name, "in": "query", "schema": {"type": type_, "uniqueItems": True}}


_PARAMETERS: Final = [_parameter(name) for name in ("dryRun", "fieldManager", "fieldValidation")]
_LIST_PARAMETERS: Final = [
    *(_parameter(name) for name in ("continue", "fieldSelector", "labelSelector", "resourceVersion")),
    _parameter("resourceVersionMatch"),
    _parameter("limit", "integer"),
    _parameter("timeoutSeconds", "integer"),
    *(_parameter(name, "boolean") for name in ("allowWatchBookmarks", "sendInitialEvents", "watch")),
]


def _content(name: str, *media: str) -> JsonObject:
    schema = {"$ref": REFERENCE + name}
    return {"content": {form: {"schema": schema} for form in media or ("application/json",)}}


def _operation(kind: Kind, action: str) -> JsonObject:
    answer = schema_name(kind)
    if action in ("delete", "deletecollection"):
        answer = META + "Status"
    elif action == "list":
        answer = definition_of(kind.api_version, kind.list_kind) or _own_name(kind, kind.list_kind)
    operation: JsonObject = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk_of(kind),
        "responses": {"200": {"description": "OK", **_content(answer)}},
    }
    if action in ("post", "put"):
        operation["parameters"] = _PARAMETERS
        operation["requestBody"] = {**_content(schema_name(kind)), "required": True}
    elif action == "patch":
        operation["parameters"] = [*_PARAMETERS, _parameter("force", "boolean")]
        forms = [form for form in _PATCHES if not (kind.custom and "strategic" in form)]
        operation["requestBody"] = {**_content(META + "Patch", *forms), "required": True}
    elif action in ("list", "deletecollection"):
        operation["parameters"] = _LIST_PARAMETERS
    elif action == "delete":
        operation["parameters"] = [_parameter("dryRun"), _parameter("propagationPolicy")]
        operation["requestBody"] = _content(META + "DeleteOptions")
    return operation


def _in_path(name: str) -> JsonObject:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}


def _paths(kind: Kind) -> JsonObject:
    base = "/" + group_path(kind.group, kind.version)
    scope = [_in_path("namespace")] if kind.namespaced else []
    collection = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    made: JsonObject = {collection: {"post": _operation(kind, "post"), "parameters": scope}}
    if "list" not in kind.verbs:
        return made
    made[collection] |= {"get": _operation(kind, "list"), "delete": _operation(kind, "deletecollection")}
    if kind.namespaced:
        made[f"{base}/{kind.plural}"] = {"get": _operation(kind, "list")}
    one: JsonObject = {action: _operation(kind, action) for action in ("get", "put", "patch", "delete")}
    named = [_in_path("name"), *scope]
    made[collection + "/{name}"] = {**one, "parameters": named}
    if kind.status:
        status: JsonObject = {action: _operation(kind, action) for action in ("get", "put", "patch")}
        made[collection + "/{name}/status"] = {**status, "parameters": named}
    return made
