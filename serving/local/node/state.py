"""What the node agent knows of one pod, and how each event changes it.

A `PodRecord` is folded from events; `lifecycle.decide` reads it. Folding is total: an event that is late, doubled
or of an earlier attempt changes nothing. All times are Unix seconds.
"""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import msgspec

from serving.local.node.backoff import Backoff, retry_delay
from serving.local.sandbox.protocol import PodAddress

IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)
START_FAILURE_EXIT_CODE: Final = 128
"""What container runtimes report when the program could not be executed."""


class Phase(enum.StrEnum):
    """Of one container. STARTING covers everything from the decision to the executed program."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


class SandboxPhase(enum.StrEnum):
    ABSENT = "absent"
    CREATING = "creating"
    UP = "up"
    DESTROYING = "destroying"


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended."""

    exit_code: int
    signal: int = 0
    reason: str
    message: str = ""
    started_at: float
    finished_at: float


class Blocked(msgspec.Struct, frozen=True, kw_only=True):
    """Why the next attempt cannot begin, and when to try again. `tries` counts failures in a row."""

    reason: str
    message: str
    since: float
    retry_at: float
    tries: int = 1


class ContainerRecord(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    init: bool = False
    phase: Phase = Phase.WAITING
    attempt: int = -1
    """Number of the newest attempt that was executed or failed to; -1 = none."""
    started_at: float = 0.0
    exit: Exit | None = None
    """Of the newest attempt; set exactly when the phase is EXITED, or STARTING after an exit."""
    previous: Exit | None = None
    """Of the attempt before; `lastState` while the newest runs."""
    backoff: Backoff = Backoff()
    blocked: Blocked | None = None
    ready: bool = False
    started: bool = False
    """The startup probe has passed, or there is none."""
    stop_reason: str = ""
    """Why a running container must go (a failed probe); empty = it may run."""
    stop_grace: float | None = None
    """Seconds between SIGTERM and SIGKILL; None = the pod's."""
    term_at: float | None = None
    kill_at: float | None = None
    image: str = ""
    image_id: str = ""
    stop_signal: str = "SIGTERM"
    probes_startup: bool = False
    probes_readiness: bool = False

    @property
    def completed(self) -> bool:
        return self.phase is Phase.EXITED and self.exit is not None and self.exit.exit_code == 0


class PodRecord(msgspec.Struct, frozen=True, kw_only=True):
    seen_at: float
    containers: dict[str, ContainerRecord]
    """Init containers first, in the order of the spec."""
    sandbox: SandboxPhase = SandboxPhase.ABSENT
    address: PodAddress | None = None
    sandbox_blocked: Blocked | None = None
    sandbox_lost: bool = False
    """It is of no use any more (what held the pod was killed) and has to be replaced."""
    rejected: tuple[str, str] | None = None
    """(reason, message): the pod can never run here, or no longer."""
    deleted_at: float | None = None
    """When its deletion was first seen."""
    vanished: bool = False
    """The API server no longer has the pod."""
    finalized: bool = False
    """The API server was told that nothing of the pod is left."""
    stages: dict[str, float] = {}
    """Times of `serving.api.keys.STAGES`, as far as they lie in this agent's life."""
    host_ip: str = ""


class SandboxCreated(msgspec.Struct, frozen=True):
    address: PodAddress
    at: float


class SandboxFailed(msgspec.Struct, frozen=True):
    reason: str
    message: str
    at: float


class SandboxLost(msgspec.Struct, frozen=True):
    pass


class SandboxDestroyed(msgspec.Struct, frozen=True):
    pass


class ImageReady(msgspec.Struct, frozen=True):
    name: str
    image_id: str
    stop_signal: str
    at: float


class Started(msgspec.Struct, frozen=True):
    """`at`: when the container began, as the sandbox says; `executed_at`: when its program was known to run."""

    name: str
    attempt: int
    at: float
    executed_at: float


class StartFailed(msgspec.Struct, frozen=True):
    """`executed`: the sandbox took the attempt but the program could not be run; it counts as an exit."""

    name: str
    attempt: int
    reason: str
    message: str
    at: float
    executed: bool = False


class StartAborted(msgspec.Struct, frozen=True):
    """A start was given up before the sandbox was asked for it."""

    name: str


class Exited(msgspec.Struct, frozen=True):
    name: str
    attempt: int
    exit: Exit


class ReadinessChanged(msgspec.Struct, frozen=True):
    name: str
    attempt: int
    ready: bool


class StartupPassed(msgspec.Struct, frozen=True):
    name: str
    attempt: int


class ProbeFailed(msgspec.Struct, frozen=True):
    """A liveness or startup probe failed for good: the container must go."""

    name: str
    attempt: int
    kind: str
    grace: float | None = None


class Evicted(msgspec.Struct, frozen=True):
    """The pod exceeded a limit that ends it."""

    reason: str
    message: str


class DeletionSeen(msgspec.Struct, frozen=True):
    at: float


class Vanished(msgspec.Struct, frozen=True):
    pass


class Finalized(msgspec.Struct, frozen=True):
    pass


Event: TypeAlias = (
    SandboxCreated
    | SandboxFailed
    | SandboxLost
    | SandboxDestroyed
    | ImageReady
    | Started
    | StartFailed
    | StartAborted
    | Exited
    | ReadinessChanged
    | StartupPassed
    | ProbeFailed
    | Evicted
    | DeletionSeen
    | Vanished
    | Finalized
)
ContainerEvent: TypeAlias = (
    ImageReady | Started | StartFailed | StartAborted | Exited | ReadinessChanged | StartupPassed | ProbeFailed
)


def fold(record: PodRecord, event: Event) -> PodRecord:
    """The record after one event."""
    replace = msgspec.structs.replace
    match event:
        case SandboxCreated():
            stages = record.stages | {"network": event.at}
            return replace(
                record, sandbox=SandboxPhase.UP, address=event.address, sandbox_blocked=None, stages=stages
            )
        case SandboxFailed():
            blocked = _blocked(record.sandbox_blocked, event.reason, event.message, event.at)
            return replace(record, sandbox=SandboxPhase.ABSENT, sandbox_blocked=blocked)
        case SandboxLost():
            up = record.sandbox is SandboxPhase.UP
            return replace(record, sandbox_lost=True) if up else record
        case SandboxDestroyed():
            return _destroyed(record)
        case DeletionSeen():
            return record if record.deleted_at is not None else replace(record, deleted_at=event.at)
        case Evicted():
            return record if record.rejected else replace(record, rejected=(event.reason, event.message))
        case Vanished():
            return replace(record, vanished=True)
        case Finalized():
            return replace(record, finalized=True)
        case _:
            return _fold_container(record, event)


def _fold_container(record: PodRecord, event: ContainerEvent) -> PodRecord:
    old = record.containers.get(event.name)
    if old is None:
        return record
    new = _container_after(old, event)
    if new is old:
        return record
    stages = record.stages
    if not old.init and isinstance(event, ImageReady | Started):
        stage = ("image", event.at) if isinstance(event, ImageReady) else ("started", event.executed_at)
        stages = stages | dict([stage])
    return msgspec.structs.replace(record, containers=record.containers | {event.name: new}, stages=stages)


def _container_after(old: ContainerRecord, event: ContainerEvent) -> ContainerRecord:
    replace = msgspec.structs.replace
    started = not old.probes_startup
    match event:
        case ImageReady():
            blocked = None if old.blocked and old.blocked.reason in IMAGE_REASONS else old.blocked
            return replace(old, image_id=event.image_id, stop_signal=event.stop_signal, blocked=blocked)
        case Started() if event.attempt > old.attempt:
            return replace(
                old,
                phase=Phase.RUNNING,
                attempt=event.attempt,
                started_at=event.at,
                previous=old.exit or old.previous,
                exit=None,
                blocked=None,
                **_FRESH | {"started": started, "ready": started and not old.probes_readiness},
            )
        case StartFailed() if old.phase is Phase.STARTING:
            return _start_failed(old, event)
        case StartAborted() if old.phase is Phase.STARTING:
            return replace(old, phase=Phase.EXITED if old.exit else Phase.WAITING)
        case Exited() if event.attempt == old.attempt and old.phase is Phase.RUNNING:
            return replace(old, phase=Phase.EXITED, exit=event.exit, **_FRESH)
        case Exited() if event.attempt > old.attempt:  # the exit overtook the news of the start
            return replace(
                old,
                phase=Phase.EXITED,
                attempt=event.attempt,
                started_at=event.exit.started_at,
                previous=old.exit or old.previous,
                exit=event.exit,
                blocked=None,
                **_FRESH,
            )
        case ReadinessChanged() if event.attempt == old.attempt and old.phase is Phase.RUNNING:
            return old if old.ready == event.ready else replace(old, ready=event.ready)
        case StartupPassed() if event.attempt == old.attempt and old.phase is Phase.RUNNING:
            return old if old.started else replace(old, started=True, ready=not old.probes_readiness)
        case ProbeFailed() if event.attempt == old.attempt and old.phase is Phase.RUNNING and not old.stop_reason:
            return replace(old, stop_reason=event.kind, stop_grace=event.grace)
        case _:
            return old


_FRESH: Final = {
    "ready": False,
    "started": False,
    "stop_reason": "",
    "stop_grace": None,
    "term_at": None,
    "kill_at": None,
}


def _start_failed(old: ContainerRecord, event: StartFailed) -> ContainerRecord:
    replace = msgspec.structs.replace
    if event.executed:
        failed = Exit(
            exit_code=START_FAILURE_EXIT_CODE,
            reason="StartError",
            message=event.message,
            started_at=event.at,
            finished_at=event.at,
        )
        previous = old.exit or old.previous
        return replace(
            old, phase=Phase.EXITED, attempt=event.attempt, exit=failed, previous=previous, blocked=None, **_FRESH
        )
    blocked = _blocked(old.blocked, event.reason, event.message, event.at)
    return replace(old, phase=Phase.EXITED if old.exit else Phase.WAITING, blocked=blocked)


def _blocked(old: Blocked | None, reason: str, message: str, at: float) -> Blocked:
    same = old is not None and (old.reason in IMAGE_REASONS) == (reason in IMAGE_REASONS)
    tries = old.tries + 1 if old is not None and same else 1
    first, cap = (10.0, 300.0) if reason in IMAGE_REASONS else (1.0, 30.0)
    since = old.since if old is not None and same else at
    return Blocked(
        reason=reason,
        message=message,
        since=since,
        retry_at=at + retry_delay(tries, first=first, cap=cap),
        tries=tries,
    )


def _destroyed(record: PodRecord) -> PodRecord:
    """Whatever still counted as running died with its sandbox."""
    containers = {
        name: lost(container, at=container.started_at) if container.phase is Phase.RUNNING else container
        for name, container in record.containers.items()
    }
    return msgspec.structs.replace(
        record,
        sandbox=SandboxPhase.ABSENT,
        address=None,
        sandbox_blocked=None,
        sandbox_lost=False,
        containers=containers,
    )


def rerun_init(container: ContainerRecord) -> ContainerRecord:
    """A new sandbox needs its init containers again; their attempts go on counting."""
    if not container.init or container.phase is not Phase.EXITED:
        return container
    return msgspec.structs.replace(container, phase=Phase.WAITING, exit=None, previous=container.exit)


def lost(container: ContainerRecord, *, at: float) -> ContainerRecord:
    """The record of a container whose end nobody saw."""
    ended = Exit(
        exit_code=137,
        reason="ContainerStatusUnknown",
        message="The container could not be located when the pod was terminated",
        started_at=container.started_at,
        finished_at=at,
    )
    return msgspec.structs.replace(container, phase=Phase.EXITED, exit=ended, **_FRESH)
