"""What the node and its pods use, as the kubelet shows it: `/stats/summary` and `/metrics/resource`. Pure.

A sandbox measures a pod as a whole. Where a pod has one container that is also the container's use, which is what
metrics-server asks for.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from serving.api.meta import JsonObject
from serving.api.timestamps import format_seconds


class NodeUse(msgspec.Struct, frozen=True, kw_only=True):
    cpu_seconds: float
    memory_bytes: int
    started_at: float


class PodUse(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    namespace: str
    uid: str
    containers: tuple[tuple[str, float], ...]
    """Names of running containers, and since when (Unix seconds)."""
    cpu_seconds: float
    memory_bytes: int
    pids: int


def summary(node_name: str, node: NodeUse, pods: Sequence[PodUse], *, now: float) -> JsonObject:
    at = format_seconds(now)

    def use(cpu_seconds: float, memory_bytes: int) -> JsonObject:
        return {
            "cpu": {"time": at, "usageCoreNanoSeconds": int(cpu_seconds * 1e9)},
            "memory": {"time": at, "workingSetBytes": memory_bytes},
        }

    return {
        "node": {
            "nodeName": node_name,
            "startTime": format_seconds(node.started_at),
            **use(node.cpu_seconds, node.memory_bytes),
        },
        "pods": [
            {
                "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                **use(pod.cpu_seconds, pod.memory_bytes),
                "process_stats": {"process_count": pod.pids},
                "containers": [
                    {
                        "name": name,
                        "startTime": format_seconds(since),
                        **(use(pod.cpu_seconds, pod.memory_bytes) if len(pod.containers) == 1 else {}),
                    }
                    for name, since in pod.containers
                ],
            }
            for pod in pods
        ],
    }


def exposition(node: NodeUse, pods: Sequence[PodUse], *, now: float) -> str:
    """In the text format of Prometheus, with the kubelet's names."""
    at = int(now * 1000)
    lines = [
        *_family("node_cpu_usage_seconds_total", "counter", [("", node.cpu_seconds)], at),
        *_family("node_memory_working_set_bytes", "gauge", [("", node.memory_bytes)], at),
    ]
    named = [(f'namespace="{pod.namespace}",pod="{pod.name}"', pod) for pod in pods]
    single = [
        (f'container="{pod.containers[0][0]}",{labels}', pod) for labels, pod in named if len(pod.containers) == 1
    ]
    for prefix, of in (("pod", named), ("container", single)):
        lines += _family(f"{prefix}_cpu_usage_seconds_total", "counter", [(x, p.cpu_seconds) for x, p in of], at)
        lines += _family(f"{prefix}_memory_working_set_bytes", "gauge", [(x, p.memory_bytes) for x, p in of], at)
    starts = [(f'container="{name}",{labels}', since) for labels, pod in named for name, since in pod.containers]
    lines += _family("container_start_time_seconds", "gauge", starts, None)
    lines += _family("resource_scrape_error", "gauge", [("", 0)], None)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, samples: Sequence[tuple[str, float]], at: int | None) -> list[str]:
    if not samples:
        return []
    suffix = "" if at is None else f" {at}"
    rows = [
        f"{name}{{{labels}}} {value}{suffix}" if labels else f"{name} {value}{suffix}" for labels, value in samples
    ]
    return [f"# TYPE {name} {kind}", *rows]
