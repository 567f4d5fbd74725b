"""How many requests a cold start makes late. Pure.

A start at tᵢ delays every request that comes while it lasts: V = Σₖ P(C > SLA + tᵢ₊ₖ - tᵢ), k = 0, 1, … It is
exact for the first level when the start does not depend on the past. For higher levels it is an upper bound, since
a waiting request is also served by the first pod that gets free.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sizing.law import Floats, Law

_NEGLIGIBLE = 1e-9
_CHUNK = 1_000_000


def late_requests(
    law: Law, *, sla: float, arrivals: Floats, starts: npt.NDArray[np.int64], period: float
) -> Floats:
    """Expected number of requests later than `sla` seconds for a start at each of `arrivals[starts]`. The period
    is a circle, but a start is never counted twice."""
    horizon = law.quantile(1 - _NEGLIGIBLE) - sla
    if len(starts) == 0 or horizon < 0:
        return np.zeros(len(starts))
    horizon = min(horizon, period)
    circle = np.concatenate((arrivals, arrivals + period))
    begin = arrivals[starts]
    counts = np.searchsorted(circle, begin + horizon, side="right") - starts
    counts = np.minimum(counts, len(arrivals))
    late = np.empty(len(starts))
    first = 0
    while first < len(starts):
        total = np.cumsum(counts[first:])
        last = first + max(1, int(np.searchsorted(total, _CHUNK)))
        some = slice(first, last)
        offsets = np.arange(counts[some].sum()) - np.repeat(np.cumsum(counts[some]) - counts[some], counts[some])
        waits = circle[np.repeat(starts[some], counts[some]) + offsets] - np.repeat(begin[some], counts[some])
        probabilities = law.survival(sla + waits)
        edges = np.cumsum(counts[some]) - counts[some]
        late[some] = np.add.reduceat(probabilities, edges)
        first = last
    return late
