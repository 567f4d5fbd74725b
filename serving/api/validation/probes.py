"""Rules for probes. A readiness probe with periodSeconds 0 is Knative's own: probe as fast as possible."""

from __future__ import annotations

from dataclasses import dataclass

from serving.api.errors import FieldError, invalid_value, missing_one_of, multiple_one_of, out_of_bounds, under
from serving.api.meta import JsonObject
from serving.api.validation.numbers import MAX_INT32


@dataclass(frozen=True, slots=True)
class ServingPort:
    """The one port of the pod that requests go to; a probe may name it."""

    name: str
    number: int


def validate_probe(probe: JsonObject | None, port: ServingPort | None) -> list[FieldError]:
    """`port` is None for a sidecar: its probes must give a port themselves."""
    if probe is None:
        return []
    errors: list[FieldError] = []
    handlers: list[str] = []
    for key, shown in (("httpGet", "httpGet"), ("tcpSocket", "tcpSocket"), ("exec", "exec"), ("grpc", "gRPC")):
        if key not in probe:
            continue
        handlers.append(shown)
        # Upstream prefixes what it found before with each further handler; the texts are part of the contract.
        errors = under(key, errors)
        if key in ("httpGet", "tcpSocket"):
            errors += _validate_port(probe[key].get("port", 0), f"{key}.port", port)
    if not handlers:
        errors.append(missing_one_of("httpGet", "tcpSocket", "exec", "grpc"))
    elif len(handlers) > 1:
        errors.append(multiple_one_of(*handlers))
    return errors


def validate_readiness_probe(probe: JsonObject | None, port: ServingPort | None) -> list[FieldError]:
    if probe is None:
        return []
    errors = validate_probe(probe, port)
    period, timeout = probe.get("periodSeconds", 0), probe.get("timeoutSeconds", 0)
    delay, failures = probe.get("initialDelaySeconds", 0), probe.get("failureThreshold", 0)
    successes = probe.get("successThreshold", 0)
    for key, value, low in (
        ("periodSeconds", period, 0),
        ("initialDelaySeconds", delay, 0),
        ("successThreshold", successes, 1),
    ):
        if value < low:
            errors.append(out_of_bounds(value, low, MAX_INT32, key))
    for key, value in (("failureThreshold", failures), ("timeoutSeconds", timeout)):
        if period == 0:
            if value != 0:
                errors.append(FieldError(f"{key} is disallowed when periodSeconds is zero", (key,)))
        elif value < 1:
            errors.append(out_of_bounds(value, 1, MAX_INT32, key))
    return errors


def _validate_port(value: int | str, path: str, port: ServingPort | None) -> list[FieldError]:
    if port is None:
        return [invalid_value(value, path, "Probe port must be specified")] if value in ("", 0) else []
    if isinstance(value, str) and value not in ("", port.name):
        return [invalid_value(value, path, "Probe port must match container port")]
    return []
