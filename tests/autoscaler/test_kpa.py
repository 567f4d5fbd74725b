"""The decision against the table of values that were run through the reference implementation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.autoscaler.kpa import (
    KpaObservation,
    KpaState,
    ScaleResult,
    decide,
    initial_burst_capacity,
    initial_state,
    num_activators,
    serves_directly,
)
from serving.autoscaler.parameters import ScalingParameters
from tests.autoscaler.support import parameters

T0 = 1_000_000.0
STABLE, PANIC = False, True


def run(
    params: ScalingParameters,
    steps: list[tuple[float, int, float, float]],
    *,
    state: KpaState | None = None,
    reachable: bool = True,
) -> list[ScaleResult]:
    """Decide at each (seconds after T0, ready, stable, panic)."""
    state = state or KpaState()
    results = []
    for at, ready, stable, panic in steps:
        observation = KpaObservation(ready=ready, stable=stable, panic=panic, reachable=reachable)
        result, state = decide(params, state, observation, T0 + at)
        results.append(result)
    return results


def rows(results: list[ScaleResult]) -> list[tuple[int, int, bool]]:
    return [(result.desired, result.excess_burst_capacity, result.panicking) for result in results]


TEN = parameters(total=10)


@pytest.mark.parametrize(
    ("params", "steps", "expected"),
    [
        pytest.param(parameters(), [(0, 0, 1, 1)], [(1, -212, STABLE)], id="1-from-zero"),
        pytest.param(parameters(), [(0, 1, 1, 1)], [(1, -112, STABLE)], id="1-one-pod"),
        pytest.param(parameters(), [(0, 1, 50, 100)], [(2, -211, PANIC)], id="2"),
        pytest.param(
            parameters(),
            [(0, 1, 50, 150), (2, 3, 80, 150), (30, 3, 20, 20), (60, 3, 20, 20), (61, 3, 20, 20)],
            [(3, -261, PANIC), (3, -61, PANIC), (3, 69, PANIC), (3, 69, PANIC), (1, 69, STABLE)],
            id="3",
        ),
        pytest.param(TEN, [(0, 10, 20, 20)], [(5, -131, STABLE)], id="4"),
        pytest.param(TEN, [(0, 10, 0, 0)], [(5, -111, STABLE)], id="5-ten"),
        pytest.param(TEN, [(0, 5, 0, 0)], [(2, -161, STABLE)], id="5-five"),
        pytest.param(TEN, [(0, 2, 0, 0)], [(1, -191, STABLE)], id="5-two"),
        pytest.param(TEN, [(0, 1, 0, 0)], [(0, -201, STABLE)], id="5-one"),
        pytest.param(parameters(total=10, burst=0), [(0, 1, 20, 5)], [(3, 0, STABLE)], id="6-no-burst"),
        pytest.param(parameters(total=10, burst=-1), [(0, 3, 20, 20)], [(3, -1, STABLE)], id="6-unlimited"),
        pytest.param(parameters(total=10, burst=200), [(0, 30, 200, 100)], [(29, 0, STABLE)], id="7-serve"),
        pytest.param(parameters(total=10, burst=200), [(0, 30, 200, 101)], [(29, -1, STABLE)], id="7-proxy"),
        pytest.param(
            parameters(total=1, target=0.7), [(0, 1, 10, 10)], [(15, -220, PANIC)], id="10"
        ),
        pytest.param(parameters(total=200, metric="rps"), [(0, 1, 300, 250)], [(3, -261, PANIC)], id="11"),
    ],
)  # fmt: skip
def test_table(
    params: ScalingParameters,
    steps: list[tuple[float, int, float, float]],
    expected: list[tuple[int, int, bool]],
) -> None:
    assert rows(run(params, steps)) == expected


@pytest.mark.parametrize(
    ("params", "steps", "reachable", "expected"),
    [
        pytest.param(TEN, [(0, 10, 0, 0)], False, [0], id="5-unreachable"),
        pytest.param(parameters(target=1, up=1.1), [(0, 2, 3, 3.1)], True, [3], id="12"),
        pytest.param(parameters(target=10, down=1.1), [(0, 100, 1, 1)], True, [90], id="13"),
        pytest.param(parameters(target=10, down=1.1), [(0, 100, 1, 1)], False, [1], id="13-unreachable"),
        pytest.param(parameters(target=10, up=10), [(0, 1, 1000, 1001)], True, [10], id="14-one"),
        pytest.param(parameters(target=10, up=10), [(0, 10, 1000, 1001)], True, [100], id="14-ten"),
        pytest.param(parameters(target=10, up=10), [(0, 0, 1000, 1001)], True, [10], id="14-none"),
        pytest.param(
            parameters(target=1, up=10), [(0, 10, 11, 25), (30, 40, 30, 41), (62, 55, 50, 56)], True, [25, 41, 50],
            id="15",
        ),
        pytest.param(
            parameters(target=10, delay=300), [(2, 1, 40, 40), (300, 4, 0, 0), (302, 4, 0, 0)], True, [4, 4, 2],
            id="16-rate-limited",
        ),
        pytest.param(
            parameters(target=10, delay=300, down=10), [(2, 4, 40, 40), (300, 4, 0, 0), (302, 4, 0, 0)], True,
            [4, 4, 0], id="16",
        ),
        pytest.param(
            parameters(target=10, delay=300, down=10), [(2, 4, 40, 40), (4, 4, 0, 0)], False, [4, 0],
            id="16-unreachable",
        ),
    ],
)  # fmt: skip
def test_desired(
    params: ScalingParameters, steps: list[tuple[float, int, float, float]], reachable: bool, expected: list[int]
) -> None:
    assert [result.desired for result in run(params, steps, reachable=reachable)] == expected


def test_panic_of_row_15_ends_after_the_stable_window() -> None:
    steps: list[tuple[float, int, float, float]] = [(0, 10, 11, 25), (30, 40, 30, 41), (62, 55, 50, 56)]
    results = run(parameters(target=1, up=10), steps)
    assert [result.panicking for result in results] == [True, True, False]


@pytest.mark.parametrize(
    ("ready", "stable", "expected"), [(0, 0.5, 3), (3, 0.0, 1), (1, 0.0, 0)], ids=["from-zero", "idle-3", "idle-1"]
)
def test_activation_scale_row_8(ready: int, stable: float, expected: int) -> None:
    params = parameters(total=10, burst=-1, activation=3)
    assert run(params, [(0, ready, stable, stable)])[0].desired == expected


def test_restart_keeps_the_pods_for_a_stable_window_row_9() -> None:
    params = parameters(total=10)
    state = initial_state(4, now=T0)
    results = run(params, [(1, 4, 1, 1), (61, 4, 1, 1)], state=state)
    assert [(result.desired, result.panicking) for result in results] == [(4, True), (2, False)]
    assert initial_state(1, now=T0) == initial_state(0, now=T0) == KpaState()


@pytest.mark.parametrize(
    ("ready", "total", "burst", "expected"),
    [(0, 100, 211, 3), (10, 100, 211, 13), (3, 10, -1, 2), (100, 10, 200, 12), (5, 100, 0, 2)],
)
def test_number_of_activators_row_17(ready: int, total: float, burst: float, expected: int) -> None:
    assert (
        num_activators(ready=ready, total=total, target_burst_capacity=burst, activator_capacity=100) == expected
    )


def test_mode_of_the_data_path() -> None:
    assert serves_directly(want=3, excess_burst_capacity=0)
    assert not serves_directly(want=3, excess_burst_capacity=-1)
    assert not serves_directly(want=0, excess_burst_capacity=5)


@pytest.mark.parametrize(("burst", "expected"), [(-1, -1), (0, 0), (211, -11)])
def test_burst_capacity_before_the_first_decision(burst: float, expected: int) -> None:
    assert initial_burst_capacity(parameters(total=100, burst=burst, initial=2)) == expected


loads = st.floats(min_value=0, max_value=1e5, allow_nan=False)
pods = st.integers(min_value=0, max_value=500)


@given(pods, loads, loads, loads, loads, st.booleans())
def test_more_load_never_wants_fewer_pods(
    ready: int, stable: float, panic: float, more_stable: float, more_panic: float, panicking: bool
) -> None:
    params = parameters(total=10)
    state = initial_state(ready, now=T0) if panicking else KpaState()
    less = run(params, [(1, ready, stable, panic)], state=state)[0]
    more = run(params, [(1, ready, stable + more_stable, panic + more_panic)], state=state)[0]
    assert more.desired >= less.desired
    assert more.excess_burst_capacity <= less.excess_burst_capacity


@given(pods, loads, loads, st.floats(min_value=1.01, max_value=50), st.floats(min_value=1.01, max_value=50))
def test_one_decision_stays_within_the_rates(
    ready: int, stable: float, panic: float, up: float, down: float
) -> None:
    result = run(parameters(target=7, up=up, down=down), [(0, ready, stable, panic)])[0]
    floor = int(max(1, ready) // down)
    assert floor <= result.desired <= max(1, ready) * up + 1


@given(pods, st.lists(st.tuples(loads, loads), min_size=1, max_size=30))
def test_panic_never_scales_down(ready: int, samples: list[tuple[float, float]]) -> None:
    state = KpaState(panic_since=T0, max_panic_pods=ready)
    steps = [(2.0 * index, ready, stable, panic) for index, (stable, panic) in enumerate(samples)]
    results = run(parameters(total=10), steps, state=state)
    desired = [ready, *[result.desired for result in results if result.panicking]]
    assert desired == sorted(desired)


@given(st.lists(st.tuples(st.integers(1, 5), loads), min_size=1, max_size=60), st.integers(1, 40))
def test_delay_is_the_maximum_of_its_slots(samples: list[tuple[int, float]], delay: int) -> None:
    """Against a direct reading of the rule; also bounds the state."""
    delayed = parameters(target=10, delay=float(delay), down=1000)
    plain = parameters(target=10, down=1000)
    state, undelayed = KpaState(), KpaState()
    history: list[tuple[int, int]] = []
    now, slots = T0, -(-delay // 2)
    for gap, load in samples:
        now += gap
        observation = KpaObservation(ready=1, stable=load, panic=0)
        result, state = decide(delayed, state, observation, now)
        raw, undelayed = decide(plain, undelayed, observation, now)
        history.append((int(now // 2), raw.desired))
        current = int(now // 2)
        assert result.desired == max(value for slot, value in history if slot > current - slots)
        assert len(state.delayed) <= slots
