"""When a pod may be created: one token bucket per provider account, spent in order of priority.

The bucket holds `burst` tokens and gains `per_second`. A class of lower priority leaves a reserve for the higher
ones, so that a large rollout cannot make a held request wait behind it; the first pod of a revision may use the
last token. Within a class creations are served first come, first served.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

_EPSILON: Final = 1e-9  # a token that is missing by rounding of floats is not missing


class Priority(enum.IntEnum):
    """Smaller goes first."""

    ZERO_TO_ONE = 0
    """A request is held and no pod exists."""
    BURST = 1
    """Load asks for more pods."""
    BASE = 2
    """Minimum and initial scale, replacements."""
    ROLLOUT = 3
    """Pods of a revision that gets traffic later."""


RESERVES: Final[Mapping[Priority, float]] = {
    Priority.ZERO_TO_ONE: 0.0,
    Priority.BURST: 0.1,
    Priority.BASE: 0.2,
    Priority.ROLLOUT: 0.3,
}
"""Share of `burst` that a class leaves in the bucket."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of an account; e.g. ECI 100 at once and 20 a second. `per_second` > 0, `burst` >= 1."""

    burst: float
    per_second: float

    def __post_init__(self) -> None:
        if self.burst < 1:
            raise ValueError(f"rate.burst: {self.burst} is not allowed, must be at least 1")
        if self.per_second <= 0:
            raise ValueError(f"rate.per_second: {self.per_second} is not allowed, must be above 0")


class Bucket(msgspec.Struct, frozen=True):
    tokens: float
    at: float


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """Creations that wait. `key` names the revision; `since` orders those of one class."""

    key: str
    priority: Priority
    count: int
    since: float


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    counts: Mapping[str, int]
    """Creations that may go out now, by key."""
    retry_at: float | None
    """When the next waiting creation gets a token; None = nobody waits."""


def full(rate: Rate, *, now: float) -> Bucket:
    return Bucket(rate.burst, now)


def refill(bucket: Bucket, rate: Rate, now: float) -> Bucket:
    """Tokens gained since the bucket was last looked at; a clock that went back gains none."""
    elapsed = max(0.0, now - bucket.at)
    return Bucket(min(rate.burst, bucket.tokens + elapsed * rate.per_second), max(now, bucket.at))


def grant(bucket: Bucket, rate: Rate, wants: list[Want], now: float) -> tuple[Grants, Bucket]:
    """Spend tokens on the waiting creations, most urgent class first.

    A key may appear in several classes; its grants add up.
    """
    bucket = refill(bucket, rate, now)
    tokens, counts = bucket.tokens, dict[str, int]()
    retry_in: list[float] = []
    for want in sorted(wants, key=lambda want: (want.priority, want.since, want.key)):
        reserve = _reserve(rate, want.priority)
        granted = max(0, min(want.count, int(tokens - reserve + _EPSILON)))
        if granted:
            tokens -= granted
            counts[want.key] = counts.get(want.key, 0) + granted
        if granted < want.count:
            retry_in.append((reserve + 1 - tokens) / rate.per_second)
    retry_at = None if not retry_in else bucket.at + max(0.0, min(retry_in))
    return Grants(counts=counts, retry_at=retry_at), Bucket(max(0.0, tokens), bucket.at)


def refused(bucket: Bucket, now: float) -> Bucket:
    """The provider throttled us although we had a token: others use the account too. Start from empty."""
    return Bucket(0.0, max(now, bucket.at))


def _reserve(rate: Rate, priority: Priority) -> float:
    """Tokens that stay for higher classes; a small bucket cannot keep more than all but one."""
    return min(RESERVES[priority] * rate.burst, rate.burst - 1)
