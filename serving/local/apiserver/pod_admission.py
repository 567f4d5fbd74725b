"""What kube-apiserver's admission adds to a new Pod: defaults of LimitRanges, priority, tolerations. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from serving.api.meta import JsonObject
from serving.api.quantity import parse_quantity
from serving.local.apiserver.errors import forbidden

_TOLERATION_SECONDS: Final = 300
_TAINTS: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_CONTAINERS: Final = ("containers", "initContainers")


def complete(pod: JsonObject, ranges: Iterable[JsonObject]) -> None:
    """In place. `ranges` are the LimitRanges of its namespace."""
    spec = pod.get("spec")
    if not isinstance(spec, dict):
        return  # validation says so
    for item in _items(ranges, "Container"):
        for field in _CONTAINERS:
            for container in spec.get(field) or ():
                _default_resources(container, item)
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    tolerate(spec)


def tolerate(spec: JsonObject) -> None:
    """Every Pod bears a node that is away for a while, in place; also after an update."""
    tolerations = list(spec.get("tolerations") or ())
    for key in _TAINTS:
        if not any(_tolerates(toleration, key) for toleration in tolerations):
            tolerations.append(
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": _TOLERATION_SECONDS,
                }
            )
    spec["tolerations"] = tolerations


def _tolerates(toleration: JsonObject, key: str) -> bool:
    return toleration.get("key") in (None, "", key) and toleration.get("effect") in (None, "", "NoExecute")


def _items(ranges: Iterable[JsonObject], kind: str) -> list[JsonObject]:
    return [
        item
        for found in ranges
        for item in (found.get("spec") or {}).get("limits") or ()
        if item.get("type") == kind
    ]


def _default_resources(container: JsonObject, item: JsonObject) -> None:
    limits = item.get("default") or item.get("max") or {}
    requests = item.get("defaultRequest") or item.get("default") or item.get("min") or item.get("max") or {}
    resources = container.setdefault("resources", {})
    for field, defaults in (("limits", limits), ("requests", requests)):
        merged = {**defaults, **(resources.get(field) or {})}
        if merged:
            resources[field] = merged


def check(pod: JsonObject, ranges: Iterable[JsonObject]) -> None:
    """Raises StatusError 403 for a container outside of a LimitRange."""
    problems: list[str] = []
    for item in _items(ranges, "Container"):
        for container in pod["spec"].get("containers") or ():
            problems += _outside(container.get("resources") or {}, item)
    if problems:
        listed = problems[0] if len(problems) == 1 else "[" + ", ".join(problems) + "]"
        raise forbidden("pods", "", pod["metadata"]["name"], listed)


def _outside(resources: JsonObject, item: JsonObject) -> list[str]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    problems: list[str] = []
    for name, least in sorted((item.get("min") or {}).items()):
        if name not in requests:
            problems.append(f"minimum {name} usage per Container is {least}.  No request is specified")
        elif parse_quantity(requests[name]) < parse_quantity(least):
            problems.append(f"minimum {name} usage per Container is {least}, but request is {requests[name]}")
    for name, most in sorted((item.get("max") or {}).items()):
        if name not in limits:
            problems.append(f"maximum {name} usage per Container is {most}.  No limit is specified")
        elif parse_quantity(limits[name]) > parse_quantity(most):
            problems.append(f"maximum {name} usage per Container is {most}, but limit is {limits[name]}")
    return problems
