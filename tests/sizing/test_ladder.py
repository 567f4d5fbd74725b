"""The optimum of a level against trying everything."""

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.ladder import Rung, front
from sizing.law import Floats

LENGTHS = st.lists(st.integers(1, 50).map(float), min_size=1, max_size=8)
MONEY = st.integers(0, 40).map(float)


@st.composite
def rungs(draw: st.DrawFn, count: int, between: int, *, late_only_at_zero: bool = False) -> list[Rung]:
    rates = sorted(draw(st.lists(MONEY, min_size=between + 1, max_size=between + 1)), reverse=True)
    wakes = sorted(draw(st.lists(MONEY, min_size=between + 1, max_size=between + 1)))
    levels: list[Floats] = [np.zeros(count)]
    for number in range(between + 1):
        more = np.array(draw(st.lists(st.integers(0, 3).map(float), min_size=count, max_size=count)))
        levels.append(levels[-1] + (0 if late_only_at_zero and number < between else more))
    return [
        Rung(str(index), rate, wake, late)
        for index, (rate, wake, late) in enumerate(zip([*rates, 0.0], [0.0, *wakes], levels, strict=True))
    ]


def brute_force(gaps: list[float], steps: list[Rung], exits: tuple[float, ...]) -> tuple[float, float]:
    """Money and late requests of each gap in turn, as one would explain it."""
    cost = late = 0.0
    for index, gap in enumerate(gaps):
        left, rung = 0.0, 0
        for number, exit_at in enumerate(exits):
            cost += steps[number].rate * (min(gap, exit_at) - left)
            left = min(gap, exit_at)
            rung = number + (gap > exit_at)
            if gap <= exit_at:
                break
        cost += steps[rung].wake + (steps[rung].rate * (gap - left) if rung == len(exits) else 0.0)
        late += float(steps[rung].late[index])
    return cost, late


@given(data=st.data(), gaps=LENGTHS, between=st.integers(0, 2), free=st.booleans())
def test_nothing_is_cheaper_for_the_same_late_requests(
    data: st.DataObject, gaps: list[float], between: int, free: bool
) -> None:
    steps = data.draw(rungs(len(gaps), between, late_only_at_zero=free))
    found = front(np.array(gaps), steps)
    every = [
        brute_force(gaps, steps, exits)
        for exits in combinations_with_replacement(sorted({0.0, *gaps}), between + 1)
    ]
    for budget in {late for _, late in every}:
        best = min(cost for cost, late in every if late <= budget)
        pick = found.best(budget)
        assert pick is not None
        assert found.cost[pick] == pytest.approx(best)


@given(data=st.data(), gaps=LENGTHS, between=st.integers(0, 2))
def test_each_of_the_front_costs_what_it_says(data: st.DataObject, gaps: list[float], between: int) -> None:
    steps = data.draw(rungs(len(gaps), between))
    found = front(np.array(gaps), steps)
    for cost, late, exits in zip(found.cost, found.late, found.exits, strict=True):
        assert (cost, late) == pytest.approx(brute_force(gaps, steps, tuple(exits)))


@given(data=st.data(), gaps=LENGTHS)
def test_the_front_is_undominated(data: st.DataObject, gaps: list[float]) -> None:
    found = front(np.array(gaps), data.draw(rungs(len(gaps), 1)))
    assert np.all(np.diff(found.cost) >= 0)
    assert np.all(np.diff(found.late) < 0)


@given(data=st.data(), gaps=LENGTHS)
def test_another_rung_never_costs_more(data: st.DataObject, gaps: list[float]) -> None:
    steps = data.draw(rungs(len(gaps), 1))
    fewer, more = front(np.array(gaps), [steps[0], steps[2]]), front(np.array(gaps), steps)
    for budget in fewer.late:
        one, other = fewer.best(float(budget)), more.best(float(budget))
        assert one is not None
        assert other is not None
        assert more.cost[other] <= fewer.cost[one] + 1e-9


def test_many_gaps_with_late_rungs_between_are_thinned_and_still_what_they_say() -> None:
    generator = np.random.default_rng(3)
    gaps = generator.exponential(60, 900)
    late = np.ones(900)
    steps = [
        Rung("warm", 1.0, 0.0, 0 * late),
        Rung("frozen", 0.2, 0.01, 0.5 * late),
        Rung("zero", 0.0, 3.0, late),
    ]
    found = front(gaps, steps)
    assert len(found.cost) > 50
    for pick in (0, len(found.cost) // 2, len(found.cost) - 1):
        expected = brute_force(list(gaps), steps, tuple(found.exits[pick]))
        assert (found.cost[pick], found.late[pick]) == pytest.approx(expected)
