"""Whether a PodDisruptionBudget lets a Pod be evicted. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.selectors import from_label_selector, match_labels


def check(pod: JsonObject, budgets: Iterable[JsonObject], pods: Iterable[JsonObject]) -> None:
    """`budgets` and `pods` of the Pod's namespace. Raises StatusError 429 when a budget would be violated."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed", "Pending"):
        return
    listed = list(pods)
    for budget in budgets:
        spec = budget.get("spec") or {}
        selector = from_label_selector(spec.get("selector") or {})
        labels = pod["metadata"].get("labels") or {}
        if spec.get("selector") is None or not match_labels(selector, labels):
            continue
        covered = [other for other in listed if match_labels(selector, other["metadata"].get("labels") or {})]
        healthy = [other for other in covered if _healthy(other)]
        if not _healthy(pod):
            continue
        wanted = _wanted(spec, len(covered))
        if len(healthy) - 1 < wanted:
            raise _refused(budget["metadata"]["name"], wanted, len(healthy))


def _healthy(pod: JsonObject) -> bool:
    if "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _wanted(spec: JsonObject, covered: int) -> int:
    """How many healthy Pods must stay."""
    if "maxUnavailable" in spec:
        return max(0, covered - _amount(spec["maxUnavailable"], covered))
    return _amount(spec.get("minAvailable", 0), covered)


def _amount(value: object, of: int) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(of * int(value[:-1]) / 100)
    return int(str(value))


def _refused(name: str, wanted: int, healthy: int) -> StatusError:
    cause = {
        "reason": "DisruptionBudget",
        "message": f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently",
    }
    return StatusError(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        details={"causes": [cause], "retryAfterSeconds": 10},
        headers={"Retry-After": "10"},
    )
