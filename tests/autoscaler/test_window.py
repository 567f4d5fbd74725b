"""Window averages against the reference table, and against a direct reading of the rules."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.autoscaler.window import Window, add, empty, is_empty, linear, resize, smoothing, weighted, zeros

T0 = 1_000


def written(seconds: float, samples: list[tuple[int, float]]) -> Window:
    window = empty(seconds)
    for second, value in samples:
        window = add(window, T0 + second, value)
    return window


@pytest.mark.parametrize(("at", "expected"), [(0, 2), (1, 2), (4, 2), (5, 0)])
def test_linear_row_18(at: int, expected: float) -> None:
    assert linear(written(5, [(0, 2)]), T0 + at + 0.9) == expected


@pytest.mark.parametrize(("at", "expected"), [(4, 4), (5, 4.5), (6, 5), (8, 6), (9, 0)])
def test_linear_row_19(at: int, expected: float) -> None:
    window = written(5, [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6)])
    assert linear(window, T0 + at) == expected


def test_linear_row_20() -> None:
    assert linear(written(5, [(0, 10), (3, 10)]), T0 + 3) == 5
    assert linear(written(5, [(0, 1), (0, 10), (1, 1)]), T0 + 1) == 6


def test_weighted_row_21() -> None:
    window = written(5, [(0, 2)])
    assert weighted(window, T0) == pytest.approx(1.683021, abs=1e-6)
    assert weighted(window, T0 + 1) == pytest.approx(0.266741, abs=1e-6)
    assert weighted(window, T0 + 5) == 0
    assert weighted(empty(5), T0) == 0


@pytest.mark.parametrize(
    ("length", "expected"), [(5, 0.841511), (6, 0.784557), (10, 0.601893), (40, 0.205672), (60, 0.2)]
)
def test_smoothing(length: int, expected: float) -> None:
    assert smoothing(length) == pytest.approx(expected, abs=1e-6)


def test_emptiness() -> None:
    assert is_empty(empty(5), T0)
    window = written(5, [(0, 2)])
    assert not is_empty(window, T0 + 5.9)
    assert is_empty(window, T0 + 6)
    assert linear(empty(5), T0) == 0


def test_a_gap_of_a_window_starts_anew() -> None:
    assert linear(written(5, [(0, 9), (1, 9), (6, 4)]), T0 + 6) == 4


def test_a_write_before_the_window_is_dropped() -> None:
    window = written(5, [(0, 9), (10, 4)])
    assert add(window, T0 + 5, 100) == window
    assert linear(add(window, T0 + 9, 6), T0 + 10) == 5


def test_zeros_dampen_the_first_sample() -> None:
    window = add(zeros(60, until=T0 - 1), T0, 60)
    assert linear(window, T0) == 1
    assert linear(zeros(60, until=T0), T0) == 0


@pytest.mark.parametrize(("seconds", "expected"), [(3, 5), (5, 4), (10, 4)])
def test_resize_keeps_recent_history(seconds: int, expected: float) -> None:
    window = written(5, [(0, 2), (1, 3), (2, 4), (3, 5), (4, 6)])
    assert linear(resize(window, seconds), T0 + 4) == expected
    assert resize(empty(5), 7) == empty(7)
    assert resize(window, 5) is window


samples = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0, 1000, allow_nan=False, width=32)), min_size=1, max_size=40
)


@given(samples, st.integers(1, 12), st.integers(0, 15))
def test_linear_is_the_sum_over_the_valid_seconds(steps: list[tuple[int, float]], length: int, later: int) -> None:
    window, second, sums, first = empty(length), T0, dict[int, float](), T0
    for gap, value in steps:
        if gap >= length:
            first = second + gap
        second += gap
        window = add(window, second, value)
        sums[second] = sums.get(second, 0.0) + value
    first = T0 + steps[0][0] if first == T0 else first
    now = second + later
    valid = min(second - first + 1, length - later)
    if later >= length:
        assert linear(window, now) == 0
        return
    total = sum(value for at, value in sums.items() if now - length < at)
    assert linear(window, now) == pytest.approx(total / valid, abs=1e-5, rel=1e-6)


@given(samples, st.integers(1, 12))
def test_averages_lie_within_the_samples(steps: list[tuple[int, float]], length: int) -> None:
    window, second, highest = empty(length), T0, 0.0
    sums: dict[int, float] = {}
    for gap, value in steps:
        second += gap
        window = add(window, second, value)
        sums[second] = sums.get(second, 0.0) + value
        highest = max(highest, sums[second])
    assert 0 <= linear(window, second) <= highest + 1e-6
    assert 0 <= weighted(window, second) <= highest * (1 + 1e-9)
    assert math.isfinite(weighted(window, second))
