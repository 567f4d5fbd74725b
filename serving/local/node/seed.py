"""The first record of a pod: new, adopted with its sandbox, or found without one.

A restarted agent knows a pod by what the API server says of it and by what the sandbox still holds. Where both
speak of the same attempt the record continues exactly, so nothing needs to be written. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from serving.api.pod import Container, ContainerStatus, Pod, StateTerminated
from serving.api.timestamps import parse
from serving.local.node.backoff import CAP_SECONDS, FIRST_SECONDS, RESET_SECONDS, Backoff, delay_of
from serving.local.node.state import ContainerRecord, Exit, Phase, PodRecord, SandboxPhase, lost
from serving.local.sandbox.protocol import ContainerState, PodAddress


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a pod's sandbox. `exits`: the ends of attempts, by (name, attempt)."""

    address: PodAddress
    containers: Sequence[ContainerState]
    exits: Mapping[tuple[str, int], Exit]


def seed(
    pod: Pod, *, now: float, host_ip: str, adopted: Adopted | None, rejected: tuple[str, str] | None = None
) -> PodRecord:
    """The record to start with at `now`."""
    containers: dict[str, ContainerRecord] = {}
    for init, specs, statuses in (
        (True, pod.spec.init_containers, pod.status.init_container_statuses),
        (False, pod.spec.containers, pod.status.container_statuses),
    ):
        known = {status.name: status for status in statuses}
        for spec in specs:
            record = _blank(spec, init=init)
            status = known.get(spec.name)
            if status is not None:
                record = _reported(record, status, now)
            if adopted is not None:
                record = _continued(record, status, adopted)
            elif record.phase is Phase.RUNNING:
                record = lost(record, at=now)
            containers[spec.name] = record
    return PodRecord(
        seen_at=now,
        containers=containers,
        sandbox=SandboxPhase.ABSENT if adopted is None else SandboxPhase.UP,
        address=None if adopted is None else adopted.address,
        rejected=rejected,
        stages={} if _had_started(containers) else {"seen": now},
        host_ip=host_ip,
        deleted_at=deletion_seen_at(pod, now=now),
    )


def deletion_seen_at(pod: Pod, *, now: float) -> float | None:
    """When the grace period of a pod that was already being deleted at `now` began; None = not deleted.

    deletionTimestamp is the end of the grace period, rounded down to a second: the agent that saw the deletion
    may be gone, and the grace period must not begin anew.
    """
    if pod.metadata.deletion_timestamp is None:
        return None
    grace = pod.metadata.deletion_grace_period_seconds or 0
    return min(now, parse(pod.metadata.deletion_timestamp) - grace + 1.0)


def _blank(spec: Container, *, init: bool) -> ContainerRecord:
    return ContainerRecord(
        name=spec.name,
        init=init,
        image=spec.image,
        probes_startup=spec.startup_probe is not None and not init,
        probes_readiness=spec.readiness_probe is not None and not init,
    )


def _reported(record: ContainerRecord, status: ContainerStatus, now: float) -> ContainerRecord:
    """As the API server last heard of it."""
    replace = msgspec.structs.replace
    record = replace(record, image_id=status.image_id)
    state, last = status.state, status.last_state.terminated
    if state.running is not None:
        started = parse(state.running.started_at) if state.running.started_at else now
        return replace(
            record,
            phase=Phase.RUNNING,
            attempt=status.restart_count,
            started_at=started,
            started=bool(status.started),
            ready=status.ready,
            previous=_exit(last, now),
        )
    if state.terminated is not None:
        ended, before = _exit(state.terminated, now), _exit(last, now)
    elif last is not None:
        ended, before = _exit(last, now), None
    else:
        return record
    assert ended is not None  # noqa: S101 - both branches give one
    return replace(
        record,
        phase=Phase.EXITED,
        attempt=status.restart_count,
        started_at=ended.started_at,
        exit=ended,
        previous=before,
        backoff=_backoff(status.restart_count, ended, message=state.waiting.message if state.waiting else ""),
    )


def _continued(record: ContainerRecord, status: ContainerStatus | None, adopted: Adopted) -> ContainerRecord:
    """As the sandbox holds it; what it does not know stays as reported."""
    replace = msgspec.structs.replace
    own = {state.attempt: state for state in adopted.containers if state.name == record.name}
    newest = own[max(own)] if own else None
    if newest is None or newest.attempt < record.attempt:
        # A program that could not be executed leaves nothing in the sandbox; what was reported of it stands.
        return lost(record, at=record.started_at) if record.phase is Phase.RUNNING else record
    same = newest.attempt == record.attempt
    before = adopted.exits.get((record.name, newest.attempt - 1))
    known_before = record.previous if same else record.exit
    ended = adopted.exits.get((record.name, newest.attempt))
    if newest.exit is not None and ended is not None:
        if same and record.exit is not None:
            return record  # reported in full, with the message as it was read then
        return replace(
            record,
            phase=Phase.EXITED,
            attempt=newest.attempt,
            started_at=newest.started_at,
            exit=ended,
            previous=known_before or before,
            backoff=_backoff(newest.attempt, ended),
        )
    trusted = same and status is not None and status.state.running is not None
    started = record.started if trusted else not record.probes_startup
    return replace(
        record,
        phase=Phase.RUNNING,
        attempt=newest.attempt,
        started_at=newest.started_at,
        exit=None,
        previous=known_before or before,
        started=started,
        ready=record.ready if trusted else started and not record.probes_readiness,
    )


def _exit(ended: StateTerminated | None, now: float) -> Exit | None:
    if ended is None:
        return None
    return Exit(
        exit_code=ended.exit_code,
        signal=ended.signal,
        reason=ended.reason,
        message=ended.message,
        started_at=parse(ended.started_at) if ended.started_at else now,
        finished_at=parse(ended.finished_at) if ended.finished_at else now,
    )


def _backoff(restarts: int, ended: Exit, *, message: str = "") -> Backoff:
    """The back-off that the status speaks of, else what it is after so many restarts in a row."""
    told = delay_of(message)
    if told is not None:
        return Backoff(told, ended.started_at)
    if restarts < 1 or ended.finished_at - ended.started_at > RESET_SECONDS:
        return Backoff()
    return Backoff(min(FIRST_SECONDS * 2.0 ** min(restarts - 1, 10), CAP_SECONDS), ended.started_at)


def _had_started(containers: Mapping[str, ContainerRecord]) -> bool:
    return any(record.attempt >= 0 for record in containers.values() if not record.init)
