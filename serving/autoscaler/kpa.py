"""The reactive decision: how many pods the observed averages ask for.

Two averages: the stable one sets the scale, the panic one (a tenth of the window) reacts to bursts. While
panicking the scale only rises. Rates limit one decision against the ready pods, not against the last decision.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from serving.api.config.autoscaler import MAX_INT32
from serving.autoscaler.parameters import ScalingParameters

TICK_SECONDS: Final = 2.0


class KpaState(msgspec.Struct, frozen=True, kw_only=True):
    """Soft state between decisions; a restart begins with `initial_state`."""

    panic_since: float | None = None
    """When the panic threshold was last crossed; None = not panicking."""
    max_panic_pods: int = 0
    delayed: tuple[tuple[int, int], ...] = ()
    """(slot of 2 s, decision) with falling decisions: all that can be the maximum of the delay window."""


class KpaObservation(msgspec.Struct, frozen=True, kw_only=True):
    ready: int
    """Ready pods that take new requests."""
    stable: float
    """Average over the stable window, of the whole revision."""
    panic: float
    reachable: bool = True
    """False = no route leads here: the scale may fall at once."""


class ScaleResult(msgspec.Struct, frozen=True, kw_only=True):
    desired: int
    excess_burst_capacity: int
    """Requests that the ready pods could take beyond the load and the burst; negative = the activator stays."""
    panicking: bool


def initial_state(ready: int, *, now: float) -> KpaState:
    """State of a new autoscaler. With more than one ready pod it starts in panic, so that a restart, which
    forgot the load, keeps them for a stable window."""
    return KpaState(panic_since=now, max_panic_pods=ready) if ready > 1 else KpaState()


def decide(
    params: ScalingParameters, state: KpaState, observation: KpaObservation, now: float
) -> tuple[ScaleResult, KpaState]:
    """One decision, before bounds and the rules of scaling to zero."""
    stable, panic, over = _pod_counts(params, observation)
    panic_since, max_panic = state.panic_since, state.max_panic_pods
    if over:
        panic_since = now
    elif panic_since is not None and panic_since + params.stable_window < now:
        panic_since, max_panic = None, 0
    desired = stable
    if panic_since is not None:
        desired = max_panic = max(max_panic, stable, panic)
    desired, delayed = _delay(params, state.delayed, desired, reachable=observation.reachable, now=now)
    result = ScaleResult(
        desired=desired,
        excess_burst_capacity=excess_burst_capacity(params, ready=observation.ready, panic=observation.panic),
        panicking=panic_since is not None,
    )
    return result, KpaState(panic_since=panic_since, max_panic_pods=max_panic, delayed=delayed)


def _pod_counts(params: ScalingParameters, observation: KpaObservation) -> tuple[int, int, bool]:
    """Pods for the stable and the panic average within the rates, and whether panic is called for."""
    ready = max(1, observation.ready)
    # Ceil and floor, so that a rate near 1 can still move by one pod.
    most = math.ceil(min(params.max_scale_up_rate * ready, MAX_INT32))
    least = math.floor(ready / params.max_scale_down_rate) if observation.reachable else 0
    for_stable = math.ceil(observation.stable / params.target)
    for_panic = math.ceil(observation.panic / params.target)
    stable = min(max(for_stable, least), most)
    panic = min(max(for_panic, least), most)
    if params.activation_scale > 1:
        stable = max(stable, params.activation_scale) if for_stable > 0 else stable
        panic = max(panic, params.activation_scale) if for_panic > 0 else panic
    return stable, panic, for_panic / ready >= params.panic_threshold


def _delay(
    params: ScalingParameters, delayed: tuple[tuple[int, int], ...], desired: int, *, reachable: bool, now: float
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """The largest decision of the last `scale_down_delay` seconds, in slots of one tick."""
    slots = math.ceil(params.scale_down_delay / TICK_SECONDS)
    if slots == 0 or not reachable:
        return desired, delayed
    slot = math.floor(now / TICK_SECONDS)
    kept = [entry for entry in delayed if entry[0] > slot - slots]
    while kept and kept[-1][1] <= desired:
        kept.pop()
    if not kept or kept[-1][0] < slot:
        kept.append((slot, desired))
    return kept[0][1], tuple(kept)


def excess_burst_capacity(params: ScalingParameters, *, ready: int, panic: float) -> int:
    """Measured against all that the ready pods can take (`total`), not their target."""
    burst = params.target_burst_capacity
    if burst == 0:
        return 0
    return -1 if burst < 0 else math.floor(ready * params.total - burst - panic)


def initial_burst_capacity(params: ScalingParameters) -> int:
    """Excess burst capacity before the first decision."""
    burst = params.target_burst_capacity
    return int(burst) if burst in (-1, 0) else int(params.initial_scale * params.total - burst)


def serves_directly(*, want: int, excess_burst_capacity: int) -> bool:
    """Upstream's mode of the ServerlessService: True is Serve, False is Proxy (activator in path)."""
    return want > 0 and excess_burst_capacity >= 0


def num_activators(*, ready: int, total: float, target_burst_capacity: float, activator_capacity: float) -> int:
    """How many activators upstream would put in path; at least two."""
    if target_burst_capacity == 0:
        return 2
    return max(2, math.ceil((ready * total + max(target_burst_capacity, 0)) / activator_capacity))
