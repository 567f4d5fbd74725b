"""Strategic merge patch of built-in kinds: lists of named things are merged by their key, other lists replaced.

Directives: `$patch: delete|replace|merge`, `$deleteFromPrimitiveList/f`, `$setElementOrder/f`, `$retainKeys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import bad_request
from serving.local.apiserver.kinds import Kind

_SET: Final = ""
"""Merge key of a list of plain values that is a set."""

_DELETE_FROM: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"

# Path below the object (lists add nothing to it) -> merge key. Keys are tried from the longest path to the
# shortest.
_METADATA: Final = {"metadata.ownerReferences": "uid", "metadata.finalizers": _SET}
_CONTAINER: Final = {
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
}
_POD_LISTS: Final = {
    "volumes": "name",
    "imagePullSecrets": "name",
    "schedulingGates": "name",
    "resourceClaims": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}


def _pod_spec(prefix: str) -> dict[str, str]:
    keys = {f"{prefix}.{field}": key for field, key in _POD_LISTS.items()}
    for containers in ("containers", "initContainers", "ephemeralContainers"):
        keys[f"{prefix}.{containers}"] = "name"
        keys |= {f"{prefix}.{containers}.{field}": key for field, key in _CONTAINER.items()}
    return keys


_STATUS: Final = {"status.conditions": "type"}
_BY_STORAGE: Final[Mapping[str, Mapping[str, str]]] = {
    "pods": {**_pod_spec("spec"), **_STATUS, "status.podIPs": "ip", "status.hostIPs": "ip"},
    "nodes": {**_STATUS, "status.addresses": "type", "spec.podCIDRs": _SET},
    "namespaces": _STATUS,
    "services": {**_STATUS, "spec.ports": "port"},
    "serviceaccounts": {"secrets": "name"},
    "deployments.apps": {**_pod_spec("spec.template.spec"), **_STATUS},
    "poddisruptionbudgets.policy": _STATUS,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": {"webhooks": "name"},
    "validatingwebhookconfigurations.admissionregistration.k8s.io": {"webhooks": "name"},
}


def merge_keys(kind: Kind) -> dict[str, str]:
    """The merge key of each list of this kind that is merged, by path."""
    return {**_METADATA, **_BY_STORAGE.get(kind.storage, {})}


def apply(obj: JsonObject, change: object, kind: Kind) -> JsonObject:
    """The patched object; `obj` is left as it is. Raises StatusError 400 for a patch that cannot be read."""
    if not isinstance(change, dict):
        raise bad_request("error decoding patch: a strategic merge patch must be a JSON object")
    return _merge_object(obj, change, "", merge_keys(kind))


def _merge_object(target: JsonObject, change: JsonObject, path: str, keys: Mapping[str, str]) -> JsonObject:
    directive = change.get("$patch")
    if directive == "replace":
        return {name: _strip(value) for name, value in change.items() if name != "$patch" and value is not None}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f'Unknown patch type found: "{directive}"')
    result = dict(target)
    for name, value in change.items():
        if name.startswith("$"):
            continue
        child = f"{path}.{name}" if path else name
        order = change.get(_ORDER + name)
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            current = result.get(name)
            result[name] = _merge_object(current if isinstance(current, dict) else {}, value, child, keys)
        elif isinstance(value, list) and child in keys:
            current = result.get(name)
            items = current if isinstance(current, list) else []
            result[name] = _merge_list(items, value, order, child, keys)
        else:
            result[name] = _strip(value)
    _finish(result, change, path, keys)
    return result


def _finish(result: JsonObject, change: JsonObject, path: str, keys: Mapping[str, str]) -> None:
    """Directives that stand beside the fields they are about."""
    for name, value in change.items():
        if name.startswith(_DELETE_FROM):
            field = name.removeprefix(_DELETE_FROM)
            if isinstance(result.get(field), list):
                result[field] = [item for item in result[field] if item not in value]
        elif name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            child = f"{path}.{field}" if path else field
            if field not in change and isinstance(result.get(field), list) and child in keys:
                result[field] = _ordered(result[field], value, keys[child])
    retained = change.get("$retainKeys")
    if isinstance(retained, list):
        for name in [name for name in result if name not in retained]:
            del result[name]


def _merge_list(
    target: list[Any], change: list[Any], order: list[Any] | None, path: str, keys: Mapping[str, str]
) -> list[Any]:
    key = keys[path]
    if key == _SET:
        result = list(target) + [item for item in change if item not in target]
        return _ordered(result, order, key) if order is not None else result
    if any(isinstance(item, dict) and item == {"$patch": "replace"} for item in change):
        return [_strip(item) for item in change if item != {"$patch": "replace"}]
    result = [item for item in target if isinstance(item, dict)]
    for item in change:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item!r} does not contain declared merge key: {key}")
        at = next((index for index, have in enumerate(result) if have.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            result = [have for have in result if have.get(key) != item[key]]
        elif at is None:
            result.append(_merge_object({}, item, path, keys))
        else:
            result[at] = _merge_object(result[at], item, path, keys)
    return _ordered(result, order, key) if order is not None else result


def _ordered(items: list[Any], order: list[Any], key: str) -> list[Any]:
    """Items named in `order` in that order; the others keep their place relative to their neighbours before
    them."""
    wanted = [entry.get(key) if isinstance(entry, dict) else entry for entry in order]

    def identity(item: Any) -> Any:
        return item.get(key) if key != _SET and isinstance(item, dict) else item

    listed = sorted((i for i in items if identity(i) in wanted), key=lambda item: wanted.index(identity(item)))
    result: list[Any] = []
    pending = iter(listed)
    for item in items:
        if identity(item) in wanted:
            result.append(next(pending))
        else:
            result.append(item)
    return result


def _strip(value: Any) -> Any:
    """A new value without directives and nulls."""
    if isinstance(value, dict):
        return {
            name: _strip(item) for name, item in value.items() if not name.startswith("$") and item is not None
        }
    if isinstance(value, list):
        return [_strip(item) for item in value]
    return value
