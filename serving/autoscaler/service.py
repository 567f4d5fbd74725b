"""The autoscaler of all revisions of this controller: keeps one scaler value per revision, and a timer only for
those that have load or wait for time to pass. An idle revision costs its value and nothing else.

No I/O here: reports and pokes come in as calls, decisions go out by callback, both in the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from serving.api.meta import Condition
from serving.api.reports import Demand, Poke
from serving.autoscaler import revision as scalers
from serving.autoscaler.parameters import ScalingParameters
from serving.autoscaler.revision import Decision, Observation, RevisionScaler

log = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0


@dataclass(slots=True)
class _Entry:
    params: ScalingParameters
    scaler: RevisionScaler
    decision: Decision | None = None
    timer: asyncio.TimerHandle | None = None


class Autoscaler:
    """`observe(key)` gives the present facts of a revision; `decided(key, decision)` gets every decision that
    differs from the one before. `now` is Unix time in seconds."""

    def __init__(
        self,
        *,
        now: Callable[[], float],
        observe: Callable[[str], Observation],
        decided: Callable[[str, Decision], None],
    ) -> None:
        self._now = now
        self._observe = observe
        self._decided = decided
        self._entries: dict[str, _Entry] = {}
        self._tracking: set[str] = set()

    def ensure(
        self,
        key: str,
        params: ScalingParameters,
        *,
        replicas: int | None,
        initialized: bool,
        active: Condition | None,
    ) -> None:
        """Take a revision on, or look at it again: its parameters or its reachability may have changed. The last
        three are what its status says, and count only the first time."""
        entry = self._entries.get(key)
        new = entry is None
        if entry is None:
            pods = self._observe(key).pods
            scaler = scalers.start(
                params, pods=pods, now=self._now(), replicas=replicas, initialized=initialized, active=active
            )
            entry = self._entries[key] = _Entry(params=params, scaler=scaler)
        if params.problems and (new or params.problems != entry.params.problems):
            log.warning("revision %s: %s", key, "; ".join(params.problems))
        entry.params = params
        self.evaluate(key)

    def forget(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        self._tracking.discard(key)
        if entry is not None and entry.timer is not None:
            entry.timer.cancel()

    def decision(self, key: str) -> Decision | None:
        """The last decision, None for a revision that is not known."""
        entry = self._entries.get(key)
        return None if entry is None else entry.decision

    def on_demand(self, gateway: str, demand: Demand) -> None:
        """One gateway's report; a revision that is absent from it had no load there."""
        now = self._now()
        interval = max(demand.end - demand.start, 0.0)
        for key in demand.revisions.keys() | self._tracking:
            entry = self._entries.get(key)
            if entry is None:
                continue
            entry.scaler = scalers.report(
                entry.scaler,
                entry.params,
                gateway,
                demand.revisions.get(key),
                interval=interval,
                now=now,
            )
            self.evaluate(key)

    def on_poke(self, poke: Poke) -> bool:
        """A request is held and no pod may answer it. Returns whether the revision is known here."""
        entry = self._entries.get(poke.revision)
        if entry is None:
            return False
        entry.scaler = scalers.poke(entry.scaler, poke.held)
        self.evaluate(poke.revision)
        return True

    def evaluate(self, key: str) -> None:
        """Decide now; after any change of the revision's pods or of the gateways."""
        entry = self._entries.get(key)
        if entry is None:
            return
        now = self._now()
        try:
            decision, entry.scaler = scalers.step(entry.scaler, entry.params, self._observe(key), now)
        except Exception:
            # One revision's fault: the others of the same report go on, and this one is tried again.
            log.exception("revision %s: no decision", key)
            self._set_timer(key, entry, now + _RETRY_SECONDS, now)
            return
        if entry.scaler.is_tracking:
            self._tracking.add(key)
        else:
            self._tracking.discard(key)
        self._set_timer(key, entry, decision.next_tick_at, now)
        before, entry.decision = entry.decision, decision
        if before is None or _differs(before, decision):
            self._decided(key, decision)

    def evaluate_all(self) -> None:
        """After a change of the set of live gateways: it concerns every revision that has load or pods."""
        for key in list(self._tracking):
            self.evaluate(key)

    def close(self) -> None:
        for key in list(self._entries):
            self.forget(key)

    def collect(self) -> Iterator[Metric]:
        """Gauges with Knative's names (prometheus-client's collector protocol)."""
        gauges = {
            name: GaugeMetricFamily(f"kn_revision_{name}", text, labels=["namespace_name", "revision_name"])
            for name, text in _GAUGES.items()
        }
        for key, entry in self._entries.items():
            if entry.decision is None:
                continue
            decision, labels = entry.decision, key.split("/", 1)
            gauges["pods_desired"].add_metric(labels, decision.desired)
            gauges["capacity_excess"].add_metric(labels, decision.excess_burst_capacity)
            gauges["panic_mode"].add_metric(labels, float(decision.panicking))
            metric = entry.params.metric
            if decision.averages is not None:
                gauges[f"{metric}_stable"].add_metric(labels, decision.averages.stable)
                gauges[f"{metric}_panic"].add_metric(labels, decision.averages.panic)
            gauges[f"{metric}_target"].add_metric(labels, entry.params.target)
        yield from gauges.values()

    def _set_timer(self, key: str, entry: _Entry, at: float | None, now: float) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if at is not None:
            loop = asyncio.get_running_loop()
            entry.timer = loop.call_later(max(at - now, 0.0), self.evaluate, key)


_GAUGES = {
    "pods_desired": "Pods that the autoscaler wants",
    "capacity_excess": "Excess burst capacity over the last panic window",
    "panic_mode": "1 while the autoscaler panics",
    "concurrency_stable": "Average concurrency over the stable window",
    "concurrency_panic": "Average concurrency over the panic window",
    "concurrency_target": "Concurrency that one pod should have",
    "rps_stable": "Average requests a second over the stable window",
    "rps_panic": "Average requests a second over the panic window",
    "rps_target": "Requests a second that one pod should have",
}


def _differs(old: Decision, new: Decision) -> bool:
    """Whether pods or status would differ; averages and ticks move all the time."""
    return (
        (old.desired, old.want, old.initialized, old.activity.status, old.activity.reason)
        != (new.desired, new.want, new.initialized, new.activity.status, new.activity.reason)
    ) or new.woken
