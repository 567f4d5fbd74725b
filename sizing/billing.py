"""What a pod's life costs by the provider's rules: rounding, minimum, and whether the start is billed. Pure."""

from __future__ import annotations

import math

import numpy as np

from sizing.catalog.schema import Billing
from sizing.demand import Level
from sizing.law import Floats


def billed_seconds(seconds: float, billing: Billing) -> float:
    """Of one life, from when it is metered to its end."""
    steps = math.ceil(seconds / billing.granularity_seconds - 1e-9)
    return max(billing.minimum_seconds, steps * billing.granularity_seconds)


def life_seconds(level: Level, keep: float, *, start: float, drain: float) -> Floats:
    """Lengths of all lives of a level's pod that stays `keep` seconds after work: busy runs with the gaps that
    were short enough between them, with `start` before and `keep` and `drain` after."""
    ends = np.flatnonzero(level.gaps > keep)
    if len(ends) == 0:
        return np.zeros(0)
    # Rolled so that the first gap is one that ends a life: the period is a circle.
    gaps, runs = np.roll(level.gaps, -ends[0]), np.roll(level.runs, -ends[0])
    inner = np.where(gaps > keep, 0.0, gaps) + runs
    return np.add.reduceat(inner, np.flatnonzero(gaps > keep)) + start + keep + drain


def minimum_surcharge(level: Level, keeps: Floats, *, minimum: float, start: float, drain: float) -> Floats:
    """Seconds that the minimum adds to all lives, for each keep-alive. Until the minimum keeping a pod is free."""
    return np.array(
        [
            float(np.maximum(minimum - life_seconds(level, keep, start=start, drain=drain), 0.0).sum())
            for keep in keeps
        ]
    )
