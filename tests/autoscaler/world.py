"""A revision on virtual time: the facade, a pool that starts pods after a delay, gateways that report."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from serving.api.reports import RevisionDemand
from serving.autoscaler.parameters import ScalingParameters
from serving.autoscaler.revision import (
    Decision,
    Observation,
    PodCounts,
    RevisionScaler,
    poke,
    report,
    start,
    step,
)
from serving.autoscaler.scaling import Reachability

T0 = 1_000_000.0


class World:
    """Steps of 0.1 s. `load(seconds)` is the concurrency of the whole revision, split over the gateways that
    talk; with no ready pod all of it is held."""

    def __init__(
        self, params: ScalingParameters, *, gateways: tuple[str, ...] = ("a",), boot: float = 0.2, pods: int = 0
    ) -> None:
        self.params = params
        self.now = T0
        self.live = frozenset(gateways)
        self.talking = set(gateways)
        self.boot = boot
        self.born: list[float] = [T0 - 1000.0] * pods
        self.draining = 0
        self.reachability: Reachability = "Reachable"
        self.acked = True
        self.decision: Decision | None = None
        self.history: list[tuple[float, int]] = []
        self.steps = 0
        self.scaler: RevisionScaler = start(params, pods=self.counts(), now=self.now, replicas=pods or None)

    def counts(self) -> PodCounts:
        ready = bisect_right(self.born, self.now - self.boot)
        return PodCounts(ready=ready, live=len(self.born), draining=self.draining)

    def step(self) -> Decision:
        observation = Observation(
            pods=self.counts(), gateways=self.live, reachability=self.reachability, acked=self.acked
        )
        self.decision, self.scaler = step(self.scaler, self.params, observation, self.now)
        self.steps += 1
        desired = self.decision.desired
        if not self.history or self.history[-1][1] != desired:
            self.history.append((round(self.now - T0, 1), desired))
        self.born = self.born[:desired] + [self.now] * (desired - len(self.born))
        return self.decision

    def poke(self, held: int = 1) -> Decision:
        self.scaler = poke(self.scaler, held)
        return self.step()

    def run(
        self, seconds: float, load: Callable[[float], float] | float = 0.0, *, issued: float = 0.0
    ) -> Decision:
        """`issued`: requests a second, on top of what the concurrency needs."""
        until, before = self.now + seconds, -1
        while self.now < until - 0.05:
            self.now = round(self.now + 0.1, 1)
            value = load(self.now - T0) if callable(load) else load
            changed = self.counts().ready != before
            before = self.counts().ready
            if round(self.now * 10) % 10 == 5:
                self._report(value, issued)
                self.step()
            elif changed or self._is_due():
                self.step()
        assert self.decision is not None
        return self.decision

    def _is_due(self) -> bool:
        at = None if self.decision is None else self.decision.next_tick_at
        return at is not None and self.now >= at

    def _report(self, load: float, issued: float) -> None:
        for gateway in sorted(self.talking):
            share = round(load / len(self.live))
            demand = RevisionDemand(
                in_progress=share, issued=round(issued / len(self.live)), held=0 if self.counts().ready else share
            )
            present = demand if share or issued else None
            self.scaler = report(self.scaler, self.params, gateway, present, interval=1.0, now=self.now)
