"""Windows against the case distinction that they are defined by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sizing import prewarm

START, DRAIN, RATE = 2.0, 3.0, 0.5
GAPS = st.lists(st.integers(1, 60).map(float), min_size=1, max_size=10)


def seconds(gap: float, a: float, b: float) -> float:
    """Billed for one gap."""
    if gap < a:
        return DRAIN + START  # a whole start, whether it had begun or not
    if gap <= b:
        return DRAIN + START + gap - a
    return DRAIN + START + (b - a) + DRAIN + START


@given(gaps=GAPS, a=st.integers(0, 60), length=st.integers(0, 30))
def test_windows_are_the_sum_over_the_gaps(gaps: list[float], a: int, length: int) -> None:
    b = float(a + length)
    per_gap = np.arange(1.0, len(gaps) + 1)
    costs, late = prewarm.windows(
        np.array(gaps), per_gap, np.array([float(a)]), np.array([b]), rate=RATE, start=START, drain=DRAIN
    )
    assert costs[0] == pytest.approx(RATE * sum(seconds(gap, a, b) for gap in gaps))
    assert late[0] == sum(one for gap, one in zip(gaps, per_gap, strict=True) if not a <= gap <= b)
