"""The whole choice: properties that hold for any demand, and what is said when there is no plan."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sizing.candidates import Setting
from sizing.catalog.lattice import Shape
from sizing.catalog.load import load_catalog
from sizing.catalog.offers import Wish
from sizing.choice import IDLE_POLICIES, Needs, Plan, Question
from sizing.coldstart import Program
from sizing.demand import Demand, DemandError
from sizing.ladder import Front
from sizing.plan import Planner, allocate, describe, full_pod_vcpu, plan

CATALOG = load_catalog()
HOUR = 3600.0


def question(
    arrivals: list[float],
    *,
    sla: float = 1.0,
    percentile: float = 0.9,
    idle: tuple[str, ...] = IDLE_POLICIES,
    concurrency: tuple[int, ...] = (1,),
    provider: str = "local",
    needs: Needs | None = None,
    period: float = HOUR,
) -> Question:
    return Question(
        demand=Demand.of(np.array(arrivals), period=period, io=0.5, cpu=0.1),
        sla_seconds=sla,
        percentile=percentile,
        program=Program(cached=True, work_vcpu_seconds=0.6),
        needs=needs or Needs(),
        wish=Wish(providers=(provider,)),
        idle=idle,
        concurrency=concurrency,
    )


def total(found: Plan | None) -> float:
    return float("inf") if found is None else found.cost.total


ARRIVALS = st.lists(st.floats(0, HOUR - 1), min_size=1, max_size=15).map(sorted)


@settings(max_examples=15)
@given(arrivals=ARRIVALS, sla=st.sampled_from([0.01, 0.3, 1.0, 4.0]))
def test_a_stricter_percentile_never_costs_less(arrivals: list[float], sla: float) -> None:
    prices = [total(found) for _, found in Planner(question(arrivals, sla=sla), CATALOG).nines([0.5, 0.9, 0.99])]
    assert prices == sorted(prices)


@settings(max_examples=15)
@given(arrivals=ARRIVALS)
def test_one_more_idle_policy_never_costs_more(arrivals: list[float]) -> None:
    few = plan(question(arrivals, idle=("zero", "warm")), CATALOG)
    many = plan(question(arrivals), CATALOG)
    assert total(many.pick) <= total(few.pick) + 1e-12


@settings(max_examples=15)
@given(arrivals=ARRIVALS, sla=st.sampled_from([0.3, 1.0]))
def test_one_level_is_the_cheapest_of_everything(arrivals: list[float], sla: float) -> None:
    """Every offer, every ladder, every candidate of its front."""
    asked = question(arrivals, sla=sla, concurrency=(50,), idle=("zero", "warm", "frozen"))
    budget = 0.1 * len(arrivals)
    best = float("inf")
    for offer in CATALOG.offers(Wish(providers=("local",), min_gib=0.25)):
        if full_pod_vcpu(asked.demand, vcpu=offer.shape.vcpu, concurrency=50) > offer.shape.vcpu:
            continue
        setting = Setting.of(asked, offer, 50)
        for policy in setting.policies(None):
            for number in range(len(policy.fronts[0].cost)):
                found = setting.plan(policy, [number])
                if found.late_bound <= budget:
                    best = min(best, found.cost.total)
    assert total(plan(asked, CATALOG).pick) == pytest.approx(best)


@settings(max_examples=15)
@given(arrivals=ARRIVALS)
def test_the_pick_is_never_dearer_than_what_runs(arrivals: list[float]) -> None:
    warm = plan(question(arrivals, idle=("warm",), sla=0.0, percentile=0.999), CATALOG).pick
    assert warm is not None
    assert total(plan(question(arrivals), CATALOG, incumbent=warm).pick) <= warm.cost.total


@settings(max_examples=15)
@given(arrivals=ARRIVALS)
def test_the_front_is_undominated(arrivals: list[float]) -> None:
    front = plan(question(arrivals), CATALOG).front
    costs, late = [one.cost.total for one in front], [one.late for one in front]
    assert costs == sorted(costs)
    assert late == sorted(late, reverse=True)


@given(data=st.data(), count=st.integers(1, 4), budget=st.integers(0, 12))
def test_allocation_keeps_the_budget_and_is_close_to_the_best(
    data: st.DataObject, count: int, budget: int
) -> None:
    fronts = []
    for _ in range(count):
        size = data.draw(st.integers(1, 5))
        cost = np.cumsum(data.draw(st.lists(st.integers(1, 9), min_size=size, max_size=size))).astype(float)
        late = (
            np.cumsum(data.draw(st.lists(st.integers(1, 4), min_size=size, max_size=size)))[::-1].astype(float) - 1
        )
        fronts.append(Front(cost, late, np.zeros((size, 1))))
    every = [(0.0, 0.0)]
    for one in fronts:
        every = [(c + float(x), v + float(y)) for c, v in every for x, y in zip(one.cost, one.late, strict=True)]
    fits = [cost for cost, late in every if late <= budget]
    picks = allocate(fronts, budget)
    if not fits:
        assert picks is None
        return
    assert picks is not None
    chosen = list(zip(fronts, picks, strict=True))
    assert sum(float(one.late[pick]) for one, pick in chosen) <= budget
    # At most one segment of one level above the best.
    segment = max((float(np.diff(one.cost).max()) for one in fronts if len(one.cost) > 1), default=0.0)
    span = max(float(one.cost[-1] - one.cost[0]) for one in fronts)
    assert sum(float(one.cost[pick]) for one, pick in chosen) <= min(fits) + max(segment, span) + 1e-9


def test_what_is_cheaper_is_rejected_with_its_reason() -> None:
    arrivals = list(np.arange(100) * 864.0 + 5)
    answer = plan(question(arrivals, sla=0.1, provider="alibaba-eci", period=86_400), CATALOG)
    assert answer.pick is not None
    assert answer.rejected
    cheaper = [one for one in answer.rejected if one.cost is not None]
    assert all(one.cost is not None and one.cost < answer.pick.cost.total for one in cheaper)
    assert any("100 of 100 requests late, 10 allowed at 0.9" in one.reason for one in cheaper)


def test_a_slow_spec_is_rejected_by_its_percentile() -> None:
    asked = question([1.0, 500.0], needs=Needs(latency_seconds=0.65, latency_percentile=0.9))
    answer = plan(asked, CATALOG)
    assert answer.pick is not None
    assert answer.pick.choice.offer.shape.vcpu >= 1
    assert any(
        "p90 of the service time is 0.9 s on 0.25 vCPU, 0.65 s are allowed" in one.reason
        for one in answer.rejected
    )


def test_an_impossible_sla_names_the_nearest() -> None:
    answer = plan(question([100.0 * n for n in range(30)], sla=0.0, percentile=0.99, idle=("zero",)), CATALOG)
    if answer.pick is not None:  # a pod that never goes is a way to be at zero for no gap at all
        assert answer.pick.choice.min_scale == 1
    assert answer.nearest.late_bound <= answer.front[0].late_bound


@pytest.mark.parametrize(("calls", "enough"), [(30, False), (200, True)])
def test_too_little_data_is_said(calls: int, enough: bool) -> None:
    arrivals = np.sort(np.random.default_rng(5).uniform(0, 86_400, calls))
    answer = plan(question(list(arrivals), sla=3, percentile=0.95, provider="alibaba-eci", period=86_400), CATALOG)
    assert answer.pick is not None
    assert answer.pick.choice.min_scale == 0
    assert answer.enough_data is enough


def test_too_many_pods_is_an_error_that_names_the_concurrency() -> None:
    crowd = [1.0 + n / 1000 for n in range(200)]
    with pytest.raises(DemandError, match="concurrency: 1 would take 200 pods at the peak, at most 64"):
        plan(question(crowd), CATALOG)


def test_larger_concurrency_takes_fewer_pods_and_more_memory() -> None:
    crowd = [1.0 + n / 1000 for n in range(40)]
    needs = Needs(memory_gib=0.25, memory_per_request_gib=0.04)
    one = plan(question(crowd, concurrency=(1,), needs=needs), CATALOG).pick
    ten = plan(question(crowd, concurrency=(1, 10), needs=needs), CATALOG).pick
    assert one is not None
    assert ten is not None
    assert ten.choice.concurrency == 10
    assert ten.choice.offer.shape >= Shape(0.5, 1)
    assert ten.cost.total < one.cost.total


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sla": -1.0}, "sla_seconds: -1 is negative"),
        ({"percentile": 1.0}, "percentile: 1 is not within 0 and 1"),
        ({"idle": ("asleep",)}, "idle: \\['asleep'\\] is not of zero, snapshot, frozen, reserve, warm"),
        ({"concurrency": (0,)}, "concurrency: \\(0,\\) must be at least 1"),
    ],
)
def test_a_question_that_makes_no_sense(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        question([1.0], **change)  # type: ignore[arg-type]


def test_a_plan_in_one_line() -> None:
    found = plan(question([10.0 * n for n in range(300)], sla=0.05, percentile=0.9), CATALOG).pick
    assert found is not None
    assert describe(found).startswith("local/machine/on-demand/")
