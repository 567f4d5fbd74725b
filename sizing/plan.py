"""Picks the cheapest plan that keeps the SLA, and says why nothing cheaper does. Pure.

For every offer that is large enough, every concurrency and every way to be idle, each level of pods has a front
of undominated choices. Levels share one budget of late requests, (1 - percentile) x requests; with one level the
best of the front is exact, with more a Lagrange multiplier chooses on all fronts at once, and what is left of
the budget is spent greedily. What the budget is held against is the careful bound, not the expectation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from sizing.bounds import clean_trials_needed
from sizing.candidates import Policy, Setting
from sizing.catalog.offers import Catalog, CatalogError, Offer, Wish
from sizing.choice import Answer, Plan, Question, Rejection
from sizing.demand import Demand, DemandError, peak
from sizing.ladder import Front

_BISECTIONS = 40
_REJECTIONS = 12
_SHRINKS = 64


def plan(question: Question, catalog: Catalog, *, incumbent: Plan | None = None) -> Answer:
    """The answer for this question. `incumbent`: the plan that runs, so that the pick is never dearer than it.
    Raises CatalogError when nothing can be bought, DemandError when no concurrency allowed is enough."""
    return Planner(question, catalog).answer(incumbent=incumbent)


class Planner:
    """Evaluates once, and answers for any percentile."""

    def __init__(self, question: Question, catalog: Catalog) -> None:
        self._question = question
        self._rejections: list[Rejection] = []
        self._alternatives = list(self._evaluate(catalog))
        if not self._alternatives:
            reasons = "; ".join(dict.fromkeys(f"{one.what}: {one.reason}" for one in self._rejections))
            raise DemandError(f"no offer can run this service: {reasons}")

    def answer(self, *, percentile: float | None = None, incumbent: Plan | None = None) -> Answer:
        """For the question's percentile, or another."""
        wanted = self._question.percentile if percentile is None else percentile
        requests = len(self._question.demand.arrivals)
        budget = (1 - wanted) * requests
        found = [plan for plan in (self._fit(*one, budget) for one in self._alternatives) if plan is not None]
        if incumbent is not None:
            found.append(incumbent)
        fitting = [plan for plan in found if plan.late_bound <= budget + 1e-9]
        pick = min(fitting, key=_by_cost, default=None)
        cheapest = [self._cheapest(*one) for one in self._alternatives]
        every = [*found, *cheapest]
        nearest = min(every, key=lambda one: (one.late_bound, one.cost.total))
        return Answer(
            pick=pick,
            nearest=nearest,
            front=_undominated(every),
            rejected=tuple(self._why(every, pick, budget, wanted)),
            advice="" if pick is not None else self._advice(nearest),
            enough_data=pick is None or pick.late_bound == 0 or requests >= clean_trials_needed(wanted),
        )

    def nines(self, percentiles: Sequence[float]) -> list[tuple[float, Plan | None]]:
        """The cheapest plan for each percentile: what every nine costs."""
        return [(percentile, self.answer(percentile=percentile).pick) for percentile in percentiles]

    def _evaluate(self, catalog: Catalog) -> Iterator[tuple[Setting, Policy]]:
        question = self._question
        for concurrency in question.concurrency:
            need = question.needs.memory_gib + concurrency * question.needs.memory_per_request_gib
            wish = _with_memory(question, need)
            offers = list(_worth(catalog.offers(wish), question, concurrency))
            _comparable(offers)
            reserve = next((offer for offer in offers if self._quick_enough(offer)), None)
            for offer in offers:
                if offer.max_concurrency is not None and concurrency > offer.max_concurrency:
                    continue
                unfit = self._too_slow(offer) or self._overloaded(offer, concurrency)
                if unfit is not None:
                    self._rejections.append(Rejection(what=f"{offer.name} x{concurrency}", reason=unfit))
                    continue
                try:
                    setting = Setting.of(question, offer, concurrency)
                except DemandError as error:
                    self._rejections.append(Rejection(what=f"{offer.name} x{concurrency}", reason=str(error)))
                    continue
                lower = reserve if reserve is not None and reserve.rate < offer.rate else None
                for policy in setting.policies(lower):
                    yield setting, policy

    def _too_slow(self, offer: Offer) -> str | None:
        needs = self._question.needs
        if needs.latency_seconds is None:
            return None
        service = np.quantile(self._question.demand.service(offer.shape.vcpu), needs.latency_percentile)
        if service <= needs.latency_seconds:
            return None
        return (
            f"p{needs.latency_percentile * 100:g} of the service time is {service:.3g} s on {offer.shape.vcpu:g} "
            f"vCPU, {needs.latency_seconds:g} s are allowed"
        )

    def _overloaded(self, offer: Offer, concurrency: int) -> str | None:
        """A pod with all its requests must have the CPU for them, or they take longer than was said."""
        busy = full_pod_vcpu(self._question.demand, vcpu=offer.shape.vcpu, concurrency=concurrency)
        if busy <= offer.shape.vcpu:
            return None
        return f"{concurrency} requests at once keep {busy:.3g} vCPU busy, it has {offer.shape.vcpu:g}"

    def _quick_enough(self, offer: Offer) -> bool:
        """Whether a pod of this size can answer the first request itself within the SLA."""
        service = np.quantile(self._question.demand.service(offer.shape.vcpu), self._question.percentile)
        return bool(service <= self._question.sla_seconds)

    def _fit(self, setting: Setting, policy: Policy, budget: float) -> Plan | None:
        """The cheapest of this policy that keeps the budget with its careful bound. The bound is above the
        expectation by an amount that depends on the choice, so the budget shrinks until the bound fits too."""
        allowed = budget
        for _ in range(_SHRINKS):
            picks = allocate(policy.fronts, allowed)
            if picks is None:
                return None
            found = setting.plan(policy, picks)
            if found.late_bound <= budget + 1e-9:
                return found
            if found.late <= 0:
                return None
            # Below what this choice makes late, there is another choice; with several levels in larger steps.
            allowed = found.late * (0.999999 if len(policy.fronts) == 1 else 0.8)
        return None

    def _cheapest(self, setting: Setting, policy: Policy) -> Plan:
        return setting.plan(policy, [0] * len(policy.fronts))

    def _why(
        self, every: Sequence[Plan], pick: Plan | None, budget: float, percentile: float
    ) -> Iterator[Rejection]:
        limit = float("inf") if pick is None else pick.cost.total
        cheaper = sorted(
            (one for one in every if one.cost.total < limit and one.late_bound > budget), key=_by_cost
        )
        seen = set()
        for one in cheaper:
            what = describe(one)
            if what in seen:
                continue
            seen.add(what)
            yield Rejection(what=what, reason=_late_reason(one, budget, percentile), cost=one.cost.total)
            if len(seen) == _REJECTIONS:
                break
        yield from self._rejections

    def _advice(self, nearest: Plan) -> str:
        held = 1 - nearest.late_bound / nearest.requests
        if held > 0:
            return (
                f"nothing keeps {self._question.sla_seconds:g} s for {self._question.percentile:g} of the "
                f"requests; the nearest, {describe(nearest)}, keeps it for {held:.4f}: ask for that percentile, "
                f"or allow more idle policies than {', '.join(self._question.idle)}"
            )
        return f"nothing keeps {self._question.sla_seconds:g} s; allow warm or reserve pods, or a longer SLA"


def allocate(fronts: Sequence[Front], budget: float) -> list[int] | None:
    """A choice of each front with at most `budget` late requests together; None when there is none. Exact for one
    front; for more, the best on the lower hull and then greedily downwards."""
    least = sum(float(one.late[-1]) for one in fronts)
    if least > budget + 1e-9:
        return None
    if len(fronts) == 1:
        index = fronts[0].best(budget)
        return None if index is None else [index]
    if sum(float(one.late[0]) for one in fronts) <= budget:
        return [0] * len(fronts)
    low, high = 0.0, 1.0
    while _late(fronts, _at(fronts, high)) > budget and high < 1e30:
        high *= 10
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _late(fronts, _at(fronts, middle)) > budget else (low, middle)
    picks = _at(fronts, high)
    if _late(fronts, picks) > budget + 1e-9:
        picks = [len(one.late) - 1 for one in fronts]
    return _spend(fronts, picks, budget)


def _at(fronts: Sequence[Front], price: float) -> list[int]:
    return [int(np.argmin(one.cost + price * one.late)) for one in fronts]


def _late(fronts: Sequence[Front], picks: Sequence[int]) -> float:
    return sum(float(one.late[pick]) for one, pick in zip(fronts, picks, strict=True))


def _spend(fronts: Sequence[Front], picks: list[int], budget: float) -> list[int]:
    """Cheaper choices one after the other as long as the budget lasts, the largest saving first."""
    while True:
        left = budget - _late(fronts, picks)
        moves = []
        for number, (one, pick) in enumerate(zip(fronts, picks, strict=True)):
            to = one.best(float(one.late[pick]) + left)
            if to is not None and to < pick:
                moves.append((float(one.cost[pick] - one.cost[to]), number, to))
        if not moves:
            return picks
        _, number, to = max(moves)
        picks[number] = to


def describe(plan: Plan) -> str:
    """One line, for people."""
    choice = plan.choice
    how = {"prewarm": "prewarmed", "reserve": "zero with a reserve"}.get(choice.policy, "")
    if not how:
        first = choice.exits[0] if choice.exits else ()
        stays = [
            name if exit == float("inf") else f"{name} until {exit:.3g} s"
            for name, exit in zip(choice.rungs, first, strict=False)
            if exit > 0
        ]
        how = ", then ".join(stays) or "zero at once"
    return f"{choice.offer.name} x{choice.concurrency}, {how}"


def _late_reason(plan: Plan, budget: float, percentile: float) -> str:
    text = f"{plan.late:.3g} of {plan.requests} requests late, {budget:.3g} allowed at {percentile:g}"
    if plan.late <= budget < plan.late_bound:
        text += f"; with so little data up to {plan.late_bound:.3g} must be expected"
    return text


def _by_cost(plan: Plan) -> tuple[float, float]:
    return plan.cost.total, plan.late


def _undominated(plans: Sequence[Plan]) -> tuple[Plan, ...]:
    kept: list[Plan] = []
    for one in sorted(plans, key=_by_cost):
        if not kept or one.late < kept[-1].late - 1e-9:
            kept.append(one)
    return tuple(kept)


def full_pod_vcpu(demand: Demand, *, vcpu: float, concurrency: int) -> float:
    """vCPUs that the requests of the fullest pod keep busy on average (the utilisation law)."""
    service = demand.service(vcpu)
    each = float(demand.cpu.sum() / service.sum()) if service.sum() else 0.0
    return min(concurrency, peak(demand, vcpu=vcpu)) * each


def _comparable(offers: Sequence[Offer]) -> None:
    currencies = sorted({offer.currency for offer in offers})
    if len(currencies) > 1:
        raise CatalogError(
            f"exchange: prices in {' and '.join(currencies)} cannot be compared; name one provider, or give rates "
            "in an overlay, e.g. {currency: CNY, exchange: {USD: 7.1}}"
        )


def _worth(offers: Sequence[Offer], question: Question, concurrency: int) -> Iterator[Offer]:
    """Without what costs more than something before it and is better in nothing that this service can use."""
    parallelism = max(question.program.parallelism, question.demand.parallelism)
    useful = max(parallelism, full_pod_vcpu(question.demand, vcpu=parallelism, concurrency=concurrency))
    kept: list[Offer] = []
    for offer in offers:
        if not any(_dominates(other, offer, question, useful) for other in kept):
            kept.append(offer)
            yield offer


def _dominates(one: Offer, other: Offer, question: Question, useful: float) -> bool:
    """`useful`: vCPUs beyond which more of them change nothing."""
    program = question.program
    pulls = not (program.cached and one.start.image_cache)
    return (
        one.provider == other.provider
        and one.rate <= other.rate
        and one.shape.vcpu >= min(other.shape.vcpu, useful)
        and (not pulls or (one.net_gbps or 0.0) >= (other.net_gbps or 0.0))
        and one.interruption is None
        and one.idle_rate == other.idle_rate
        and (one.max_concurrency is None or one.max_concurrency == other.max_concurrency)
    )


def _with_memory(question: Question, need: float) -> Wish:
    return msgspec.structs.replace(question.wish, min_gib=max(question.wish.min_gib, need))
