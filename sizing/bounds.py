"""How much a finite sample proves. Pure.

Clopper and Pearson (1934): an exact bound of a probability, for independent trials. It needs no assumption about
the shape of a distribution, so it is what says "there is not enough data to promise this percentile".
"""

from __future__ import annotations

import math

CONFIDENCE = 0.95


def upper(events: int, trials: int, *, confidence: float = CONFIDENCE) -> float:
    """Largest probability of an event that `events` in `trials` do not refute at `confidence`. 1 without
    trials."""
    if not 0 <= events <= trials:
        raise ValueError(f"events: {events} is not within 0..{trials}")
    if events == trials:
        return 1.0
    if events == 0:
        return -math.expm1(math.log1p(-confidence) / trials)
    low, high = events / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(events, trials, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def clean_trials_needed(percentile: float, *, confidence: float = CONFIDENCE) -> int:
    """Trials without an event after which events are proved to be rarer than 1 - percentile: 59 for .95, 299 for
    .99 at 95 %."""
    return math.ceil(math.log1p(-confidence) / math.log(percentile))


def late_upper(late: float, per_start: float, *, z: float = 1.645) -> float:
    """A careful estimate of late requests whose expectation was computed from a sample as `late`, when each start
    makes `per_start` late on average: one phantom cold start, and `z` standard deviations of a Poisson count of
    starts. A heuristic. Zero when no start can be late, whatever the sample."""
    if per_start <= 0:
        return 0.0
    return late + per_start * (1 + z * math.sqrt(late / per_start + 1)) if late > 0 else per_start


def _at_most(events: int, trials: int, probability: float) -> float:
    """P(Binomial ≤ events), by logarithms."""
    total = 0.0
    for count in range(events + 1):
        total += math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(count + 1)
            - math.lgamma(trials - count + 1)
            + count * math.log(probability)
            + (trials - count) * math.log1p(-probability)
        )
    return total
