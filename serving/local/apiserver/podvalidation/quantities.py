"""Resource quantities as they are stored, and what a container may request. Pure."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.api.quantity import parse_quantity
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause

UNREADABLE: Final = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_DECIMAL: Final = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_BINARY: Final = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_CONTAINER: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_HUGE: Final = "hugepages-"
_NAMESPACE: Final = "kubernetes.io/"
_REQUESTS: Final = "requests."
_QUOTA_ONLY: Final = frozenset(
    {
        *(f"{list_}.{name}" for list_ in ("requests", "limits") for name in _CONTAINER),
        *("pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps"),
        *("persistentvolumeclaims", "requests.storage", "services.nodeports", "services.loadbalancers"),
    }
)


@lru_cache(maxsize=1024, typed=True)
def canonical(value: str | int | float) -> str:
    """The one form in which an amount is stored: `0.5` is `500m`, `1024Mi` is `1Gi`. Raises QuantityError."""
    amount, text = parse_quantity(value), str(value)
    if text.endswith("i") and abs(amount) >= 1024 and amount.denominator == 1:
        return _scaled(amount.numerator, 1024, _BINARY)
    nanos = amount * 10**9
    whole = math.ceil(nanos) if nanos > 0 else math.floor(nanos)
    if re.search(r"[eE][+-]?[0-9]+$", text):
        exponents = tuple(f"e{power}" if power else "" for power in range(-9, 40, 3))
        return _scaled(whole, 1000, exponents)
    return _scaled(whole, 1000, _DECIMAL)


def _scaled(number: int, step: int, suffixes: tuple[str, ...]) -> str:
    power = 0
    while number and number % step == 0 and power < len(suffixes) - 1:
        number //= step
        power += 1
    return f"{number}{suffixes[power]}" if number else "0"


def canonical_all(amounts: Any) -> None:
    """In place. Raises QuantityError."""
    for name, value in amounts.items() if isinstance(amounts, dict) else ():
        if (text := canonical(value)) != value or not isinstance(value, str):
            amounts[name] = text


def resource_causes(resources: JsonObject, field: str) -> list[Cause]:
    """Of a container's `resources`."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if not limits and not requests:
        return []
    found: list[Cause] = []
    for name, value in limits.items():
        found += _amount_causes(name, value, f"{field}.limits[{name}]")
    for name, value in requests.items():
        found += _amount_causes(name, value, f"{field}.requests[{name}]")
        found += _limit_causes(name, value, limits.get(name), field)
    names = limits.keys() | requests.keys()
    if any(name.startswith(_HUGE) for name in names) and not names & {"cpu", "memory"}:
        found.append(errors.forbidden_field(field, "HugePages require cpu or memory"))
    return found


def _amount_causes(name: str, value: Any, field: str) -> list[Cause]:
    found = [] if name in _CONTAINER else _name_causes(name, field)
    if parse_quantity(value) < 0:
        found.append(errors.invalid_value(field, canonical(value), "must be greater than or equal to 0"))
    return found


def _name_causes(name: str, field: str) -> list[Cause]:
    if name.startswith(_HUGE):
        return identifiers.causes(field, name, identifiers.qualified(name))
    found = identifiers.causes(field, name, identifiers.qualified(name))
    if "/" not in name:
        if not found and name not in _QUOTA_ONLY:
            text = "must be a standard resource type or fully qualified"
            found.append(errors.invalid_value(field, name, text))
        found.append(errors.invalid_value(field, name, "must be a standard resource for containers"))
    elif _NAMESPACE not in name and (name.startswith(_REQUESTS) or identifiers.qualified(_REQUESTS + name)):
        found.append(errors.invalid_value(field, name, "doesn't follow extended resource name standard"))
    return found


def _limit_causes(name: str, request: Any, limit: Any, field: str) -> list[Cause]:
    """What cannot be shared out twice needs a limit, and one that is equal."""
    exact = ("/" in name and _NAMESPACE not in name) or name.startswith(_HUGE)
    if limit is None:
        if not exact:
            return []
        return [errors.required(f"{field}.limits", "Limit must be set for non overcommitable resources")]
    asked, most = parse_quantity(request), parse_quantity(limit)
    if asked == most or (asked < most and not exact):
        return []
    relation = "equal to" if exact else "less than or equal to"
    text = f"must be {relation} {name} limit of {canonical(limit)}"
    return [errors.invalid_value(f"{field}.requests", canonical(request), text)]
