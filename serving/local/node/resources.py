"""CPU and memory of containers and pods, as cgroups take them, and whether a pod can fit at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from serving.api.pod import Container, PodSpec
from serving.api.quantity import parse_int, parse_milli

PAGE: Final = 4096
_MIN_SHARES: Final = 2
_SHARES_PER_CPU: Final = 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """None = unlimited, or no share asked for."""

    cpu_millis: int | None = None
    cpu_shares: int | None = None
    memory_bytes: int | None = None


def container_limits(container: Container) -> Limits:
    """Raises QuantityError."""
    limits, requests = container.resources.limits, container.resources.requests
    cpu = parse_milli(limits["cpu"]) if "cpu" in limits else 0
    memory = parse_int(limits["memory"]) if "memory" in limits else 0
    asked = requests.get("cpu", limits.get("cpu"))
    shares = None if asked is None else max(parse_milli(asked) * _SHARES_PER_CPU // 1000, _MIN_SHARES)
    return Limits(
        cpu_millis=cpu or None,
        cpu_shares=shares,
        memory_bytes=memory // PAGE * PAGE or None,
    )


def pod_limits(spec: PodSpec) -> Limits:
    """The pod as a whole: the sum of its containers, or an init container that is larger; unlimited as soon as
    one of them is. Raises QuantityError."""
    apps = [container_limits(container) for container in spec.containers]
    inits = [container_limits(container) for container in spec.init_containers]
    return Limits(
        cpu_millis=_bound([c.cpu_millis for c in apps], [c.cpu_millis for c in inits]),
        memory_bytes=_bound([c.memory_bytes for c in apps], [c.memory_bytes for c in inits]),
    )


def misfit(spec: PodSpec, allocatable: Mapping[str, str]) -> tuple[str, str] | None:
    """(reason, message) when the node could not run the pod even if it ran nothing else.

    Raises QuantityError.
    """
    for resource, parse, reason in (("cpu", parse_milli, "OutOfcpu"), ("memory", parse_int, "OutOfmemory")):
        capacity = parse(allocatable[resource]) if resource in allocatable else None
        asked = sum(
            parse(c.resources.requests.get(resource, c.resources.limits.get(resource, "0")))
            for c in spec.containers
        )
        if capacity is not None and asked > capacity:
            message = (
                f"Pod was rejected: Node didn't have enough resource: {resource}, requested: {asked}, "
                f"used: 0, capacity: {capacity}"
            )
            return reason, message
    return None


def _bound(apps: Iterable[int | None], inits: Iterable[int | None]) -> int | None:
    total = 0
    for value in apps:
        if value is None:
            return None
        total += value
    for value in inits:
        if value is None:
            return None
        total = max(total, value)
    return total or None
