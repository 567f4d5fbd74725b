"""ResourceQuotas: what a namespace uses, and whether a new object still fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Final

from serving.api.meta import JsonObject
from serving.api.quantity import parse_quantity
from serving.local.apiserver.errors import StatusError, forbidden
from serving.local.apiserver.kinds import Kind

Usage = dict[str, Fraction]

_COUNTED: Final = (
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
)
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_BINARY: Final = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL: Final = ("", "k", "M", "G", "T", "P", "E")


def usage_of(obj: JsonObject, qualified: str) -> Usage:
    """What one object of the resource (`pods`, `deployments.apps`) counts for."""
    used: Usage = {f"count/{qualified}": Fraction(1)}
    if qualified == "pods":
        used |= _pod_usage(obj)
    elif qualified in _COUNTED:
        used[qualified] = Fraction(1)
    if qualified == "services":
        spec = obj.get("spec") or {}
        used["services.loadbalancers"] = Fraction(spec.get("type") == "LoadBalancer")
        ports = [port for port in spec.get("ports") or () if port.get("nodePort")]
        used["services.nodeports"] = Fraction(len(ports))
    return used


def _pod_usage(pod: JsonObject) -> Usage:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {}
    used: Usage = {"pods": Fraction(1)}
    spec = pod.get("spec") or {}
    for name in _COMPUTE:
        for field in ("requests", "limits"):
            together = sum((_amount(c, field, name) for c in spec.get("containers") or ()), Fraction(0))
            alone = max((_amount(c, field, name) for c in spec.get("initContainers") or ()), default=Fraction(0))
            used[f"{field}.{name}"] = max(together, alone)
        used[name] = used[f"requests.{name}"]
    return used


def _amount(container: JsonObject, field: str, name: str) -> Fraction:
    return parse_quantity(((container.get("resources") or {}).get(field) or {}).get(name, 0))


def total(objects: Iterable[tuple[JsonObject, str]]) -> Usage:
    used: Usage = {}
    for obj, qualified in objects:
        for name, amount in usage_of(obj, qualified).items():
            used[name] = used.get(name, Fraction(0)) + amount
    return used


def applies(quota: JsonObject, obj: JsonObject, qualified: str) -> bool:
    """Whether the scopes of a quota take in the object. Scopes select Pods only."""
    spec = quota.get("spec") or {}
    scopes = list(spec.get("scopes") or ())
    scopes += [item.get("scopeName") for item in (spec.get("scopeSelector") or {}).get("matchExpressions") or ()]
    if not scopes:
        return True
    if qualified != "pods":
        return False
    best_effort = (obj.get("status") or {}).get("qosClass") == "BestEffort"
    terminating = "activeDeadlineSeconds" in (obj.get("spec") or {})
    known = {
        "BestEffort": best_effort,
        "NotBestEffort": not best_effort,
        "Terminating": terminating,
        "NotTerminating": not terminating,
    }
    return all(known.get(str(scope), False) for scope in scopes)


def check(kind: Kind, obj: JsonObject, quota: JsonObject, used: Mapping[str, Fraction]) -> None:
    """`used` is what the namespace uses without the object. Raises StatusError 403."""
    hard: JsonObject = (quota.get("spec") or {}).get("hard") or {}
    wanted = {name: amount for name, amount in usage_of(obj, kind.qualified).items() if name in hard}
    if not wanted or not applies(quota, obj, kind.qualified):
        return
    quota_name = quota["metadata"]["name"]
    if kind.qualified == "pods" and (missing := _unspecified(obj, hard)):
        raise _refused(kind, obj, f"failed quota: {quota_name}: must specify {missing}")
    over = sorted(
        name
        for name, amount in wanted.items()
        if amount and used.get(name, Fraction(0)) + amount > parse_quantity(hard[name])
    )
    if over:
        listed = [
            ",".join(f"{name}={amounts[name]}" for name in over)
            for amounts in (
                {name: shown(wanted[name], like=str(hard[name])) for name in over},
                {name: shown(used.get(name, Fraction(0)), like=str(hard[name])) for name in over},
                hard,
            )
        ]
        text = f"exceeded quota: {quota_name}, requested: {listed[0]}, used: {listed[1]}, limited: {listed[2]}"
        raise _refused(kind, obj, text)


def _refused(kind: Kind, obj: JsonObject, text: str) -> StatusError:
    return forbidden(kind.plural, kind.group, obj["metadata"].get("name") or "", text)


def _unspecified(pod: JsonObject, hard: JsonObject) -> str:
    """Resources that the quota limits and that a container does not name."""
    missing: list[str] = []
    containers = (pod.get("spec") or {}).get("containers") or ()
    for name in sorted(hard):
        field, _, resource = name.rpartition(".")
        if resource not in _COMPUTE:
            continue
        named = [
            container["name"]
            for container in containers
            if resource not in ((container.get("resources") or {}).get(field or "requests") or {})
        ]
        if named:
            missing.append(f"{name} for: {','.join(named)}")
    return "; ".join(missing)


def status(quota: JsonObject, used: Mapping[str, Fraction]) -> JsonObject:
    """The status of a quota: its limits and what is used of them."""
    hard: JsonObject = (quota.get("spec") or {}).get("hard") or {}
    return {
        "hard": dict(hard),
        "used": {name: shown(used.get(name, Fraction(0)), like=str(hard[name])) for name in hard},
    }


def shown(amount: Fraction, *, like: str) -> str:
    """The canonical text of a quantity, with binary suffixes if `like` has one."""
    if amount.denominator != 1:
        return f"{-(-amount.numerator * 1000 // amount.denominator)}m"
    number = amount.numerator
    base, suffixes = (1024, ("", *_BINARY)) if like.endswith("i") else (1000, _DECIMAL)
    power = 0
    while number and number % base == 0 and power + 1 < len(suffixes):
        number //= base
        power += 1
    return f"{number}{suffixes[power]}"
