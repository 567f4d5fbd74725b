"""Which pods of one revision to create, drain, keep and delete, given the number that is wanted.

Pure, level-triggered and idempotent: the same pods give the same plan, and a plan that was carried out gives an
empty one. Invariants:

- A pod is deleted only after its drain: every gateway of the wait set acknowledged and has nothing in flight on
  it, or the longest request has had its time, or no gateway lives. Finished pods have nothing to drain.
- Taking back a drain comes before creating a pod.
- With pods that were asked for but not seen yet (`expected`) there are never more than wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from serving.api import keys
from serving.api.pod import Pod
from serving.api.reports import PodDrain
from serving.api.timestamps import format_micros, parse

BACKOFF_BASE: Final = 1.0
BACKOFF_MAX: Final = 300.0
FORGET_FAILURES_AFTER: Final = 600.0

DeleteReason: TypeAlias = Literal["drained", "drain-timeout", "no-gateway", "finished"]


class PodView(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan needs to know of a pod. Times are Unix seconds."""

    uid: str
    name: str
    created_at: float
    ready: bool = False
    ready_since: float | None = None
    """When the Ready condition last changed."""
    node: str = ""
    draining_since: float | None = None
    finished: bool = False
    deleting: bool = False
    crash_looping: bool = False


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of pods that ended: the only state, soft, so that a pod that always fails is not re-made at once
    for ever. `seen` are finished pods that were counted and still exist."""

    count: int = 0
    last_at: float = 0.0
    seen: frozenset[str] = frozenset()


NO_FAILURES: Final = Failures()


class Deletion(msgspec.Struct, frozen=True, kw_only=True):
    uid: str
    name: str
    reason: DeleteReason


class PoolPlan(msgspec.Struct, frozen=True, kw_only=True):
    create: int = 0
    drain: tuple[PodView, ...] = ()
    undrain: tuple[PodView, ...] = ()
    delete: tuple[Deletion, ...] = ()
    stuck: tuple[PodView, ...] = ()
    """Not ready for longer than the progress deadline: counted, and to be reported on the Revision."""
    crash_looping: tuple[PodView, ...] = ()
    """Containers that restart again and again: counted, and to be reported."""
    postponed: int = 0
    """Pods that are missing but wait for the back-off after failures."""
    requeue_at: float | None = None
    """When time alone will change the plan; None = only an event can."""
    failures: Failures = NO_FAILURES
    """To be passed to the next plan."""

    @property
    def is_empty(self) -> bool:
        """Nothing to do now."""
        return not (self.create or self.drain or self.undrain or self.delete)


def view(pod: Pod) -> PodView:
    """The view of a Pod as stored."""
    meta, status = pod.metadata, pod.status
    condition = next((entry for entry in status.conditions if entry.type == "Ready"), None)
    created = _time(meta.creation_timestamp) or 0.0
    draining = meta.annotations.get(keys.DRAINING)
    containers = (*status.init_container_statuses, *status.container_statuses)
    return PodView(
        uid=meta.uid,
        name=meta.name,
        created_at=created,
        ready=pod.ready,
        ready_since=_time(condition.last_transition_time) if condition else None,
        node=pod.spec.node_name,
        # A mark that nobody can read still means draining; its time then counts from the pod's creation.
        draining_since=None if draining is None else (_time(draining) or created),
        finished=pod.finished,
        deleting=meta.deletion_timestamp is not None,
        crash_looping=any(
            entry.state.waiting is not None and entry.state.waiting.reason == "CrashLoopBackOff"
            for entry in containers
        ),
    )


def drain_mark(now: float) -> str:
    """Value of the draining annotation for a drain that begins now; precise, because the drain's time-out
    counts from it."""
    return format_micros(now)


def plan(
    desired: int,
    pods: Iterable[PodView],
    *,
    now: float,
    wait_set: Collection[str],
    drains: Mapping[str, Mapping[str, PodDrain]],
    timeout_seconds: float,
    progress_deadline: float,
    expected: Collection[str] = (),
    failures: Failures = NO_FAILURES,
) -> PoolPlan:
    """The plan for one revision.

    `wait_set`: gateways whose Lease is valid. `drains`: what each gateway says of draining pods, by gateway and
    pod uid. `timeout_seconds`: the longest a request may take. `expected`: names of pods that were created but
    are not in `pods` yet; the caller forgets a name when the pod shows up or the creation failed.
    """
    present = list(pods)
    finished = [pod for pod in present if pod.finished and not pod.deleting]
    live = [pod for pod in present if not pod.finished and not pod.deleting]
    draining = [pod for pod in live if pod.draining_since is not None]
    serving = [pod for pod in live if pod.draining_since is None]
    unseen = len(set(expected) - {pod.name for pod in present})
    failures = _count_failures(failures, finished, serving, now)

    missing = desired - len(serving) - unseen
    undrain = _best_first(draining)[: max(0, missing)]
    missing = max(0, missing - len(undrain))
    retry_at = failures.last_at + _backoff(failures.count)
    create = missing if now >= retry_at else 0

    # Pods that were not seen yet are not in the sum: they will be surplus when they show up, and go first.
    drain = _worst_first(serving)[: max(0, len(serving) - max(0, desired))]
    kept = {pod.uid for pod in undrain}
    delete = [Deletion(uid=pod.uid, name=pod.name, reason="finished") for pod in finished]
    waits: list[float] = [retry_at] if missing > create else []
    for pod in draining:
        if pod.uid in kept:
            continue
        reason = _may_go(pod, wait_set=wait_set, drains=drains, timeout_seconds=timeout_seconds, now=now)
        if reason is not None:
            delete.append(Deletion(uid=pod.uid, name=pod.name, reason=reason))
        elif pod.draining_since is not None:
            waits.append(pod.draining_since + timeout_seconds)
    deadlines = {pod.uid: _progress_ends(pod, progress_deadline) for pod in serving if not pod.ready}
    waits += [deadline for deadline in deadlines.values() if deadline > now]
    return PoolPlan(
        create=create,
        drain=tuple(drain),
        undrain=tuple(undrain),
        delete=tuple(delete),
        stuck=tuple(pod for pod in serving if deadlines.get(pod.uid, now + 1) <= now),
        crash_looping=tuple(pod for pod in serving if pod.crash_looping),
        postponed=missing - create,
        requeue_at=min(waits, default=None),
        failures=failures,
    )


def _may_go(
    pod: PodView,
    *,
    wait_set: Collection[str],
    drains: Mapping[str, Mapping[str, PodDrain]],
    timeout_seconds: float,
    now: float,
) -> DeleteReason | None:
    if not wait_set:
        return "no-gateway"
    if all(_is_drained(drains.get(gateway, {}).get(pod.uid)) for gateway in wait_set):
        return "drained"
    if pod.draining_since is not None and now >= pod.draining_since + timeout_seconds:
        return "drain-timeout"
    return None


def _is_drained(drain: PodDrain | None) -> bool:
    return drain is not None and drain.acked and drain.in_flight == 0


def _best_first(pods: Iterable[PodView]) -> list[PodView]:
    """The order of taking back drains: ready ones, then those that do not crash, then the oldest."""
    return sorted(pods, key=lambda pod: (not pod.ready, pod.crash_looping, pod.created_at, pod.uid))


def _worst_first(pods: Sequence[PodView]) -> list[PodView]:
    """The order of scaling down: not ready ones (crash loops first), then those that share a node with the most
    others, then the youngest."""
    shared: dict[str, int] = {}
    rank: dict[str, int] = {}
    for pod in sorted(pods, key=lambda pod: (not pod.ready, pod.created_at, pod.uid)):
        rank[pod.uid] = shared.get(pod.node, 0)
        shared[pod.node] = rank[pod.uid] + 1
    return sorted(
        pods, key=lambda pod: (pod.ready, not pod.crash_looping, -rank[pod.uid], -pod.created_at, pod.uid)
    )


def _progress_ends(pod: PodView, progress_deadline: float) -> float:
    return max(pod.created_at, pod.ready_since or 0.0) + progress_deadline


def _count_failures(
    failures: Failures, finished: Sequence[PodView], serving: Sequence[PodView], now: float
) -> Failures:
    """Pods that ended since the last plan count as one failure together: a node that dies takes many at once."""
    seen = frozenset(pod.uid for pod in finished)
    count, last_at = failures.count, failures.last_at
    recovered = any(pod.ready and pod.created_at > last_at for pod in serving)
    if count and (recovered or now - last_at > FORGET_FAILURES_AFTER):
        count = 0
    if seen - failures.seen:
        count, last_at = count + 1, now
    return Failures(count=count, last_at=last_at, seen=seen)


def _backoff(count: int) -> float:
    """Seconds before the next creation: the first loss is replaced at once, then 1, 2, 4 … 300."""
    return 0.0 if count <= 1 else min(BACKOFF_MAX, BACKOFF_BASE * 2.0 ** min(count - 2, 20))


def _time(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return parse(text)
    except ValueError:
        return None
