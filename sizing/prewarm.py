"""Leaving at once and coming back before the next request is expected: for services that are called on a schedule.

After work the pod goes; it is ready again `a` seconds later and stays until `b`. Pure.
"""

from __future__ import annotations

import numpy as np

from sizing.ladder import Front, undominated
from sizing.law import Floats

_QUANTILES = 48
_EARLY = 0.97
_LATE = 1.05


def front(gaps: Floats, per_gap: Floats, *, rate: float, start: float, drain: float) -> Front:
    """Undominated windows; `exits` are pairs of a and b. Both from quantiles of the gaps, a little to the outside,
    since the next gaps will not be exactly these."""
    values = np.unique(np.quantile(gaps, np.linspace(0, 1, min(_QUANTILES, len(gaps)))))
    begins, ends = values[values * _EARLY > start] * _EARLY, values * _LATE
    a, b = (axis.ravel() for axis in np.meshgrid(begins, ends, indexing="ij"))
    a, b = a[a <= b], b[a <= b]
    if len(a) == 0:
        return Front(np.zeros(0), np.zeros(0), np.zeros((0, 2)))
    costs, lates = windows(gaps, per_gap, a, b, rate=rate, start=start, drain=drain)
    return undominated(costs, lates, np.stack([a, b], axis=1))


def windows(
    gaps: Floats, per_gap: Floats, a: Floats, b: Floats, *, rate: float, start: float, drain: float
) -> tuple[Floats, Floats]:
    """Cost and expected late requests of all gaps, for each pair of `a` and `b`. `start` and `drain`: seconds
    billed. Whoever comes while the pod starts waits at most a whole start. By prefix sums."""
    order = np.argsort(gaps)
    ordered = gaps[order]
    total = np.concatenate(([0.0], np.cumsum(ordered)))
    lateness = np.concatenate(([0.0], np.cumsum(per_gap[order])))
    before = np.searchsorted(ordered, a, side="left")
    until = np.searchsorted(ordered, b, side="right")
    hits, missed = until - before, len(gaps) - until
    seconds = drain * len(gaps) + start * before + (start - a) * hits + total[until] - total[before]
    seconds = seconds + missed * (start + b - a + drain + start)
    return rate * seconds, lateness[-1] - lateness[until] + lateness[before]
