"""The scale subresource: two numbers of an object, seen as an `autoscaling/v1 Scale`. Pure."""

from __future__ import annotations

from typing import Any

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.jsonpath import first
from serving.local.apiserver.kinds import Kind, Scale


def to_scale(obj: JsonObject, scale: Scale, *, strict: bool = False) -> JsonObject:
    """`strict` refuses (StatusError 500) an object that says nothing about replicas."""
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    replicas = first(obj, scale.spec_replicas)
    if replicas is None and strict:
        raise errors.internal(f'the spec replicas field "{scale.spec_replicas}" does not exist')
    status: JsonObject = {"replicas": first(obj, scale.status_replicas) or 0}
    selector = _selector(first(obj, scale.label_selector)) if scale.label_selector else ""
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _selector(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in sorted((value.get("matchLabels") or {}).items()))
    return ""


def from_scale(obj: JsonObject, body: JsonObject, kind: Kind, scale: Scale) -> JsonObject:
    """`obj` with the replicas of a Scale. Raises StatusError 422 for a number that cannot be."""
    replicas = (body.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        if kind.custom:
            cause = errors.invalid_value(scale.spec_replicas, replicas, "should be a non-negative integer")
            raise errors.invalid(kind.kind, kind.group, obj["metadata"]["name"], [cause])
        cause = errors.invalid_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise errors.invalid("Scale", "autoscaling", obj["metadata"]["name"], [cause])
    result = dict(obj)
    if wanted := (body.get("metadata") or {}).get("resourceVersion"):
        result["metadata"] = {**obj["metadata"], "resourceVersion": wanted}
    level = result
    *parents, last = scale.spec_replicas.strip(".").split(".")
    for name in parents:
        level[name] = dict(level.get(name) or {})
        level = level[name]
    level[last] = replicas
    return result
