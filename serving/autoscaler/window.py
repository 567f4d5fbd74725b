"""A sliding window of one-second buckets with upstream's two averages.

The ring remembers when it was first and last written. A second without a write counts 0 when it lies before the
last write, and shortens the window when it lies after it; so a late report does not look like a fall of load. A
window that is newer than its length averages over what it has.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

_NEVER: Final = -1
_DIGITS: Final = 6


class Window(msgspec.Struct, frozen=True):
    """Immutable; `add` returns the next one. `buckets[second % length]` holds that second's sum."""

    buckets: tuple[float, ...]
    first: int = _NEVER
    """Unix second of the first write since the last gap as long as the window."""
    last: int = _NEVER

    @property
    def length(self) -> int:
        """Seconds."""
        return len(self.buckets)


def empty(seconds: float) -> Window:
    """A window of `seconds` (rounded up, at least 1) that nothing was written to."""
    return Window((0.0,) * max(1, math.ceil(seconds)))


def zeros(seconds: float, *, until: int) -> Window:
    """A window that was written zeros each second up to and including Unix second `until`."""
    window = empty(seconds)
    return Window(window.buckets, first=until - window.length + 1, last=until)


def add(window: Window, second: int, value: float) -> Window:
    """Add `value` to a second's bucket. What is older than the window is dropped."""
    length = window.length
    if window.last == _NEVER or second - window.last >= length:
        buckets = [0.0] * length
        buckets[second % length] = value
        return Window(tuple(buckets), first=second, last=second)
    if second <= window.last - length:
        return window
    buckets = list(window.buckets)
    for skipped in range(window.last + 1, second + 1):
        buckets[skipped % length] = 0.0
    buckets[second % length] += value
    return Window(tuple(buckets), first=min(window.first, second), last=max(window.last, second))


def is_empty(window: Window, now: float) -> bool:
    """Nothing was written for longer than the window."""
    return window.last == _NEVER or math.floor(now) - window.last > window.length


def linear(window: Window, now: float) -> float:
    """Plain average, rounded to six digits; 0 when the last write is a window ago."""
    if window.last == _NEVER:
        return 0.0
    length, written = window.length, window.last - window.first + 1
    since = math.floor(now) - window.last
    if since >= length:
        return 0.0
    if since <= 0:
        return round(math.fsum(window.buckets) / min(written, length), _DIGITS)
    # The oldest buckets left the window; their places in the ring are those of last+1 … now.
    left = {second % length for second in range(window.last + 1, window.last + since + 1)}
    total = math.fsum(value for index, value in enumerate(window.buckets) if index not in left)
    return round(total / min(written, length - since), _DIGITS)


def smoothing(length: int) -> float:
    """Weight of the newest bucket: what leaves 0.01 % to a full window, at least 0.2."""
    return max(1.0 - math.pow(0.0001, 1.0 / length), 0.2)


def weighted(window: Window, now: float) -> float:
    """Exponentially weighted average, newest bucket first; not rounded; 0 when empty."""
    if is_empty(window, now):
        return 0.0
    factor = smoothing(window.length)
    since = max(0, math.floor(now) - window.last)
    weight = factor * (1.0 - factor) ** since
    total = 0.0
    for back in range(window.length - since):
        total += window.buckets[(window.last - back) % window.length] * weight
        weight *= 1.0 - factor
    return total


def resize(window: Window, seconds: float) -> Window:
    """The same recent history in a window of another length."""
    resized = empty(seconds)
    if window.last == _NEVER or resized.length == window.length:
        return window if resized.length == window.length else resized
    kept = min(window.length, resized.length)
    buckets = list(resized.buckets)
    for second in range(window.last - kept + 1, window.last + 1):
        buckets[second % resized.length] = window.buckets[second % window.length]
    first = max(window.first, window.last - kept + 1)
    return Window(tuple(buckets), first=first, last=window.last)
