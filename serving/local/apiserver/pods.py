"""Defaults of Pods, as kube-apiserver applies them."""

from __future__ import annotations

from serving.api.meta import JsonObject
from serving.local.apiserver.podspec import CONTAINER_LISTS, default_pod_spec


def default_pod(pod: JsonObject) -> None:
    """In place. Raises StatusError 400 for a quantity that cannot be read."""
    spec = pod.setdefault("spec", {})
    default_pod_spec(spec)
    for field in CONTAINER_LISTS:
        for container in spec.get(field) or ():
            _request_limits(container)
    spec.setdefault("enableServiceLinks", True)
    if spec["terminationGracePeriodSeconds"] < 0:
        spec["terminationGracePeriodSeconds"] = 1
    status = pod.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", qos_class(spec))
    for condition in status.get("conditions") or ():
        condition.setdefault("lastProbeTime", None)
        condition.setdefault("lastTransitionTime", None)


def _request_limits(container: object) -> None:
    """What has a limit and no request requests its limit."""
    resources = container.get("resources") if isinstance(container, dict) else None
    if isinstance(resources, dict) and resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}


def qos_class(spec: JsonObject) -> str:
    """Guaranteed, Burstable or BestEffort."""
    containers = [c for field in CONTAINER_LISTS for c in spec.get(field) or () if isinstance(c, dict)]
    resources = [container.get("resources") or {} for container in containers]
    if not any(entry.get("requests") or entry.get("limits") for entry in resources):
        return "BestEffort"
    for entry in resources:
        limits, requests = entry.get("limits") or {}, entry.get("requests") or {}
        if not {"cpu", "memory"} <= set(limits) or any(requests.get(k, v) != v for k, v in limits.items()):
            return "Burstable"
    return "Guaranteed"
