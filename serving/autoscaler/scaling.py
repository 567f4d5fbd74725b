"""From the wanted scale to pods: bounds, activation and the way to zero.

The revision is `activating` (Active Unknown), active (True) or inactive (False), as upstream's PodAutoscaler.
Zero is reached in steps: idle for a stable window while active → inactive → no pods. What differs from upstream:

- Inactive means that the last pods are *drained*: new requests go to the activator, running ones end, a poke
  takes the drain back. So `replicas` falls to 0 at once (after the retention period), and the pool deletes a pod
  only when every gateway acknowledged. Upstream waits with the pod in place until a probe meets the activator.
- The grace period is then only an upper bound for calling the revision settled: the acknowledgement of all
  gateways ends it early.
- An inactive revision keeps its reason (`TimedOut` is not overwritten by `NoTraffic` at the next look), so that
  looking again writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from serving.api import keys
from serving.api.meta import Condition, find_condition
from serving.api.v1 import Revision
from serving.autoscaler.parameters import ScalingParameters
from serving.autoscaler.policies import UNDECIDED, clamp, compose, scale_bounds

ACTIVATION_BUFFER: Final = 30.0
"""Seconds beyond the progress deadline, so that the pods' own failure is reported before they go."""

_SOON: Final = 1e-3
"""Seconds. A timer that fires this little early counts as on time; else rounding could ask for it for ever."""

Status: TypeAlias = Literal["True", "False", "Unknown"]
Reachability: TypeAlias = Literal["Reachable", "Unreachable", ""]


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """The Active condition. `since`: Unix time of the last change of status or reason."""

    status: Status = "Unknown"
    reason: str = ""
    message: str = ""
    since: float = 0.0


class ScaleState(msgspec.Struct, frozen=True, kw_only=True):
    activity: Activity
    initialized: bool = False
    """The initial scale was reached once; never goes back."""
    replicas: int = 1
    """Pods asked for by the last outcome."""


class ScaleObservation(msgspec.Struct, frozen=True, kw_only=True):
    ready: int
    """Ready pods that take new requests."""
    reachability: Reachability = ""
    acked: bool = False
    """Every gateway in the wait set sends new requests of this revision to the activator."""


class ScaleOutcome(msgspec.Struct, frozen=True, kw_only=True):
    want: int
    """For `status.desiredReplicas`; UNDECIDED leaves what is there."""
    replicas: int
    """Pods to have now. The rest is to be drained."""
    activity: Activity
    initialized: bool
    requeue_after: float | None = None
    """Seconds until time alone can change the outcome; None = only an event can."""


QUEUED: Final = ("Queued", "Requests to the target are being buffered as resources are provisioned.")
NO_TRAFFIC: Final = ("NoTraffic", "The target is not receiving traffic.")
TIMED_OUT: Final = ("TimedOut", "The target could not be activated.")


def scale(
    params: ScalingParameters,
    state: ScaleState,
    observation: ScaleObservation,
    desired: int,
    now: float,
) -> tuple[ScaleOutcome, ScaleState]:
    """Apply bounds and the scale-to-zero rules to `desired` (UNDECIDED = there was no data)."""
    want, replicas, requeue = _target(params, state, observation, desired, now)
    initialized, activity = _activity(params, state, observation, want=want, now=now)
    if activity.since == now and activity is not state.activity:
        requeue = _earlier(requeue, _next_step(params, activity, want=want))
    outcome = ScaleOutcome(
        want=want, replicas=replicas, activity=activity, initialized=initialized, requeue_after=requeue
    )
    return outcome, ScaleState(activity=activity, initialized=initialized, replicas=replicas)


def reachability(
    routing_state: str, *, resources_failed: bool, container_failed: bool, pods: int, ready: int
) -> Reachability:
    """A revision whose pods all fail counts as unreachable, so that it does not hold its minimum for ever."""
    if (resources_failed or container_failed) and pods > 0 and ready == 0:
        return "Unreachable"
    by_state: Mapping[str, Reachability] = {"active": "Reachable", "reserve": "Unreachable"}
    return by_state.get(routing_state, "")


def revision_reachability(revision: Revision, *, pods: int, ready: int) -> Reachability:
    """`reachability` of a Revision as stored."""

    def failed(kind: str) -> bool:
        condition = find_condition(revision.status.conditions, kind)
        return condition is not None and condition.status == "False"

    return reachability(
        revision.metadata.labels.get(keys.ROUTING_STATE, ""),
        resources_failed=failed("ResourcesAvailable"),
        container_failed=failed("ContainerHealthy"),
        pods=pods,
        ready=ready,
    )


def initial_state(
    params: ScalingParameters, *, now: float, replicas: int | None, initialized: bool, active: Condition | None
) -> ScaleState:
    """State of a revision that this process sees for the first time.

    For a new revision `replicas` is None. After a restart it is what was last asked for (or what runs), and the
    activity is taken from the stored Active condition, but counts from now: idle time before the restart was not
    observed, so it does not bring the revision nearer to zero.
    """
    if replicas is None:
        return ScaleState(activity=Activity(since=now), initialized=initialized, replicas=params.initial_scale)
    activity = Activity(since=now)
    if active is not None:
        status: Status = "True" if active.status == "True" else "False" if active.status == "False" else "Unknown"
        activity = Activity(status=status, reason=active.reason, message=active.message, since=now)
    return ScaleState(activity=activity, initialized=initialized, replicas=replicas)


def _target(
    params: ScalingParameters, state: ScaleState, observation: ScaleObservation, desired: int, now: float
) -> tuple[int, int, float | None]:
    """(want, replicas, requeue_after)."""
    unreachable = observation.reachability == "Unreachable"
    bounds = scale_bounds(params, initialized=state.initialized, unreachable=unreachable)
    if desired == UNDECIDED:
        # No data is no decision: what runs stays, but bounds that were edited still hold.
        kept = clamp(state.replicas, bounds)
        if state.activity.status != "Unknown":
            return (kept if kept != state.replicas else UNDECIDED), kept, None
        if bounds.low > 0:
            return kept, kept, None
        return _towards_zero(params, state, observation, kept=kept, now=now)
    want = compose(desired, bounds=(bounds,))
    if want > 0:
        return want, want, None
    return _towards_zero(params, state, observation, kept=clamp(state.replicas, bounds), now=now)


def _towards_zero(
    params: ScalingParameters, state: ScaleState, observation: ScaleObservation, *, kept: int, now: float
) -> tuple[int, int, float | None]:
    """(want, replicas, requeue_after) when no pod is wanted; `kept` is what runs, within the bounds."""
    if not params.enable_scale_to_zero:
        return 1, 1, None
    elapsed = now - state.activity.since + _SOON
    if state.activity.status == "Unknown":
        patience = params.progress_deadline + ACTIVATION_BUFFER
        if elapsed >= patience:
            return 0, 0, None
        return UNDECIDED, kept, patience - elapsed
    retention = 0.0 if observation.reachability == "Unreachable" else params.pod_retention
    if state.activity.status == "True":
        if elapsed < params.stable_window:
            return 1, 1, params.stable_window - elapsed
        if retention > 0:
            return 0, min(1, kept), retention
        return 0, 0, None if observation.acked else params.grace_period
    if elapsed < retention:
        # The last pod stays and may answer, but only the last.
        return 0, min(1, kept), retention - elapsed
    settled = observation.acked or elapsed >= max(params.grace_period, retention)
    return 0, 0, None if settled else max(params.grace_period, retention) - elapsed


def _activity(
    params: ScalingParameters, state: ScaleState, observation: ScaleObservation, *, want: int, now: float
) -> tuple[bool, Activity]:
    """(initialized, Active condition) after this outcome."""
    least = 0 if observation.reachability == "Unreachable" else params.min_scale
    enough = max(1, least) if state.initialized else max(least, params.initial_scale)
    initialized = state.initialized or observation.ready >= enough
    current = state.activity
    if want == 0 or enough == 0:
        if current.status == "False":
            return initialized, current
        gave_up = current.status == "Unknown" and enough > 0
        return initialized, _change(current, "False", TIMED_OUT if gave_up else NO_TRAFFIC, now)
    if want < 0 and current.status == "False":
        return initialized, current
    if observation.ready < enough:
        return initialized, _change(current, "Unknown", QUEUED, now)
    return initialized, _change(current, "True", ("", ""), now)


def _change(current: Activity, status: Status, why: tuple[str, str], now: float) -> Activity:
    reason, message = why
    if (current.status, current.reason) == (status, reason):
        return current
    return Activity(status=status, reason=reason, message=message, since=now)


def _next_step(params: ScalingParameters, activity: Activity, *, want: int) -> float | None:
    """Seconds after a change of the Active condition when time alone may change the outcome again."""
    if activity.status == "Unknown":
        return params.progress_deadline + ACTIVATION_BUFFER
    if activity.status == "True" and want <= 1:
        return params.stable_window
    return None


def _earlier(one: float | None, other: float | None) -> float | None:
    given = [value for value in (one, other) if value is not None]
    return min(given, default=None)
