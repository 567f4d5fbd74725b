from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.autoscaler.policies import UNDECIDED, Bounds, clamp, compose, scale_bounds
from tests.autoscaler.support import parameters

bounds = st.builds(Bounds, low=st.integers(0, 50), high=st.integers(0, 50))
scales = st.integers(0, 100)


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [(5, 0, 0, 5), (5, 7, 0, 7), (5, 0, 3, 3), (5, 7, 3, 3), (0, 1, 0, 1), (500, 0, 0, 500)],
)
def test_clamp(value: int, low: int, high: int, expected: int) -> None:
    assert clamp(value, Bounds(low=low, high=high)) == expected


@pytest.mark.parametrize(
    ("initial", "initialized", "unreachable", "expected"),
    [(1, False, False, 2), (5, False, False, 5), (5, True, False, 2), (5, False, True, 0), (1, True, True, 0)],
)
def test_lower_bound(initial: int, initialized: bool, unreachable: bool, expected: int) -> None:
    params = parameters(low=2, high=9, initial=initial)
    assert scale_bounds(params, initialized=initialized, unreachable=unreachable) == Bounds(low=expected, high=9)


def test_no_proposal_is_no_decision() -> None:
    assert compose(UNDECIDED, bounds=(Bounds(low=3),)) == UNDECIDED
    assert compose(UNDECIDED, predicted=(2,)) == 2


@given(scales, st.lists(scales, max_size=3), st.lists(bounds, max_size=3))
def test_composition(reactive: int, predicted: list[int], pairs: list[Bounds]) -> None:
    result = compose(reactive, predicted=predicted, bounds=pairs)
    assert result >= compose(reactive, bounds=pairs), "a prediction only adds"
    if pairs:
        last = pairs[-1]
        assert result == clamp(result, last), "the last bounds hold"
    else:
        assert result == max([reactive, *predicted])


@given(scales, scales, st.lists(bounds, max_size=3))
def test_composition_is_monotone(one: int, other: int, pairs: list[Bounds]) -> None:
    low, high = sorted((one, other))
    assert compose(low, bounds=pairs) <= compose(high, bounds=pairs)
