"""The autoscaler of one revision, for the shell: a value, and functions that return the next one.

The shell feeds every gateway's `Demand` (`report`) and `Poke` (`poke`), and calls `step` after any of them, when
pods or parameters changed, and at `Decision.next_tick_at`. A revision without load needs nothing: `next_tick_at`
is None, its windows are dropped, and reports without demand need not be fed to it (`is_tracking` is False).

Rules that hold over all inputs: no data, no decision; a gateway that lives but was not heard, or fell silent, can
only keep pods; a poke gets at least one pod in the same step.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from serving.api.meta import Condition
from serving.api.reports import RevisionDemand
from serving.autoscaler import kpa, metrics, scaling
from serving.autoscaler.kpa import TICK_SECONDS, KpaObservation, KpaState
from serving.autoscaler.metrics import NO_DEMAND, Averages, MetricState
from serving.autoscaler.parameters import ScalingParameters
from serving.autoscaler.policies import UNDECIDED
from serving.autoscaler.scaling import Activity, Reachability, ScaleObservation, ScaleOutcome, ScaleState

_ZERO: Final = Averages(0.0, 0.0)
_SOON: Final = 1e-3  # a timer that fires this little early is on time


class PodCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Pods of the revision that exist, without those being deleted or finished."""

    ready: int = 0
    """Ready and not draining."""
    live: int = 0
    """Not draining: ready or on the way."""
    draining: int = 0


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    pods: PodCounts
    gateways: frozenset[str]
    """Gateways whose Lease is valid, connected or not (the wait set)."""
    reachability: Reachability = ""
    acked: bool = False
    """Every gateway in the wait set sends new requests of this revision to the activator."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    desired: int
    """Pods to have now; the pool drains the rest."""
    want: int
    """For `status.desiredReplicas`; -1 leaves what is there."""
    activity: Activity
    """The Active condition."""
    initialized: bool
    """The initial scale was reached once."""
    excess_burst_capacity: int
    panicking: bool
    averages: Averages | None
    """None when there is no data."""
    next_tick_at: float | None
    """When to call `step` if nothing else happens; None = only an event can change the decision."""
    woken: bool = False
    """Decided because of a poke."""


class RevisionScaler(msgspec.Struct, frozen=True, kw_only=True):
    scale: ScaleState
    desired: int
    """Last reactive decision; UNDECIDED before the first."""
    kpa: KpaState
    excess_burst_capacity: int
    metrics: MetricState | None = None
    tick_at: float | None = None
    """Next reactive decision; None = the load is known to be zero and nothing moves."""
    idle_pods: bool = False
    """Pods were there while nothing was tracked: their zeros count when load returns."""
    held: int = 0
    """Requests of pokes that no step has answered yet."""

    @property
    def is_tracking(self) -> bool:
        """Whether reports without demand have to be fed too."""
        return self.tick_at is not None


def start(
    params: ScalingParameters,
    *,
    pods: PodCounts,
    now: float,
    replicas: int | None = None,
    initialized: bool = False,
    active: Condition | None = None,
) -> RevisionScaler:
    """The scaler of a revision that this process sees for the first time, pods and status being known.

    `replicas` is what was asked for before a restart (`status.desiredReplicas`), None for a new revision. Pods
    that run are kept until there is data: never fewer than are live, and with several ready ones in panic mode.
    """
    if replicas is not None or pods.live:
        replicas = max(replicas or 0, pods.live)
    scale = scaling.initial_state(params, now=now, replicas=replicas, initialized=initialized, active=active)
    asleep = replicas == 0 and pods.live == 0 and scale.activity.status == "False"
    return RevisionScaler(
        scale=scale,
        desired=0 if asleep else UNDECIDED,
        kpa=kpa.initial_state(pods.ready, now=now),
        excess_burst_capacity=kpa.initial_burst_capacity(params),
        tick_at=None if asleep else now + TICK_SECONDS,
    )


def report(
    scaler: RevisionScaler,
    params: ScalingParameters,
    gateway: str,
    demand: RevisionDemand | None,
    *,
    interval: float,
    now: float,
) -> RevisionScaler:
    """Merge one gateway's report over the last `interval` seconds; None = the revision was absent from it."""
    demand = demand or NO_DEMAND
    quiet = not (demand.in_progress or demand.issued or demand.held)
    if quiet and not scaler.is_tracking:
        return scaler
    state = scaler.metrics or metrics.initial(params, idle_until=now if scaler.idle_pods else None)
    state = metrics.record(metrics.configure(state, params), gateway, demand, interval=interval, now=now)
    return msgspec.structs.replace(
        scaler,
        metrics=state,
        tick_at=now if scaler.tick_at is None else scaler.tick_at,
        idle_pods=False,
        held=max(scaler.held, demand.held),
    )


def poke(scaler: RevisionScaler, held: int) -> RevisionScaler:
    """A gateway holds requests that no pod may answer. The next `step` acts on it."""
    return msgspec.structs.replace(scaler, held=max(scaler.held, held, 1))


def step(
    scaler: RevisionScaler, params: ScalingParameters, observation: Observation, now: float
) -> tuple[Decision, RevisionScaler]:
    """Decide. Safe to call at any time: between ticks only events, bounds and elapsed times are looked at."""
    state = scaler.metrics
    if state is not None:
        state = metrics.retain(metrics.configure(state, params), observation.gateways)
    averages = _averages(scaler, params, state, observation, now)
    desired, kpa_state, burst = scaler.desired, scaler.kpa, scaler.excess_burst_capacity
    due = scaler.tick_at is None or now >= scaler.tick_at - _SOON
    if due and averages is not None:
        result, kpa_state = kpa.decide(params, kpa_state, _kpa_observation(observation, averages), now)
        burst = result.excess_burst_capacity
        desired = _hold(scaler, params, state, observation, averages=averages, desired=result.desired, now=now)
    woken = scaler.held > 0 and (scaler.scale.replicas == 0 or observation.pods.live == 0)
    if woken:
        desired = max(desired, wake_scale(params, scaler.held))
        kpa_state = _panic_if_flooded(params, kpa_state, scaler.held, now)
    outcome, scale = _scale(scaler, params, observation, desired, now)
    # Without a gateway nothing is known; a revision at rest then stays at rest.
    quiet = due and not woken and (averages == _ZERO or (averages is None and not scaler.is_tracking))
    if quiet and _is_still(scaler, params, kpa_state, state, observation, outcome=outcome, now=now):
        tick_at, state = None, None
        # What is idle is not panicking: the old peak must not come back with the next request.
        kpa_state = KpaState()
    else:
        tick_at = now + TICK_SECONDS if due or scaler.tick_at is None else scaler.tick_at
    following = RevisionScaler(
        scale=scale,
        desired=desired,
        kpa=kpa_state,
        excess_burst_capacity=burst,
        metrics=state,
        tick_at=tick_at,
        idle_pods=tick_at is None and observation.pods.live > 0,
    )
    decision = Decision(
        desired=outcome.replicas,
        want=outcome.want,
        activity=outcome.activity,
        initialized=outcome.initialized,
        excess_burst_capacity=burst,
        panicking=kpa_state.panic_since is not None,
        averages=averages,
        next_tick_at=_next_tick(tick_at, outcome, now),
        woken=woken,
    )
    return decision, following


def wake_scale(params: ScalingParameters, held: int) -> int:
    """Pods for requests that wait while there is no pod: at least one and the activation scale, enough for the
    held ones, within the rate of scaling up from one."""
    return max(1, _pods_for(params, held), params.activation_scale)


def _pods_for(params: ScalingParameters, held: int) -> int:
    return math.ceil(min(held / params.target, params.max_scale_up_rate))


def _panic_if_flooded(params: ScalingParameters, state: KpaState, held: int, now: float) -> KpaState:
    """A flood of held requests is a panic: averages over windows of zeros must not take back what it asked for."""
    pods = _pods_for(params, held)
    if pods < params.panic_threshold:
        return state
    return msgspec.structs.replace(state, panic_since=now, max_panic_pods=max(state.max_panic_pods, pods))


def _averages(
    scaler: RevisionScaler,
    params: ScalingParameters,
    state: MetricState | None,
    observation: Observation,
    now: float,
) -> Averages | None:
    """None without data: no gateway lives, or none has reported."""
    if not observation.gateways:
        return None
    if state is None:
        return None if scaler.is_tracking else _ZERO
    return metrics.averages(state, params.aggregation, now)


def _kpa_observation(observation: Observation, averages: Averages) -> KpaObservation:
    return KpaObservation(
        ready=observation.pods.ready,
        stable=averages.stable,
        panic=averages.panic,
        reachable=observation.reachability != "Unreachable",
    )


def _hold(
    scaler: RevisionScaler,
    params: ScalingParameters,
    state: MetricState | None,
    observation: Observation,
    *,
    averages: Averages,
    desired: int,
    now: float,
) -> int:
    """`desired`, kept from falling by gateways whose load is not known at the moment."""
    if state is None or desired >= scaler.scale.replicas:
        return desired
    if not observation.gateways <= state.gateways.keys():
        return scaler.scale.replicas
    unknown = metrics.standing(state, observation.gateways, now)
    if unknown == 0:
        return desired
    return max(desired, min(scaler.scale.replicas, math.ceil((averages.stable + unknown) / params.target)))


def _scale(
    scaler: RevisionScaler, params: ScalingParameters, observation: Observation, desired: int, now: float
) -> tuple[ScaleOutcome, ScaleState]:
    pods = observation.pods
    seen = ScaleObservation(
        ready=pods.ready,
        reachability=observation.reachability,
        acked=observation.acked or pods.live + pods.draining == 0,
    )
    return scaling.scale(params, scaler.scale, seen, desired, now)


def _is_still(
    scaler: RevisionScaler,
    params: ScalingParameters,
    kpa_state: KpaState,
    state: MetricState | None,
    observation: Observation,
    *,
    outcome: ScaleOutcome,
    now: float,
) -> bool:
    """Whether, at zero load, deciding again later would change nothing."""
    pods = observation.pods
    settled = outcome.requeue_after is None and outcome.replicas == scaler.scale.replicas
    at_rest = outcome.replicas == pods.live == pods.ready
    delayed = any(value > 0 for _slot, value in kpa_state.delayed) and params.scale_down_delay > 0
    if not settled or not at_rest or delayed or kpa_state.panic_since is not None:
        return False
    if state is None:
        return True
    heard = observation.gateways <= state.gateways.keys()
    return heard and metrics.standing(state, observation.gateways, now) == 0 and metrics.held(state) == 0


def _next_tick(tick_at: float | None, outcome: ScaleOutcome, now: float) -> float | None:
    requeue_at = None if outcome.requeue_after is None else now + outcome.requeue_after
    times = [time for time in (tick_at, requeue_at) if time is not None]
    return min(times, default=None)
