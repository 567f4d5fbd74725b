"""Probes as pure values: thresholds, when to probe next, what a result means.

A container that has not answered yet is probed at once and then in steps of a tenth of the time it has taken so
far, so that probing adds at most a tenth to a start and costs less the longer it takes. After the first success
the period rules. A readiness probe with `periodSeconds: 0` (Knative's aggressive probing) ends there.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

from serving.api.pod import Container, ContainerPort, GrpcAction, HttpGetAction, Pod, Probe, TcpSocketAction
from serving.local.sandbox.protocol import PodAddress

FLOOR_SECONDS: Final = 0.005
AGGRESSIVE_CAP_SECONDS: Final = 0.05
CAP_SECONDS: Final = 1.0
SHARE_OF_ELAPSED: Final = 0.1


class ProbeKind(enum.StrEnum):
    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


class ProbeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A probe with its defaults filled in; times in seconds."""

    kind: ProbeKind
    initial_delay: float
    period: float
    timeout: float
    success_threshold: int
    failure_threshold: int
    aggressive: bool
    """Only until the first success."""


class ProbeState(msgspec.Struct, frozen=True, kw_only=True):
    """`passing`: the verdict so far. `answered`: it has succeeded at least once."""

    passing: bool
    answered: bool = False
    successes: int = 0
    failures: int = 0
    counted_at: float | None = None
    """When a failure was last counted; before the first success they count once per period."""


def probe_settings(kind: ProbeKind, probe: Probe) -> ProbeSettings:
    aggressive = kind is ProbeKind.READINESS and probe.period_seconds == 0
    return ProbeSettings(
        kind=kind,
        initial_delay=float(probe.initial_delay_seconds),
        period=AGGRESSIVE_CAP_SECONDS if aggressive else float(probe.period_seconds or 10),
        timeout=float(probe.timeout_seconds or 1),
        success_threshold=max(probe.success_threshold, 1),
        failure_threshold=probe.failure_threshold or 3,
        aggressive=aggressive,
    )


def first_state(settings: ProbeSettings, *, passing: bool) -> ProbeState:
    """`passing`: what is already known, e.g. of a container that an earlier agent saw ready."""
    if settings.kind is ProbeKind.LIVENESS:
        return ProbeState(passing=True)
    return ProbeState(passing=passing, answered=passing)


def observe(state: ProbeState, settings: ProbeSettings, *, ok: bool, now: float) -> ProbeState:
    """The state after one probe."""
    replace = msgspec.structs.replace
    if ok:
        successes = state.successes + 1
        passing = state.passing or successes >= settings.success_threshold
        return replace(state, passing=passing, answered=True, successes=successes, failures=0)
    early = not state.answered and state.counted_at is not None and now < state.counted_at + settings.period
    if early and settings.kind is not ProbeKind.LIVENESS:
        return replace(state, successes=0)
    failures = state.failures + 1
    passing = state.passing and failures < settings.failure_threshold
    return replace(state, passing=passing, successes=0, failures=failures, counted_at=now)


def exhausted(state: ProbeState, settings: ProbeSettings) -> bool:
    """A liveness or startup probe has failed for good."""
    return settings.kind is not ProbeKind.READINESS and state.failures >= settings.failure_threshold


def over(state: ProbeState, settings: ProbeSettings) -> bool:
    """Nothing more to probe."""
    once = settings.aggressive or settings.kind is ProbeKind.STARTUP
    return exhausted(state, settings) or (once and state.passing)


def next_delay(state: ProbeState, settings: ProbeSettings, *, elapsed: float, probing: int) -> float:
    """Seconds to the next probe. `elapsed`: since the first one; `probing`: how many containers of this node
    are waiting for their first success, which share the machine."""
    if settings.kind is ProbeKind.LIVENESS or (state.answered and not settings.aggressive):
        return settings.period
    floor = FLOOR_SECONDS * max(1.0, probing / 2)
    cap = AGGRESSIVE_CAP_SECONDS if settings.aggressive else min(settings.period, CAP_SECONDS)
    return max(min(max(elapsed * SHARE_OF_ELAPSED, FLOOR_SECONDS), cap), floor)


def probes_of(container: Container) -> dict[ProbeKind, Probe]:
    every = {
        ProbeKind.STARTUP: container.startup_probe,
        ProbeKind.READINESS: container.readiness_probe,
        ProbeKind.LIVENESS: container.liveness_probe,
    }
    return {kind: probe for kind, probe in every.items() if probe is not None}


def serving_port(pod: Pod) -> int | None:
    """The port that the pod serves on by its spec: the first one declared."""
    for container in pod.spec.containers:
        for port in container.ports:
            if port.container_port:
                return port.container_port
    return None


def target_port(
    action: HttpGetAction | TcpSocketAction | GrpcAction, container: Container, pod: Pod, address: PodAddress
) -> int:
    """The port to probe. A pod that has to serve on another port is probed there.

    Raises ValueError when a named port does not exist.
    """
    serving = serving_port(pod)
    port = _number(action.port, container.ports) or serving or address.port or 0
    return address.port if address.port is not None and serving in (None, port) else port


def _number(port: int | str, ports: Sequence[ContainerPort]) -> int:
    if isinstance(port, int):
        return port
    if port.isdecimal():
        return int(port)
    for declared in ports:
        if declared.name == port:
            return declared.container_port
    raise ValueError(f"couldn't find port: {port!r} in the container's ports")
