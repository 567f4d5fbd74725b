"""Every way to run a service on one offer at one concurrency, each with its cost and its late requests. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sizing import billing, bounds, prewarm
from sizing.catalog.offers import Offer
from sizing.choice import Choice, Cost, Plan, Question
from sizing.coldstart import start_law
from sizing.delays import late_requests
from sizing.demand import Level, levels
from sizing.ladder import Front, Rung, front
from sizing.law import Fixed, Floats, Law

LADDERS: tuple[tuple[str, ...], ...] = (
    ("warm", "zero"),
    ("warm", "frozen", "zero"),
    ("warm", "snapshot", "zero"),
    ("warm", "frozen", "snapshot", "zero"),
)


@dataclass(frozen=True, eq=False)
class Policy:
    """One way to be idle: its fronts by level, and what it costs besides."""

    name: str
    rungs: tuple[str, ...]
    fronts: Sequence[Front]
    standing: float = 0.0
    reserve: Offer | None = None


@dataclass(frozen=True, eq=False)
class Setting:
    """An offer at a concurrency, with everything that does not depend on how idle pods are treated."""

    question: Question
    offer: Offer
    concurrency: int
    levels: Sequence[Level]
    law: Law
    late: Sequence[Floats]
    """By level, for each gap: expected late requests when it ends at zero."""

    @classmethod
    def of(cls, question: Question, offer: Offer, concurrency: int) -> Setting:
        """Raises DemandError when the peak takes too many pods."""
        found = levels(question.demand, vcpu=offer.shape.vcpu, concurrency=concurrency)
        law = start_law(offer, question.program)
        return cls(question, offer, concurrency, found, law, [_late(question, law, level) for level in found])

    @property
    def metered_start(self) -> float:
        """Billed seconds of a start."""
        return self.law.mean if self.offer.billing.metered_from == "image-pull" else 0.0

    def policies(self, cheapest_reserve: Offer | None) -> Iterator[Policy]:
        """All that the question allows and the offer has."""
        for rungs in LADDERS:
            between = rungs[1:-1]
            if not all(rung in self.question.idle and self._exists(rung) for rung in between):
                continue
            if between or {"zero", "warm"} & set(self.question.idle):
                yield Policy("ladder", rungs, [self._ladder(number, rungs) for number in range(len(self.levels))])
        first = self.levels[0]
        if "zero" in self.question.idle and len(first.gaps):
            found = prewarm.front(
                first.gaps,
                self.late[0],
                rate=self.offer.rate,
                start=self.metered_start,
                drain=self._leaving,
            )
            if len(found.cost):
                others = [self._ladder(number, ("warm", "zero")) for number in range(1, len(self.levels))]
                yield Policy("prewarm", ("zero", "warm", "zero"), [found, *others])
        if cheapest_reserve is not None and "reserve" in self.question.idle:
            yield self._reserve(cheapest_reserve)

    def plan(self, policy: Policy, picks: Sequence[int]) -> Plan:
        """The policy with candidate `picks[k]` of each level's front."""
        demand = self.question.demand
        active = self.offer.rate * sum(level.busy for level in self.levels)
        idle, starting, late, bound = policy.standing, 0.0, 0.0, 0.0
        exits = []
        for number, (one, pick) in enumerate(zip(policy.fronts, picks, strict=True)):
            level = self.levels[number]
            leaves = one.exits[pick]
            starts = self._starts(policy, number, leaves)
            cost_of_starts = self.offer.rate * self.metered_start * starts
            starting += cost_of_starts
            idle += float(one.cost[pick]) - cost_of_starts
            late += float(one.late[pick])
            never = len(level.gaps) == 0 or (policy.name != "prewarm" and leaves[-1] >= level.gaps.max())
            # A pod that never goes is never started: nothing unseen can be late.
            unseen = 0.0 if never else self._per_start(number, policy)
            bound += bounds.late_upper(float(one.late[pick]), unseen) if unseen else float(one.late[pick])
            exits.append(tuple(float("inf") if never else float(value) for value in leaves))
        requests = len(demand.arrivals)
        return Plan(
            choice=Choice(
                offer=self.offer,
                concurrency=self.concurrency,
                policy=policy.name,
                rungs=policy.rungs,
                exits=tuple(exits),
                reserve=policy.reserve,
            ),
            cost=Cost(active=active, idle=idle, starting=starting, fees=self.offer.per_request * requests),
            # Levels count a late request each for itself; there are no more than all.
            late=min(late, requests),
            late_bound=min(bound, requests),
            requests=requests,
        )

    @property
    def _leaving(self) -> float:
        """Billed after the decision to go: the drain, and on average half of the last step of the meter."""
        return self.question.drain_seconds + self.offer.billing.granularity_seconds / 2

    def _exists(self, rung: str) -> bool:
        share = {"frozen": self.offer.idle.frozen, "snapshot": self.offer.idle.snapshot}
        return rung in share and share[rung] is not None

    def _ladder(self, number: int, rungs: Sequence[str]) -> Front:
        level = self.levels[number]
        built = [self._rung(name, level, self.late[number]) for name in rungs]
        minimum = self.offer.billing.minimum_seconds
        if minimum <= self.offer.billing.granularity_seconds:
            return front(level.gaps, built)

        def surcharge(keeps: Floats) -> Floats:
            return self.offer.rate * billing.minimum_surcharge(
                level, keeps, minimum=minimum, start=self.metered_start, drain=self.question.drain_seconds
            )

        return front(level.gaps, built, surcharge=surcharge)

    def _rung(self, name: str, level: Level, late_at_zero: Floats) -> Rung:
        rate, idle = self.offer.rate, self.offer.idle
        none = np.zeros(len(level.gaps))
        match name:
            case "warm":
                return Rung(name, rate if self.offer.idle_rate is None else self.offer.idle_rate, 0.0, none)
            case "frozen":
                thaw = Fixed(idle.thaw_seconds)
                return Rung(
                    name, rate * (idle.frozen or 0.0), rate * thaw.seconds, _late(self.question, thaw, level)
                )
            case "snapshot":
                restore = Fixed(idle.restore_seconds)
                late = _late(self.question, restore, level)
                return Rung(name, rate * (idle.snapshot or 0.0), rate * restore.seconds, late)
            case _:
                return Rung(name, 0.0, rate * (self.metered_start + self._leaving), late_at_zero)

    def _reserve(self, low: Offer) -> Policy:
        """A low-spec pod always, which takes what comes until a standard pod is ready: nobody waits at level 1."""
        first = self.levels[0]
        free = Rung("zero", 0.0, self._rung("zero", first, self.late[0]).wake, np.zeros(len(first.gaps)))
        one = front(first.gaps, [self._rung("warm", first, self.late[0]), free])
        others = [self._ladder(number, ("warm", "zero")) for number in range(1, len(self.levels))]
        standing = low.rate * self.question.demand.period
        return Policy("reserve", ("warm", "zero"), [one, *others], standing=standing, reserve=low)

    def _starts(self, policy: Policy, number: int, leaves: Floats) -> int:
        gaps = self.levels[number].gaps
        if policy.name == "prewarm" and number == 0:
            return int(len(gaps) + (gaps > leaves[1]).sum())
        return int((gaps > leaves[-1]).sum())

    def _per_start(self, number: int, policy: Policy) -> float:
        """Late requests of an average start: what one more, unseen, would add."""
        late = self.late[number]
        if len(late) == 0 or (policy.name == "reserve" and number == 0):
            return 0.0
        return float(late.mean())


def _late(question: Question, law: Law, level: Level) -> Floats:
    demand = question.demand
    return late_requests(
        law, sla=question.sla_seconds, arrivals=demand.arrivals, starts=level.starts, period=demand.period
    )
