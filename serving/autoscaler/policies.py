"""How policies compose: the largest proposal, then one pair of bounds after the other.

The reactive decision and predictions are proposals; a prediction can only add pods. Bounds are applied in order,
so the last one wins where they contradict each other: time windows first, the user's min and max after them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from serving.autoscaler.parameters import ScalingParameters

UNDECIDED: Final = -1
"""No decision: what runs stays."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    low: int = 0
    high: int = 0
    """0 = unlimited."""


def clamp(value: int, bounds: Bounds) -> int:
    """`value` within the bounds; `high` wins over a larger `low`."""
    value = max(value, bounds.low)
    return min(value, bounds.high) if bounds.high else value


def compose(reactive: int, *, predicted: Iterable[int] = (), bounds: Iterable[Bounds] = ()) -> int:
    """The scale that all policies together want; UNDECIDED when there is no proposal at all."""
    value = max((reactive, *predicted))
    if value == UNDECIDED:
        return UNDECIDED
    for pair in bounds:
        value = clamp(value, pair)
    return value


def scale_bounds(params: ScalingParameters, *, initialized: bool, unreachable: bool) -> Bounds:
    """The user's bounds now. An unreachable revision needs no minimum; a new one needs its initial scale."""
    low = 0 if unreachable else params.min_scale
    if params.initial_scale > 1 and not initialized and not unreachable:
        low = max(low, params.initial_scale)
    return Bounds(low=low, high=params.max_scale)
