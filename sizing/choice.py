"""What is asked, what can be chosen, and what a choice costs: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from sizing.catalog.offers import Offer, Wish
from sizing.coldstart import Program
from sizing.demand import Demand

IDLE_POLICIES = ("zero", "snapshot", "frozen", "reserve", "warm")


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a pod must have whatever it costs. `latency_seconds`: service time that `latency_percentile` of the
    requests keep on a running pod; None asks for nothing."""

    memory_gib: float = 0.25
    memory_per_request_gib: float = 0.0
    latency_seconds: float | None = None
    latency_percentile: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Question:
    """`sla_seconds`: longest wait for a pod (service time not counted) that `percentile` of all requests keep."""

    demand: Demand
    sla_seconds: float
    percentile: float
    program: Program = field(default_factory=Program)
    needs: Needs = field(default_factory=Needs)
    wish: Wish = field(default_factory=Wish)
    concurrency: tuple[int, ...] = (1,)
    idle: tuple[str, ...] = IDLE_POLICIES
    drain_seconds: float = 0.0
    """Billed after a pod that had work is told to go."""

    def __post_init__(self) -> None:
        if self.sla_seconds < 0:
            raise ValueError(f"sla_seconds: {self.sla_seconds:g} is negative")
        if not 0 < self.percentile < 1:
            raise ValueError(f"percentile: {self.percentile:g} is not within 0 and 1")
        unknown = set(self.idle) - set(IDLE_POLICIES)
        if unknown or not self.idle:
            raise ValueError(f"idle: {sorted(unknown)} is not of {', '.join(IDLE_POLICIES)}")
        if not self.concurrency or min(self.concurrency) < 1:
            raise ValueError(f"concurrency: {self.concurrency} must be at least 1")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A plan as it would be applied. `exits[k]`: when an idle pod k + 1 leaves each of `rungs` but the last,
    seconds; infinite where it never does. For `prewarm` the pair (ready at, until)."""

    offer: Offer
    concurrency: int
    policy: str
    rungs: tuple[str, ...]
    exits: tuple[tuple[float, ...], ...]
    reserve: Offer | None = None

    @property
    def min_scale(self) -> int:
        """Pods that never go."""
        return sum(all(exit == float("inf") for exit in level) for level in self.exits)


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Money for the observed period."""

    active: float
    idle: float
    """Warm, frozen, reserve: ready and without work, draining and rounding included."""
    starting: float
    fees: float = 0.0

    @property
    def total(self) -> float:
        return self.active + self.idle + self.starting + self.fees


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A choice with what it costs and how many of `requests` it is expected to make late. `late_bound` is the
    careful figure that the budget is held against."""

    choice: Choice
    cost: Cost
    late: float
    late_bound: float
    requests: int

    @property
    def held(self) -> float:
        """Expected share of requests within the SLA."""
        return 1 - self.late / self.requests


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Why something cheaper than the pick is not it."""

    what: str
    reason: str
    cost: float | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`pick` keeps the SLA and is the cheapest; without one, `nearest` is the plan with the fewest late requests
    and `advice` says what would make one possible. `front`: undominated plans, cheapest first."""

    pick: Plan | None
    nearest: Plan
    front: tuple[Plan, ...]
    rejected: tuple[Rejection, ...]
    advice: str = ""
    enough_data: bool = True
