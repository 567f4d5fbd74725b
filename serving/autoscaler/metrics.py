"""Reports of several gateways merged into one revision's averages.

Reports are additive over gateways. A gateway may report slower or faster than each second: what it says of one
second is averaged by time within that second, then added to what the others say. Envoy's in-progress count is a
sample, so a load of short requests looks like zero most of the time; each report therefore counts as at least
`issued` requests of the learned service time (Little's law), and never as zero when a request was issued.

Times are the controller's at receipt, so gateways' clocks need not agree; only the length of a report's interval
is taken from the gateway.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from serving.api.reports import RevisionDemand
from serving.autoscaler import window as windows
from serving.autoscaler.parameters import Aggregation, Metric, ScalingParameters
from serving.autoscaler.window import Window

SILENT_AFTER_SECONDS: Final = 3.0
"""A gateway that said nothing for this long and three of its intervals counts as silent."""
_LEARNING_DECAY: Final = 0.8
"""Weight of what is known of the service time against one more report with finished requests."""
_SMALLEST_AVERAGE: Final = 2e-6
"""Survives the rounding of averages to six digits, so that any request at all keeps a revision awake."""

NO_DEMAND: Final = RevisionDemand(in_progress=0, issued=0, held=0)


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway said last, and its share of the bucket that it is filling."""

    at: float
    interval: float
    demand: RevisionDemand
    value: float
    """Load of the last report, in the metric's unit."""
    bucket: int
    share: float
    """Time average of the reports in `bucket`: what is in the windows for it."""
    weight: float
    """Seconds that the average is made of."""


class MetricState(msgspec.Struct, frozen=True, kw_only=True):
    metric: Metric
    stable: Window
    panic: Window
    gateways: Mapping[str, Series] = {}
    request_seconds: float = 0.0
    requests: float = 0.0
    """Decayed sums; their quotient is the learned service time."""

    @property
    def service_time(self) -> float:
        """Seconds per request as learned; 0 before anything is known."""
        return self.request_seconds / self.requests if self.requests > 0 else 0.0


class Averages(msgspec.Struct, frozen=True):
    stable: float
    panic: float


def initial(params: ScalingParameters, *, idle_until: float | None = None) -> MetricState:
    """No data; or, with `idle_until`, a window of zeros that ends before that time (pods were there, idle)."""
    if idle_until is None:
        stable, panic = windows.empty(params.stable_window), windows.empty(params.panic_window)
    else:
        until = math.floor(idle_until) - 1
        stable = windows.zeros(params.stable_window, until=until)
        panic = windows.zeros(params.panic_window, until=until)
    return MetricState(metric=params.metric, stable=stable, panic=panic)


def configure(state: MetricState, params: ScalingParameters) -> MetricState:
    """The state under changed parameters: other windows keep the history, another metric starts anew."""
    if state.metric != params.metric:
        return initial(params)
    stable = windows.resize(state.stable, params.stable_window)
    panic = windows.resize(state.panic, params.panic_window)
    if stable is state.stable and panic is state.panic:
        return state
    return msgspec.structs.replace(state, stable=stable, panic=panic)


def record(
    state: MetricState, gateway: str, demand: RevisionDemand, *, interval: float, now: float
) -> MetricState:
    """One gateway's report over the `interval` seconds before `now`.

    A revision that is absent from a gateway's `Demand` has to be recorded as `NO_DEMAND`: zeros are data.
    """
    interval = max(interval, 1e-3)
    last = state.gateways.get(gateway)
    request_seconds, requests = _learn(state, last, demand, interval)
    service_time = request_seconds / requests if requests > 0 else 0.0
    value = _load(state, demand, interval=interval, service_time=service_time)
    bucket = math.floor(now)
    stable, panic, gateways = state.stable, state.panic, dict(state.gateways)
    share, weight = value, interval
    if last is not None and last.bucket >= bucket:
        # More of the same second: its average moves, so add the difference. A clock that went back adds here too.
        bucket = last.bucket
        weight = last.weight + interval
        share = last.share + (value - last.share) * interval / weight
        changes = [(bucket, share - last.share)]
    else:
        # Seconds that this report covers and no earlier one did.
        start = math.floor(now - interval) + 1 if last is None else last.bucket + 1
        earliest = max(start, math.floor(now - interval), bucket - state.stable.length + 1)
        changes = [(second, value) for second in range(min(earliest, bucket), bucket + 1)]
        if bucket > state.stable.last:
            changes += _carry(gateways, bucket, now, but=gateway)
    for second, change in changes:
        stable = windows.add(stable, second, change)
        panic = windows.add(panic, second, change)
    gateways[gateway] = Series(
        at=now, interval=interval, demand=demand, value=value, bucket=bucket, share=share, weight=weight
    )
    return msgspec.structs.replace(
        state,
        stable=stable,
        panic=panic,
        gateways=gateways,
        request_seconds=request_seconds,
        requests=requests,
    )


def retain(state: MetricState, live: Collection[str]) -> MetricState:
    """Forget gateways whose Lease expired. What they reported ages out of the windows."""
    if all(gateway in live for gateway in state.gateways):
        return state
    kept = {gateway: series for gateway, series in state.gateways.items() if gateway in live}
    return msgspec.structs.replace(state, gateways=kept)


def averages(state: MetricState, aggregation: Aggregation, now: float) -> Averages | None:
    """None when there is no data: then no decision may be made."""
    if windows.is_empty(state.stable, now) or math.floor(now) - state.stable.last == state.stable.length:
        return None  # upstream reads one last zero when the newest write is exactly a window old
    # A report that is due within its interval is not missing: read as of the newest one. Otherwise the weighted
    # average would lose most of its value whenever a decision comes just before a report.
    slowest = max((series.interval for series in state.gateways.values()), default=1.0)
    if math.floor(now) - state.stable.last <= math.ceil(min(slowest, SILENT_AFTER_SECONDS)):
        now = state.stable.last
    if aggregation == "weighted-exponential":
        return Averages(windows.weighted(state.stable, now), windows.weighted(state.panic, now))
    return Averages(windows.linear(state.stable, now), windows.linear(state.panic, now))


def standing(state: MetricState, live: Collection[str], now: float) -> float:
    """Last load of the gateways that live and are silent. It may block scale-down, never cause scale-up."""
    return sum(
        series.value
        for gateway, series in state.gateways.items()
        if gateway in live and now - series.at > max(SILENT_AFTER_SECONDS, 3 * series.interval)
    )


def held(state: MetricState) -> int:
    """Requests that wait in activators, by the last reports."""
    return sum(series.demand.held for series in state.gateways.values())


def _carry(gateways: dict[str, Series], bucket: int, now: float, *, but: str) -> list[tuple[int, float]]:
    """Until the others report of a second that begins, their last word stands for it; their report then
    replaces it. Otherwise the newest second would lack the load of every gateway but the first to speak."""
    changes = []
    for gateway, series in gateways.items():
        if gateway != but and series.value and series.bucket < bucket and now - series.at <= 2 * series.interval:
            gateways[gateway] = msgspec.structs.replace(series, bucket=bucket, share=series.value, weight=0.0)
            changes += [(second, series.value) for second in range(series.bucket + 1, bucket + 1)]
    return changes


def _load(state: MetricState, demand: RevisionDemand, *, interval: float, service_time: float) -> float:
    rate = demand.issued / interval
    load = rate if state.metric == "rps" else max(float(demand.in_progress), rate * service_time)
    if demand.issued or demand.in_progress:
        return max(load, _SMALLEST_AVERAGE * state.stable.length)
    return 0.0


def _learn(
    state: MetricState, last: Series | None, demand: RevisionDemand, interval: float
) -> tuple[float, float]:
    """Decayed sums of request-seconds and requests with this report in them.

    Requests that were held are left out: their time is the cold start's, not the application's.
    """
    before = last.demand if last is not None else NO_DEMAND
    if demand.held or before.held or (last is None and demand.in_progress > demand.issued):
        return state.request_seconds, state.requests
    finished = demand.issued + before.in_progress - demand.in_progress
    if demand.busy_seconds > 0 and finished > 0:
        seconds, requests = demand.busy_seconds, float(finished)
    elif demand.issued > 0:
        # Little's law on samples: mean in progress over rate of arrival.
        seconds, requests = (before.in_progress + demand.in_progress) / 2 * interval, float(demand.issued)
    else:
        return state.request_seconds, state.requests
    return (
        state.request_seconds * _LEARNING_DECAY + seconds,
        state.requests * _LEARNING_DECAY + requests,
    )
