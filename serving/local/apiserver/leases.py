"""Rules of Leases. Pure."""

from __future__ import annotations

import re
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.errors import Cause, bad_request

_MICRO: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{6}(Z|[+-]\d\d:\d\d)")
_SECONDS: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)")
_LAYOUT: Final = "2006-01-02T15:04:05.000000Z07:00"


def check_times(obj: JsonObject, _old: JsonObject | None) -> None:
    """Raises StatusError 400 for a time without microseconds, which a typed server cannot decode."""
    for field in ("acquireTime", "renewTime"):
        value = (obj.get("spec") or {}).get(field)
        if not isinstance(value, str) or _MICRO.fullmatch(value):
            continue
        match = _SECONDS.fullmatch(value)
        rest, wanted = (match[1], ".000000") if match else (value, "2006")
        raise bad_request(
            f'Lease in version "v1" cannot be handled as a Lease: parsing time "{value}" as "{_LAYOUT}": '
            f'cannot parse "{rest}" as "{wanted}"'
        )


def lease_causes(obj: JsonObject, _old: JsonObject | None) -> list[Cause]:
    spec = obj.get("spec") or {}
    found: list[Cause] = []
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if isinstance(duration, int) and duration <= 0:
        found.append(errors.invalid_value("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if isinstance(transitions, int) and transitions < 0:
        detail = "must be greater than or equal to 0"
        found.append(errors.invalid_value("spec.leaseTransitions", transitions, detail))
    return found
