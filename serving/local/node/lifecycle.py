"""The pod state machine: what to do next for one pod, as the kubelet would, without its loops.

`decide` reads the pod and its record and answers with actions, the status to report, and when to look again.
`issued` marks an action as under way, so that the same decision is not taken twice. Both are pure; the shell
carries actions out and folds what comes of them (`state.fold`).

The order that makes starts fast: the sandbox and every container that may start are asked for in one decision.
A start waits by itself for the sandbox and its image, so both are prepared at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from serving.api.keys import AWAIT_DRAIN, DRAINED
from serving.api.pod import Pod, PodStatus
from serving.local.node.podstatus import BACK_OFF_SHOWN_AFTER_SECONDS, pod_phase, pod_status
from serving.local.node.state import ContainerRecord, Phase, PodRecord, SandboxPhase, rerun_init

STATUS_HOLD_SECONDS: Final = 3.0
"""How long a starting pod's status is held back so that one write carries everything. Longer than a burst of
starts takes: a write that says "not yet" would slow down those that say "running"."""
KILL_REPEAT_SECONDS: Final = 5.0
LATE_DRAIN_GRACE_SECONDS: Final = 2.0
"""Between SIGTERM and SIGKILL when draining used up the whole grace period."""
_SIGNALS: Final = {
    "SIGKILL": 9,
    "SIGINT": 2,
    "SIGQUIT": 3,
    "SIGHUP": 1,
    "SIGUSR1": 10,
    "SIGUSR2": 12,
    "SIGTERM": 15,
}


class CreateSandbox(msgspec.Struct, frozen=True):
    pass


class PrefetchImage(msgspec.Struct, frozen=True):
    """The image will be needed later; have it by then."""

    name: str


class Start(msgspec.Struct, frozen=True):
    name: str
    attempt: int


class AbortStart(msgspec.Struct, frozen=True):
    """Give a start up unless the sandbox was already asked for it. Always answered by an event."""

    name: str


class Signal(msgspec.Struct, frozen=True):
    name: str
    signum: int
    why: str


class Kill(msgspec.Struct, frozen=True):
    name: str


class DestroySandbox(msgspec.Struct, frozen=True):
    pass


class Finalize(msgspec.Struct, frozen=True):
    """Tell the API server that nothing of the pod is left."""


class Forget(msgspec.Struct, frozen=True):
    """Neither the API server nor the machine has the pod any more."""


Action: TypeAlias = (
    CreateSandbox | PrefetchImage | Start | AbortStart | Signal | Kill | DestroySandbox | Finalize | Forget
)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    actions: tuple[Action, ...]
    status: PodStatus
    wake_at: float | None
    """When to decide again although nothing happened, Unix seconds."""
    hold_until: float | None = None
    """The status says nothing new yet: do not write it before this time."""


class _Plan:
    """Collects what one decision comes to."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.wakes: list[float] = []


def decide(pod: Pod, record: PodRecord, now: float) -> Decision:
    """What to do for `pod` at `now` (Unix seconds)."""
    plan = _Plan()
    status = pod_status(pod, record, now)
    if record.vanished:
        _clean_up(record, plan)
        if record.sandbox is SandboxPhase.ABSENT and not _any(record, Phase.STARTING):
            plan.actions.append(Forget())
    elif record.deleted_at is not None:
        _terminate(pod, record, now, plan)
    elif pod_phase(pod, record) in ("Succeeded", "Failed"):
        _clean_up(record, plan)
    else:
        _run(pod, record, now, plan)
    hold = _hold_until(record, now)
    if hold is not None:
        plan.wakes.append(hold)
    return Decision(
        actions=tuple(plan.actions),
        status=status,
        wake_at=min((wake for wake in plan.wakes if wake > now), default=None),
        hold_until=hold,
    )


def issued(record: PodRecord, action: Action, now: float) -> PodRecord:
    """The record once `action` is under way."""
    replace = msgspec.structs.replace
    match action:
        case CreateSandbox():
            containers = {name: rerun_init(container) for name, container in record.containers.items()}
            return replace(record, sandbox=SandboxPhase.CREATING, containers=containers)
        case DestroySandbox():
            return replace(record, sandbox=SandboxPhase.DESTROYING)
        case Start():
            return _update(record, action.name, lambda c: _starting(c, now))
        case Signal():
            return _update(record, action.name, lambda c: replace(c, term_at=now))
        case Kill():
            return _update(record, action.name, lambda c: replace(c, term_at=c.term_at or now, kill_at=now))
        case _:
            return record


def next_init(record: PodRecord) -> ContainerRecord | None:
    """The init container whose turn it is; None when all have completed."""
    return next((c for c in record.containers.values() if c.init and not c.completed), None)


def needs_restart(pod: Pod, container: ContainerRecord) -> bool:
    """Whether an exited container is to run again."""
    if container.exit is None:
        return True
    if container.init:
        return container.exit.exit_code != 0 and pod.spec.restart_policy != "Never"
    if pod.spec.restart_policy == "OnFailure":
        return container.exit.exit_code != 0
    return pod.spec.restart_policy == "Always"


def _run(pod: Pod, record: PodRecord, now: float, plan: _Plan) -> None:
    if record.sandbox is SandboxPhase.DESTROYING:
        return
    if record.sandbox is SandboxPhase.ABSENT:
        blocked = record.sandbox_blocked
        if blocked is not None and now < blocked.retry_at:
            plan.wakes.append(blocked.retry_at)
            return
        if _any(record, Phase.STARTING):
            return  # starts of the failed sandbox report first
        plan.actions.append(CreateSandbox())
        # Init containers run again in a new sandbox.
        record = issued(record, CreateSandbox(), now)
    elif record.sandbox_lost:
        _clean_up(record, plan)
        return
    init = next_init(record)
    if init is not None:
        _advance(pod, init, now, plan)
        later = [c for c in record.containers.values() if c.phase is Phase.WAITING and c.name != init.name]
        plan.actions += [PrefetchImage(c.name) for c in later if not c.image_id]
        return
    for container in record.containers.values():
        if not container.init:
            _advance(pod, container, now, plan)


def _advance(pod: Pod, container: ContainerRecord, now: float, plan: _Plan) -> None:
    if container.phase is Phase.RUNNING:
        if container.stop_reason:
            grace = container.stop_grace
            _stop(container, now, plan, grace=_grace(pod) if grace is None else grace, why=container.stop_reason)
        return
    if container.phase is Phase.STARTING:
        return
    earliest = now
    if container.phase is Phase.EXITED and container.exit is not None:
        if not needs_restart(pod, container):
            return
        earliest = container.backoff.restart_at(container.exit.finished_at)
    if container.blocked is not None:
        earliest = max(earliest, container.blocked.retry_at)
    if now < earliest:
        plan.wakes.append(earliest)
        # A message that changes as the wait begins (ErrImagePull to ImagePullBackOff) is reported by then.
        if container.blocked is not None and now < container.blocked.since + BACK_OFF_SHOWN_AFTER_SECONDS:
            plan.wakes.append(container.blocked.since + BACK_OFF_SHOWN_AFTER_SECONDS)
        return
    plan.actions.append(Start(container.name, container.attempt + 1))


def _terminate(pod: Pod, record: PodRecord, now: float, plan: _Plan) -> None:
    assert record.deleted_at is not None  # noqa: S101 - narrowed by the caller
    grace = pod.metadata.deletion_grace_period_seconds
    grace_seconds = float(_grace(pod) if grace is None else grace)
    marks = pod.metadata.annotations
    draining = marks.get(AWAIT_DRAIN) == "true" and DRAINED not in marks
    drained_by = record.deleted_at + grace_seconds
    for container in record.containers.values():
        if container.phase is Phase.STARTING:
            plan.actions.append(AbortStart(container.name))
        elif container.phase is Phase.RUNNING and draining and container.term_at is None and now < drained_by:
            plan.wakes.append(drained_by)
        elif container.phase is Phase.RUNNING:
            left = max(drained_by - (container.term_at or now), LATE_DRAIN_GRACE_SECONDS if draining else 0.0)
            _stop(container, now, plan, grace=left, why="deleted")
    if _any(record, Phase.STARTING, Phase.RUNNING):
        return
    _clean_up(record, plan)
    if record.sandbox is SandboxPhase.ABSENT and not record.finalized:
        plan.actions.append(Finalize())


def _stop(container: ContainerRecord, now: float, plan: _Plan, *, grace: float, why: str) -> None:
    if container.term_at is None and grace > 0:
        plan.actions.append(Signal(container.name, _SIGNALS.get(container.stop_signal, 15), why))
        plan.wakes.append(now + grace)
        return
    deadline = (container.term_at or now) + grace
    if container.kill_at is not None:
        deadline = container.kill_at + KILL_REPEAT_SECONDS
    if now >= deadline:
        plan.actions.append(Kill(container.name))
        plan.wakes.append(now + KILL_REPEAT_SECONDS)
    else:
        plan.wakes.append(deadline)


def _clean_up(record: PodRecord, plan: _Plan) -> None:
    starting = [c.name for c in record.containers.values() if c.phase is Phase.STARTING]
    plan.actions += [AbortStart(name) for name in starting]
    if record.sandbox is SandboxPhase.UP and not starting:
        plan.actions.append(DestroySandbox())


def _hold_until(record: PodRecord, now: float) -> float | None:
    """Until when a pod that is merely starting keeps its status to itself."""
    until = record.seen_at + STATUS_HOLD_SECONDS
    if now >= until or record.rejected or record.deleted_at is not None or record.sandbox_blocked:
        return None
    containers = record.containers.values()
    if any(c.blocked or c.exit or c.previous for c in containers if not c.init):
        return None
    if any(c.blocked or (c.exit and c.exit.exit_code) for c in containers if c.init):
        return None
    return until if any(c.phase is not Phase.RUNNING for c in containers if not c.init) else None


def _starting(container: ContainerRecord, now: float) -> ContainerRecord:
    backoff = container.backoff
    if container.phase is Phase.EXITED and container.exit is not None and container.blocked is None:
        backoff = backoff.restarted(container.exit.finished_at, now)
    return msgspec.structs.replace(container, phase=Phase.STARTING, backoff=backoff)


def _update(record: PodRecord, name: str, change: Callable[[ContainerRecord], ContainerRecord]) -> PodRecord:
    containers = record.containers | {name: change(record.containers[name])}
    return msgspec.structs.replace(record, containers=containers)


def _any(record: PodRecord, *phases: Phase) -> bool:
    return any(container.phase in phases for container in record.containers.values())


def _grace(pod: Pod) -> int:
    return pod.spec.termination_grace_period_seconds
