"""Probes and lifecycle hooks of a container. Pure."""

from __future__ import annotations

from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, identifiers
from serving.local.apiserver.errors import Cause

PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_NUMBERS: Final = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)
_PROBE_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "sleep")
_HOOKS: Final = ("postStart", "preStop")
_SCHEMES: Final = ("HTTP", "HTTPS")
_GRACE: Final = "terminationGracePeriodSeconds"


def probe_causes(container: JsonObject, field: str, *, grace: Any) -> list[Cause]:
    found: list[Cause] = []
    for name in PROBES:
        probe = container.get(name)
        if probe is not None:
            found += _probe_causes(probe, name, f"{field}.{name}", grace)
    return found


def _probe_causes(probe: JsonObject, name: str, field: str, grace: Any) -> list[Cause]:
    found = _handler_causes(probe, _PROBE_HANDLERS, field, grace)
    for number in _NUMBERS:
        if (probe.get(number) or 0) < 0:
            found.append(errors.invalid_value(f"{field}.{number}", probe[number], _NOT_NEGATIVE))
    own_grace = probe.get(_GRACE)
    if own_grace is not None and own_grace <= 0:
        found.append(errors.invalid_value(f"{field}.{_GRACE}", own_grace, "must be greater than 0"))
    if name == "readinessProbe":
        if own_grace is not None:
            text = "must not be set for readinessProbes"
            found.append(errors.invalid_value(f"{field}.{_GRACE}", own_grace, text))
    elif probe.get("successThreshold") != 1:
        value = probe.get("successThreshold") or 0
        found.append(errors.invalid_value(f"{field}.successThreshold", value, "must be 1"))
    return found


_NOT_NEGATIVE: Final = "must be greater than or equal to 0"


def lifecycle_causes(lifecycle: JsonObject, field: str, *, grace: Any, system: JsonObject | None) -> list[Cause]:
    """`system`: the Pod's `os`."""
    found: list[Cause] = []
    for hook in _HOOKS:
        if lifecycle.get(hook) is not None:
            found += _handler_causes(lifecycle[hook], _HOOK_HANDLERS, f"{field}.{hook}", grace)
    if lifecycle.get("stopSignal") is not None and system is None:
        text = "may not be set for containers with empty `spec.os.name`"
        found.append(errors.forbidden_field(f"{field}.stopSignal", text))
    return found


def _handler_causes(parent: JsonObject, allowed: tuple[str, ...], field: str, grace: Any) -> list[Cause]:
    given = [name for name in allowed if parent.get(name) is not None]
    if not given:
        return [errors.required(field, "must specify a handler type")]
    text = "may not specify more than 1 handler type"
    more = [errors.forbidden_field(f"{field}.{name}", text) for name in given[1:]]
    return _action_causes(given[0], parent[given[0]], f"{field}.{given[0]}", grace) + more


def _action_causes(name: str, action: JsonObject, field: str, grace: Any) -> list[Cause]:
    if name == "exec":
        return [] if action.get("command") else [errors.required(f"{field}.command")]
    if name == "httpGet":
        return _http_causes(action, field)
    if name == "sleep":
        return _sleep_causes(action.get("seconds") or 0, field, grace)
    return port_causes(action.get("port") or 0, f"{field}.port")


def _http_causes(action: JsonObject, field: str) -> list[Cause]:
    found = [] if action.get("path") else [errors.required(f"{field}.path")]
    found += port_causes(action.get("port") or 0, f"{field}.port")
    if action.get("scheme") not in _SCHEMES:
        found.append(errors.not_supported(f"{field}.scheme", action.get("scheme") or "", _SCHEMES))
    for header in action.get("httpHeaders") or ():
        name = header.get("name") or ""
        found += identifiers.causes(f"{field}.httpHeaders", name, identifiers.header(name))
    return found


def _sleep_causes(seconds: int, field: str, grace: Any) -> list[Cause]:
    if grace is None or 0 <= seconds <= grace:
        return []
    text = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
    return [errors.invalid_value(field, seconds, text)]


def port_causes(port: object, field: str) -> list[Cause]:
    """Of a port that is told by number or by name."""
    if isinstance(port, str):
        return identifiers.causes(field, port, identifiers.port_name(port))
    number = port if isinstance(port, int) else 0
    return [errors.invalid_value(field, number, text) for text in identifiers.port_number(number)]
