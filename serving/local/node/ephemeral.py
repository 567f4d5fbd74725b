"""Limits of what a pod may keep on disk: `ephemeral-storage` of its containers, `sizeLimit` of its emptyDirs.

As with a kubelet, usage is looked at from time to time and a pod that has exceeded a limit is evicted; writes are
not stopped. A container uses its writable layer and its logs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from serving.api.pod import Pod
from serving.api.quantity import parse_int
from serving.local.node.paths import NodePaths

REASON: Final = "Evicted"
_RESOURCE: Final = "ephemeral-storage"
_BLOCK: Final = 512


class Limit(msgspec.Struct, frozen=True):
    bytes: int
    text: str
    """As the pod says it."""


class StorageLimits(msgspec.Struct, frozen=True, kw_only=True):
    containers: dict[str, Limit]
    volumes: dict[str, Limit]

    def __bool__(self) -> bool:
        return bool(self.containers or self.volumes)


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, by name."""

    containers: Mapping[str, int] = {}
    volumes: Mapping[str, int] = {}
    """emptyDirs; those in memory do not count for the pod as a whole."""
    disk_volumes: int = 0


def storage_limits(pod: Pod) -> StorageLimits:
    """Raises QuantityError."""
    containers = {}
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        if _RESOURCE in container.resources.limits:
            text = str(container.resources.limits[_RESOURCE])
            containers[container.name] = Limit(parse_int(text), text)
    volumes = {}
    for volume in pod.spec.volumes:
        size = (volume.get("emptyDir") or {}).get("sizeLimit")
        if size and parse_int(size):
            volumes[volume["name"]] = Limit(parse_int(size), str(size))
    return StorageLimits(containers=containers, volumes=volumes)


def exceeded(limits: StorageLimits, usage: Usage) -> str | None:
    """Why the pod is to be evicted, in the kubelet's words; None = it is not."""
    for name, limit in limits.volumes.items():
        if usage.volumes.get(name, 0) > limit.bytes:
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit.text}". '
    total = sum(limit.bytes for limit in limits.containers.values())
    if total and sum(usage.containers.values()) + usage.disk_volumes > total:
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
    for name, limit in limits.containers.items():
        if usage.containers.get(name, 0) > limit.bytes:
            return f'Container {name} exceeded its local ephemeral storage limit "{limit.text}". '
    return None


def measure(pod: Pod, paths: NodePaths) -> Usage:
    """What the pod uses now. Blocking."""
    meta = pod.metadata
    layers = paths.sandbox(meta.uid) / "containers"
    logs = paths.pod_logs(meta.namespace, meta.name, meta.uid)
    containers = {
        container.name: disk_usage(logs / container.name)
        + sum(disk_usage(layer / "upper") for layer in _layers(layers, container.name))
        for container in (*pod.spec.init_containers, *pod.spec.containers)
    }
    volumes, on_disk = {}, 0
    for volume in pod.spec.volumes:
        source = volume.get("emptyDir")
        if source is None:
            continue
        in_memory = source.get("medium") == "Memory"
        used = disk_usage(paths.volume(meta.uid, volume["name"], in_memory=in_memory))
        volumes[volume["name"]] = used
        on_disk += 0 if in_memory else used
    return Usage(containers=containers, volumes=volumes, disk_volumes=on_disk)


def _layers(directory: Path, container: str) -> list[Path]:
    """The writable layers of the container's attempts."""
    found = directory.glob(f"{container}-*")
    return [path for path in found if path.name.removeprefix(f"{container}-").isdecimal()]


def disk_usage(path: Path) -> int:
    """Bytes that a tree takes; what vanishes meanwhile takes none. Trees may be deeper than a path is long."""
    total = 0
    waiting = [os.fspath(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue
    return total
