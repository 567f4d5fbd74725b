"""The cases that fix the meaning of every formula: c is the ECI rate of 1 vCPU and 2 GiB, CNY/s."""

import numpy as np
import pytest

from sizing import prewarm
from sizing.billing import billed_seconds, minimum_surcharge
from sizing.bounds import clean_trials_needed, upper
from sizing.catalog.lattice import Shape
from sizing.catalog.load import load_catalog
from sizing.catalog.offers import Offer, Wish
from sizing.choice import Question
from sizing.coldstart import Program, start_law
from sizing.delays import late_requests
from sizing.demand import Demand, levels
from sizing.ladder import Front, Rung, front
from sizing.law import Fixed, Lognormal
from sizing.plan import plan

DAY = 86_400.0
CATALOG = load_catalog()
C = 6.126e-5


def eci(vcpu: float, gib: float, category: str = "general") -> Offer:
    return CATALOG.offer(provider="alibaba-eci", category=category, mode="on-demand", shape=Shape(vcpu, gib))


def two_rungs(gaps: list[float], *, start: float, rate: float = 1.0) -> Front:
    values = np.array(gaps)
    none, all_late = np.zeros(len(values)), np.ones(len(values))
    return front(values, [Rung("warm", rate, 0.0, none), Rung("zero", 0.0, rate * start, all_late)])


def test_the_published_price() -> None:
    assert eci(2, 4).rate == pytest.approx(0.00012252, rel=1e-12)


@pytest.mark.parametrize(
    ("offer", "expected"),
    [
        (eci(1, 2), 5.2929),
        (eci(2, 2), 9.5265),
        (eci(0.25, 0.5), 1.3232),
        (eci(0.25, 0.5, "economy"), 0.8480),
    ],
    ids=lambda value: str(value) if isinstance(value, float) else value.name,
)
def test_a_day(offer: Offer, expected: float) -> None:
    assert offer.rate * DAY == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("asked", "billed", "factor"),
    [((1.025, 2.0), (2, 2), 1.8), ((0.275, 0.5), (0.5, 1), 2.0), ((7, 13), (8, 14), 1)],
)
def test_rounding_up(asked: tuple[float, float], billed: tuple[float, float], factor: float) -> None:
    shape = CATALOG.round_up(
        provider="alibaba-eci", category="general", mode="on-demand", vcpu=asked[0], gib=asked[1]
    )
    assert shape == Shape(*billed)
    if factor > 1:
        without = {2: (1, 2), 0.5: (0.25, 0.5)}[billed[0]]
        assert eci(*billed).rate / eci(*without).rate == pytest.approx(factor, abs=0.001)


def test_a_service_on_a_schedule() -> None:
    gaps = np.array([300.0])
    kept = two_rungs([300.0], start=2)
    assert 1 + kept.cost[0] == 3
    assert 1 + kept.cost[-1] == 301
    costs, late = prewarm.windows(gaps, np.ones(1), np.array([299.0]), np.array([301.0]), rate=C, start=2, drain=0)
    assert C * 1 + costs[0] == pytest.approx(2.4504e-4)
    assert late[0] == 0


@pytest.mark.parametrize(
    ("start", "percentile", "keep", "per_gap"),
    [(2, 0.0, 0, 2.0), (2, 0.90, 10, 10.2), (2, 0.95, 1000, 109), (30, 0.0, 10, 13.0)],
)
def test_nine_short_gaps_and_a_long_one(start: float, percentile: float, keep: float, per_gap: float) -> None:
    found = two_rungs([10.0] * 9 + [1000.0], start=start)
    pick = found.best((1 - percentile) * 10)
    assert pick is not None
    assert found.exits[pick, 0] == keep
    assert found.cost[pick] / 10 == pytest.approx(per_gap)


@pytest.mark.parametrize(("percentile", "keep", "per_gap"), [(0.95, 359.49, 114.10), (0.99, 552.62, None)])
def test_exponential_gaps(percentile: float, keep: float, per_gap: float | None) -> None:
    count = 20_000
    gaps = -120 * np.log(1 - (np.arange(count) + 0.5) / count)
    found = two_rungs(list(gaps), start=2)
    pick = found.best((1 - percentile) * count)
    assert pick is not None
    assert found.exits[pick, 0] == pytest.approx(keep, rel=2e-3)
    if per_gap is not None:
        assert found.cost[pick] / count == pytest.approx(per_gap, rel=1e-3)


@pytest.mark.parametrize(("start", "least", "most"), [(110.0, 0, 5), (130.0, 900, 2000)])
def test_without_an_sla_exponential_gaps_are_all_or_nothing(start: float, least: float, most: float) -> None:
    """Never in between; the ends of the range are a sample's."""
    count = 20_000
    gaps = -120 * np.log(1 - (np.arange(count) + 0.5) / count)
    assert least <= two_rungs(list(gaps), start=start).exits[0, 0] <= most


@pytest.mark.parametrize(("median", "late"), [(1.95, 0.0424), (2.85, 0.4187)])
def test_lognormal_starts(median: float, late: float) -> None:
    assert Lognormal(median, 0.25).survival(np.array([3.0]))[0] == pytest.approx(late, abs=5e-5)


def test_share_of_gaps_that_must_be_warm() -> None:
    late = Lognormal(2.85, 0.25).survival(np.array([3.0]))[0]
    assert 1 - 0.05 / late == pytest.approx(0.8806, abs=1e-4)


def test_everybody_who_comes_during_a_start_is_late() -> None:
    arrivals = np.array([0.0, 2, 4, 6.9, 7.1])
    late = late_requests(Fixed(10), sla=3, arrivals=arrivals, starts=np.array([0]), period=1e6)
    assert late.tolist() == [4]


@pytest.mark.parametrize(
    ("vcpu", "gib", "seconds", "late"), [(0.25, 0.5, 10.85, 0.628), (1, 2, 8.95, 0.329), (2, 1, 5.20, 0.0045)]
)
def test_a_larger_shape_pulls_faster(vcpu: float, gib: float, seconds: float, late: float) -> None:
    law = start_law(eci(vcpu, gib), Program())
    assert isinstance(law, Lognormal)
    assert law.median == pytest.approx(seconds)
    assert law.survival(np.array([10.0]))[0] == pytest.approx(late, abs=6e-4)


def question(*, calls: int, sla: float, cached: bool = False, provider: str = "alibaba-eci") -> Question:
    """Calls all day, a little off an even beat, of 1 s with 50 ms of CPU."""
    beat = DAY / calls
    arrivals = (np.arange(calls) + 0.5 + np.random.default_rng(7).uniform(-0.4, 0.4, calls)) * beat
    return Question(
        demand=Demand.of(arrivals, period=DAY, io=0.95, cpu=0.05),
        sla_seconds=sla,
        percentile=0.95,
        program=Program(cached=cached),
        wish=Wish(providers=(provider,), categories=("general", "machine")),
    )


def test_ten_seconds_without_a_cache_take_the_shape_with_the_fast_network() -> None:
    pick = plan(question(calls=48, sla=10), CATALOG).pick
    assert pick is not None
    assert pick.choice.offer.shape == Shape(2, 1)
    assert pick.choice.exits[0] == (0.0,)


def test_a_reserve_where_the_service_needs_a_larger_pod() -> None:
    """1.3276 a day for a reserve of 0.25/0.5 against 5.2929 for a warm pod of 1/2."""
    low, standard = eci(0.25, 0.5), eci(1, 2)
    reserve = low.rate * DAY + 24 * standard.rate * (1 + 2)
    assert reserve == pytest.approx(1.3276, abs=1e-4)
    assert reserve < standard.rate * DAY


def test_frozen_is_a_fifth_of_warm() -> None:
    local = CATALOG.offer(provider="local", category="machine", mode="on-demand", shape=Shape(0.25, 0.5))
    assert local.idle.frozen is not None
    assert local.rate * local.idle.frozen * DAY == pytest.approx(0.2648, abs=1e-4)
    for gap, exit_at in ((1.9, 1.9), (2.1, 0.0)):  # zero beats frozen above 2.0 s
        rungs = [
            Rung("frozen", local.rate * local.idle.frozen, 0.0, np.zeros(1)),
            Rung("zero", 0.0, local.rate * 0.4, np.zeros(1)),
        ]
        assert front(np.array([gap]), rungs).exits[0, 0] == pytest.approx(exit_at)


def test_a_tight_sla_on_this_machine_is_frozen_and_a_loose_one_zero() -> None:
    tight = plan(question(calls=400, sla=0.1, provider="local", cached=True), CATALOG).pick
    loose = plan(question(calls=24, sla=10, provider="local", cached=True), CATALOG).pick
    assert tight is not None
    assert "frozen" in tight.choice.rungs
    assert loose is not None
    assert loose.choice.exits[0][-1] == 0


def test_fargates_minimum_makes_keeping_free() -> None:
    fargate = CATALOG.offer(
        provider="aws-fargate-eks", category="standard", mode="on-demand", shape=Shape(0.25, 0.5)
    )
    assert billed_seconds(36, fargate.billing) == 60
    assert fargate.rate * billed_seconds(36, fargate.billing) == pytest.approx(2.0571e-4, rel=1e-3)
    level = levels(Demand.of(np.array([0.0, 1000.0]), period=2000, io=6), vcpu=1, concurrency=1)[0]
    keeps = np.array([0.0, 10.0, 24.0, 30.0])
    free = minimum_surcharge(level, keeps, minimum=60, start=30, drain=0)
    assert free.tolist() == [48, 28, 0, 0]


def test_how_much_data_a_percentile_needs() -> None:
    assert upper(0, 58) == pytest.approx(0.0503, abs=1e-4)
    assert upper(0, 59) == pytest.approx(0.0495, abs=1e-4)
    assert (clean_trials_needed(0.95), clean_trials_needed(0.99)) == (59, 299)
