"""Levels against counting pods second by second."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.demand import Demand, DemandError, levels

PERIOD = 200.0
CALLS = st.lists(st.tuples(st.integers(0, 199), st.integers(1, 30)), min_size=1, max_size=15)


@given(calls=CALLS, concurrency=st.integers(1, 4))
def test_levels_are_what_counting_finds(calls: list[tuple[int, int]], concurrency: int) -> None:
    calls = sorted(calls)
    demand = Demand(
        np.array([float(at) for at, _ in calls]),
        PERIOD,
        np.array([float(took) for _, took in calls]),
        np.zeros(len(calls)),
    )
    running = np.zeros(int(PERIOD), dtype=int)
    for at, took in calls:
        for second in range(at, at + took):
            running[second % int(PERIOD)] += 1
    found = levels(demand, vcpu=1, concurrency=concurrency)
    assert len(found) == -(-running.max() // concurrency)
    for level in found:
        needed = running > (level.number - 1) * concurrency
        assert level.busy == pytest.approx(needed.sum())
        assert level.gaps.sum() == pytest.approx((~needed).sum())
        assert len(level.gaps) == (needed & ~np.roll(needed, 1)).sum()
        assert level.runs.sum() == pytest.approx(level.busy if len(level.gaps) else 0)


@given(calls=CALLS)
def test_a_start_is_an_arrival_after_its_gap(calls: list[tuple[int, int]]) -> None:
    calls = sorted(calls)
    arrivals = np.array([float(at) for at, _ in calls])
    demand = Demand(arrivals, PERIOD, np.array([float(took) for _, took in calls]), np.zeros(len(calls)))
    first = levels(demand, vcpu=1, concurrency=100)[0]
    for gap, start in zip(first.gaps, first.starts, strict=True):
        idle_until = arrivals[start]
        for at, took in calls:
            # Nobody is in the system between the end of the gap's predecessor and this arrival.
            overlap = (idle_until - gap - at) % PERIOD
            assert overlap >= took or overlap == 0 or (at - (idle_until - gap)) % PERIOD >= gap


def test_smaller_pods_are_busy_longer() -> None:
    demand = Demand.of(np.array([0.0, 100.0]), period=PERIOD, io=1, cpu=2)
    assert levels(demand, vcpu=0.5, concurrency=1)[0].busy == pytest.approx(10)
    assert levels(demand, vcpu=4, concurrency=1)[0].busy == pytest.approx(6)


def test_always_busy() -> None:
    level = levels(Demand.of(np.arange(0, PERIOD, 1.0), period=PERIOD, io=1.5), vcpu=1, concurrency=10)[0]
    assert level.busy == PERIOD
    assert len(level.gaps) == 0


@pytest.mark.parametrize(
    ("arrivals", "io", "message"),
    [
        ([], [], "arrivals: none"),
        ([3.0, 1.0], [1.0, 1.0], "row 2: arrival 1 comes before row 1"),
        ([3.0, 250.0], [1.0, 1.0], "within 0 and the period, 200 s"),
        ([3.0], [1.0, 2.0], "io: 2 values for 1 arrivals"),
        ([3.0], [-1.0], "row 1: io is negative"),
    ],
)
def test_bad_logs(arrivals: list[float], io: list[float], message: str) -> None:
    with pytest.raises(DemandError, match=message):
        Demand(np.array(arrivals), PERIOD, np.array(io), np.zeros(len(arrivals)))
