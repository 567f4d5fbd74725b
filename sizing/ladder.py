"""How long to stay on each rung after work: warm, then frozen, then a snapshot, then zero. Pure and exact.

A pod that gets idle is warm until b₁, frozen until b₂ ≥ b₁ and so on; the last rung is zero. With rates r₀ > r₁
> … and costs wⱼ and late requests vⱼ of waking from rung j (w₀ = v₀ = 0) the cost of gaps X is separable:

    cost = Σⱼ (rⱼ - rⱼ₊₁) Σ min(X, bⱼ₊₁) + (wⱼ₊₁ - wⱼ) #{X > bⱼ₊₁}        late = Σⱼ Σ_{X > bⱼ₊₁} (vⱼ₊₁ - vⱼ)

Both change their form only at gap values, and between two of them cost only grows with b. So the optimum for the
observed gaps is a gap value or 0, and prefix sums give every candidate in O(n log n).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from sizing.law import Floats

_MOST_COMBINATIONS = 60_000


@dataclass(frozen=True, eq=False)
class Rung:
    """One state of an idle pod. `late[i]`: expected late requests when gap i ends on this rung; `wake`: money for
    each waking from it, or one value for each gap."""

    name: str
    rate: float
    wake: float
    late: Floats


@dataclass(frozen=True, eq=False)
class Front:
    """Undominated choices of one level, cheapest first: their cost, expected late requests, and when each rung but
    the last is left (seconds of idleness)."""

    cost: Floats
    late: Floats
    exits: Floats

    def best(self, budget: float) -> int | None:
        """Index of the cheapest with at most `budget` late requests; None when there is none."""
        fits = np.flatnonzero(self.late <= budget + 1e-12)
        return int(fits[0]) if len(fits) else None


def front(gaps: Floats, rungs: Sequence[Rung], *, surcharge: Callable[[Floats], Floats] | None = None) -> Front:
    """All undominated exits for these gaps. `rungs` from warm to zero, each `late` in the order of `gaps`.
    `surcharge`: further money for each time of the last exit, e.g. what a minimum billed time adds.

    Exact as long as there are at most 60 000 combinations of exits, or only the last rung is ever late; otherwise
    exits are taken from a subset of the gaps (rounded up, so a choice is never better than it says).
    """
    order = np.argsort(gaps, kind="stable")
    ordered = gaps[order]
    steps = [_step(ordered, order, upper, lower) for upper, lower in pairwise(rungs)]
    candidates = np.concatenate(([0.0], ordered))
    if surcharge is not None:
        steps[-1] = (steps[-1][0] + surcharge(candidates), steps[-1][1])
    if len(steps) > 1 and all(not np.any(late) for _, late in steps[:-1]):
        return _free_until_last(candidates, steps)
    return _all_combinations(candidates, steps)


def _step(ordered: Floats, order: npt.NDArray[np.int64], upper: Rung, lower: Rung) -> tuple[Floats, Floats]:
    """Cost and late requests of leaving `upper` for `lower` at 0, at the first gap, …, at the last."""
    count = len(ordered)
    idle = np.concatenate(([0.0], np.cumsum(ordered) + ordered * np.arange(count - 1, -1, -1)))
    later = count - np.arange(count + 1)
    cost = (upper.rate - lower.rate) * idle + (lower.wake - upper.wake) * later
    late = (lower.late - upper.late)[order]
    return cost, np.concatenate((np.cumsum(late[::-1])[::-1], [0.0]))


def _free_until_last(candidates: Floats, steps: Sequence[tuple[Floats, Floats]]) -> Front:
    """Only the last exit makes requests late: the earlier ones are the cheapest that are not after it."""
    count = len(candidates)
    total = np.zeros(count)
    chosen: list[npt.NDArray[np.int64]] = []
    for cost, _ in steps[:-1]:
        at = total + cost
        best = np.minimum.accumulate(at)
        where = np.maximum.accumulate(np.where(at == best, np.arange(count), 0))
        chosen = [earlier[where] for earlier in chosen] + [where]
        total = best
    last_cost, last_late = steps[-1]
    exits = np.stack([candidates[index] for index in chosen] + [candidates], axis=1)
    return undominated(total + last_cost, last_late, exits)


def _all_combinations(candidates: Floats, steps: Sequence[tuple[Floats, Floats]]) -> Front:
    depth = len(steps)
    picked = np.arange(len(candidates))
    while depth > 1 and len(picked) ** depth > _MOST_COMBINATIONS * _permutations(depth):
        picked = np.union1d(picked[::2], picked[-1:])
    grid = np.meshgrid(*([picked] * depth), indexing="ij")
    ascending = np.ones(grid[0].shape, dtype=bool)
    for earlier, later in pairwise(grid):
        ascending &= earlier <= later
    index = [axis[ascending] for axis in grid]
    cost = np.sum([step[0][i] for step, i in zip(steps, index, strict=True)], axis=0)
    late = np.sum([step[1][i] for step, i in zip(steps, index, strict=True)], axis=0)
    return undominated(cost, late, np.stack([candidates[i] for i in index], axis=1))


def _permutations(depth: int) -> int:
    return 1 if depth < 2 else depth * _permutations(depth - 1)


def undominated(cost: Floats, late: Floats, exits: Floats) -> Front:
    """Cheapest first, each with fewer late requests than all before it."""
    order = np.lexsort((late, cost))
    cost, late, exits = cost[order], late[order], exits[order]
    least = np.minimum.accumulate(np.concatenate(([np.inf], late[:-1])))
    kept = late < least - 1e-12
    kept[0] = True
    return Front(cost[kept], late[kept], exits[kept])
