import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing.law import Fixed, Gridded, Law, Lognormal, sum_of

LAWS = st.one_of(
    st.floats(0, 5).map(Fixed),
    st.tuples(st.floats(0.05, 3), st.floats(0.05, 0.8)).map(lambda pair: Lognormal(*pair)),
)


@given(law=LAWS, q=st.floats(0.01, 0.99))
def test_quantile_and_survival_are_inverse(law: Law, q: float) -> None:
    at = law.quantile(q)
    assert law.survival(np.array([at - 1e-3]))[0] >= 1 - q - 1e-6
    assert law.survival(np.array([at + 1e-3]))[0] <= 1 - q + 1e-6


@given(laws=st.lists(LAWS, min_size=1, max_size=3))
def test_a_sum_has_the_sum_of_the_means_and_is_never_too_short(laws: list[Law]) -> None:
    found = sum_of(*laws)
    expected = sum(law.mean for law in laws)
    assert expected - 1e-3 <= found.mean <= expected + 0.011 * len(laws)


def test_quantiles_do_not_add() -> None:
    one = Lognormal(1.0, 0.5)
    both = sum_of(one, one)
    assert both.quantile(0.95) < 2 * one.quantile(0.95) - 0.2
    sample = np.random.default_rng(1).lognormal(0, 0.5, (2, 200_000)).sum(axis=0)
    assert both.quantile(0.95) == pytest.approx(np.quantile(sample, 0.95), rel=0.01)


def test_gridded_survival_is_above() -> None:
    law = Gridded(np.array([0.5, 0.25, 0.25]), 1.0)
    assert law.survival(np.array([-0.1, 0.0, 0.9, 1.0, 2.0, 9.0])).tolist() == [1, 0.5, 0.5, 0.25, 0, 0]
    assert law.mean == 0.75
