"""The Node object and its Lease: tells the API server that this machine takes pods.

The Node is written when it is missing or says something else than it should; life is shown by the Lease alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from serving.api.keys import POOL_LABEL
from serving.api.meta import JsonObject
from serving.api.quantity import format_bytes, parse_quantity
from serving.api.resources import LEASES, NAMESPACES, NODES
from serving.api.timestamps import format_micros, format_seconds
from serving.kube.client import KubeClient
from serving.kube.errors import AlreadyExists, KubeError, NotFound
from serving.local.node.settings import NodeSettings

log = logging.getLogger(__name__)

LEASE_NAMESPACE: Final = "kube-node-lease"
LEASE_SECONDS: Final = 40
RENEW_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
KUBELET_ANNOTATION: Final = "nodeless.dev/kubelet"
"""On the Node: where its kubelet API listens, `unix:<path>`."""
SANDBOX_ANNOTATION: Final = "nodeless.dev/sandbox"
TAINT: Final = {"key": "virtual-kubelet.io/provider", "value": "nodeless", "effect": "NoSchedule"}
"""In a cluster with a scheduler: our pool binds its pods itself, others' must tolerate this to come here."""
VIRTUAL_LABELS: Final = {
    "type": "virtual-kubelet",
    "node.kubernetes.io/exclude-from-external-load-balancers": "true",
}
"""By which DaemonSets and load balancers leave out nodes that are no machines."""
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_HEALTHY: Final = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def machine_capacity(data_dir: Path, *, max_pods: int) -> dict[str, str]:
    """What this machine has, as resource quantities. Blocking."""
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": format_bytes(psutil.virtual_memory().total // 1024 * 1024),
        "ephemeral-storage": format_bytes(shutil.disk_usage(data_dir).total // 1024 * 1024),
        "pods": str(max_pods),
    }


def node_object(
    settings: NodeSettings, *, rung: str, capacity: dict[str, str], version: str, port: int | None = None
) -> JsonObject:
    """The Node as it should be, without times. `port`: where a real API server reaches the kubelet API."""
    node = _node(settings, rung=rung, capacity=capacity, version=version)
    if port is not None:
        node["metadata"]["labels"] = VIRTUAL_LABELS | node["metadata"]["labels"]
        node["spec"] = {"taints": [TAINT]}
        node["status"]["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
        # API servers try a host name first, and this one is a name that nobody needs to be able to resolve.
        addresses = node["status"]["addresses"]
        node["status"]["addresses"] = [one for one in addresses if one["type"] != "Hostname"]
    return node


def _node(settings: NodeSettings, *, rung: str, capacity: dict[str, str], version: str) -> JsonObject:
    machine = platform.machine()
    arch = _ARCHITECTURES.get(machine, machine)
    labels = {
        POOL_LABEL: settings.pool,
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/arch": arch,
        "kubernetes.io/os": "linux",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": settings.name,
            "labels": labels | settings.labels,
            "annotations": {KUBELET_ANNOTATION: f"unix:{settings.socket}", SANDBOX_ANNOTATION: rung}
            | settings.annotations,
        },
        "status": {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [
                {"type": "InternalIP", "address": settings.address},
                {"type": "Hostname", "address": settings.name},
            ],
            "conditions": [
                {"type": kind, "status": status, "reason": reason, "message": message}
                for kind, status, reason, message in _HEALTHY
            ],
            "nodeInfo": {
                "architecture": arch,
                "operatingSystem": "linux",
                "kernelVersion": platform.release(),
                "osImage": "Linux",
                "containerRuntimeVersion": f"nodeless-{rung}://{version}",
                "kubeletVersion": f"v1.34.0-nodeless.{version}",
                "kubeProxyVersion": "",
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
            },
        },
    }


def metadata_patch(old: JsonObject, new: JsonObject) -> JsonObject:
    """Merge patch of labels and annotations that differ; others' stay. Pure."""
    patch = {}
    for field in ("labels", "annotations"):
        have = old["metadata"].get(field) or {}
        change = {key: value for key, value in new["metadata"][field].items() if have.get(key) != value}
        if change:
            patch[field] = change
    return {"metadata": patch} if patch else {}


def taint_patch(old: JsonObject, new: JsonObject) -> JsonObject:
    """Merge patch that adds our taints to others'; refused when somebody else writes meanwhile. Pure."""
    have = (old.get("spec") or {}).get("taints") or []
    keys = {(taint["key"], taint["effect"]) for taint in have}
    missing = [
        taint for taint in new.get("spec", {}).get("taints", ()) if (taint["key"], taint["effect"]) not in keys
    ]
    if not missing:
        return {}
    version = {"resourceVersion": old["metadata"]["resourceVersion"]}
    return {"metadata": version, "spec": {"taints": [*have, *missing]}}


def node_status_patch(old: JsonObject, new: JsonObject, now: float) -> JsonObject:
    """Merge patch of the status fields that differ; a condition keeps its times while it stays the same. Pure."""
    have, want = old.get("status") or {}, new["status"]
    patch: JsonObject = {}
    for field in ("addresses", "nodeInfo", "daemonEndpoints"):
        if field in want and not _covers(have.get(field), want[field]):
            patch[field] = want[field]
    for field in ("capacity", "allocatable"):
        if not _same_amounts(have.get(field) or {}, want[field]):
            patch[field] = want[field]
    conditions = {condition["type"]: condition for condition in have.get("conditions") or []}
    changed = False
    for condition in want["conditions"]:
        known = conditions.get(condition["type"])
        if known is not None and _covers(known, condition):
            continue
        since = format_seconds(now)
        if known is not None and known.get("status") == condition["status"]:
            since = known.get("lastTransitionTime") or since
        times = {"lastHeartbeatTime": format_seconds(now), "lastTransitionTime": since}
        conditions[condition["type"]] = condition | times
        changed = True
    if changed:
        patch["conditions"] = list(conditions.values())
    return {"status": patch} if patch else {}


async def keep_registered(
    client: KubeClient,
    node: JsonObject,
    *,
    now: Callable[[], float],
    registered: Callable[[], None] | None = None,
) -> None:
    """Register and stay registered until cancelled. `registered` is called after the first time."""
    while True:
        try:
            uid = await _ensure_node(client, node, now)
            await _renew(client, node["metadata"]["name"], uid, now())
        except KubeError as error:
            log.warning("node %s: %s", node["metadata"]["name"], error)
            await asyncio.sleep(_RETRY_SECONDS)
            continue
        if registered is not None:
            registered()
            registered = None
        await asyncio.sleep(RENEW_SECONDS)


async def _ensure_node(client: KubeClient, node: JsonObject, now: Callable[[], float]) -> str:
    """Its uid."""
    name = node["metadata"]["name"]
    try:
        current = await client.get(NODES, name)
    except NotFound:
        try:
            fields = ("apiVersion", "kind", "metadata", "spec")
            current = await client.create(NODES, {key: node[key] for key in fields if key in node})
        except AlreadyExists:
            current = await client.get(NODES, name)
    patch = metadata_patch(current, node)
    if patch:
        current = await client.patch(NODES, name, patch)
    patch = taint_patch(current, node)
    if patch:
        await client.patch(NODES, name, patch)
    patch = node_status_patch(current, node, now())
    if patch:
        await client.patch(NODES, name, patch, subresource="status")
    uid: str = current["metadata"]["uid"]
    return uid


async def _renew(client: KubeClient, name: str, uid: str, now: float) -> None:
    spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": format_micros(now)}
    try:
        await client.patch(LEASES, name, {"spec": spec}, LEASE_NAMESPACE)
        return
    except NotFound:
        pass
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
    lease: JsonObject = {
        "apiVersion": LEASES.api_version,
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
        "spec": spec,
    }
    try:
        await client.create(LEASES, lease, LEASE_NAMESPACE)
    except NotFound:  # the namespace is missing
        namespace: JsonObject = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LEASE_NAMESPACE}}
        try:
            await client.create(NAMESPACES, namespace)
        except AlreadyExists:
            pass
        await client.create(LEASES, lease, LEASE_NAMESPACE)


def _same_amounts(have: dict[str, str], want: dict[str, str]) -> bool:
    """By value: an API server writes quantities its own way, e.g. 1000 as 1k."""
    return all(name in have and parse_quantity(have[name]) == parse_quantity(want[name]) for name in want)


def _covers(have: Any, want: Any) -> bool:
    """Whether `have` says all that `want` does; it may say more."""
    if isinstance(want, dict):
        known = have if isinstance(have, dict) else {}
        return all(_covers(known.get(key), value) for key, value in want.items() if value != "")
    return bool(have == want)
