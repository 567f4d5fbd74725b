"""Keeps exactly those probes of a pod running that its record calls for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from serving.api.pod import Container, Pod, Probe
from serving.local.node.once import Spawn
from serving.local.node.prober import ProbeResult
from serving.local.node.probes import ProbeKind, ProbeState, exhausted, probe_settings, probes_of
from serving.local.node.settings import NodeContext
from serving.local.node.state import (
    ContainerRecord,
    Event,
    Phase,
    PodRecord,
    ProbeFailed,
    ReadinessChanged,
    StartupPassed,
)
from serving.local.sandbox.protocol import Sandbox

_Key: TypeAlias = tuple[str, int, ProbeKind]


def wanted_probes(pod: Pod, record: PodRecord) -> dict[_Key, Probe]:
    """By (container, attempt, kind): which probes must run now. Pure."""
    wanted: dict[_Key, Probe] = {}
    if record.vanished:
        return wanted
    for container in pod.spec.containers:
        known = record.containers[container.name]
        if known.phase is not Phase.RUNNING:
            continue
        for kind, probe in probes_of(container).items():
            if _wanted(kind, probe, known, stopping=record.deleted_at is not None):
                wanted[container.name, known.attempt, kind] = probe
    return wanted


def _wanted(kind: ProbeKind, probe: Probe, known: ContainerRecord, *, stopping: bool) -> bool:
    if kind is ProbeKind.STARTUP:
        return not known.started and not stopping and not known.stop_reason
    if not known.started:
        return False
    if kind is ProbeKind.LIVENESS:
        return not stopping and not known.stop_reason
    return not (known.ready and probe_settings(kind, probe).aggressive)


class PodProbes:
    def __init__(self, context: NodeContext, *, spawn: Spawn, post: Callable[[Event], None]) -> None:
        self._context = context
        self._spawn = spawn
        self._post = post
        self._running: dict[_Key, asyncio.Task[None]] = {}

    def sync(self, pod: Pod, record: PodRecord, sandbox: Sandbox | None) -> None:
        """Start what is missing, stop what is not wanted any more."""
        wanted = wanted_probes(pod, record) if sandbox is not None else {}
        for key in [key for key in self._running if key not in wanted]:
            self._running.pop(key).cancel()
        if sandbox is None:
            return
        for key, probe in wanted.items():
            task = self._running.get(key)
            if task is None or task.done():
                self._running[key] = self._start(key, probe, pod, record, sandbox)

    def stop(self) -> None:
        for task in self._running.values():
            task.cancel()
        self._running.clear()

    def _start(self, key: _Key, probe: Probe, pod: Pod, record: PodRecord, sandbox: Sandbox) -> asyncio.Task[None]:
        name, _, kind = key
        known = record.containers[name]
        container = next(c for c in pod.spec.containers if c.name == name)
        passing = known.ready if kind is ProbeKind.READINESS else known.started
        work = self._context.prober.run(
            kind,
            probe,
            container=container,
            pod=pod,
            sandbox=sandbox,
            started_for=max(0.0, self._context.now() - known.started_at),
            passing=passing,
            changed=_Reporter(self._context, self._post, key=key, pod=pod, container=container, passing=passing),
        )
        return self._spawn(work, f"{kind} probe of {name}")


class _Reporter:
    """Turns results of one probe into events of the pod: only what changes something is posted."""

    def __init__(
        self,
        context: NodeContext,
        post: Callable[[Event], None],
        *,
        key: _Key,
        pod: Pod,
        container: Container,
        passing: bool,
    ) -> None:
        self._context = context
        self._post = post
        self._name, self._attempt, self._kind = key
        self._pod = pod
        self._settings = probe_settings(self._kind, probes_of(container)[self._kind])
        self._passing = passing
        self._failures = 0

    def __call__(self, state: ProbeState, result: ProbeResult) -> None:
        counted = state.failures > self._failures
        self._failures = state.failures
        if counted and (state.answered or state.failures > 1):
            text = f"{self._kind.capitalize()} probe failed: {result.message}"
            self._context.events.warning(self._pod, "Unhealthy", text, container=self._name)
        if state.passing != self._passing:
            self._passing = state.passing
            self._context.metrics.probes.labels(self._kind, "pass" if state.passing else "fail").inc()
            if self._kind is ProbeKind.READINESS:
                self._post(ReadinessChanged(self._name, self._attempt, state.passing))
            elif self._kind is ProbeKind.STARTUP and state.passing:
                self._post(StartupPassed(self._name, self._attempt))
        if exhausted(state, self._settings):
            self._post(ProbeFailed(self._name, self._attempt, self._kind.value))
