"""RFC 3339 times as Kubernetes writes them, from and to Unix seconds.

`metav1.Time` has whole seconds, `metav1.MicroTime` six digits; both are UTC and end in `Z`. A clock reading is
always passed in.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)


def format_seconds(now: float) -> str:
    """`2026-11-23T19:07:41Z`: rounded down to a whole second, as metav1.Time is written."""
    return datetime.fromtimestamp(math.floor(now), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micros(now: float) -> str:
    """`2026-11-23T19:07:41.123456Z`: as metav1.MicroTime is written (Leases)."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def format_nanos(nanos: int) -> str:
    """RFC3339Nano of integer Unix nanoseconds, trailing zeros of the fraction dropped."""
    seconds, rest = divmod(nanos, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{rest:09d}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"


def parse(text: str) -> float:
    """Unix seconds of an RFC 3339 time, any offset, up to nanoseconds (float precision).

    Raises ValueError naming the text.
    """
    return parse_nanos(text) / 1e9


@lru_cache(maxsize=4096)
def parse_nanos(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time. Raises ValueError naming the text."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, _zulu, sign, off_hours, off_minutes = match.groups()[6:]
    zone: timezone = UTC
    try:
        if sign:
            offset = timedelta(hours=int(off_hours), minutes=int(off_minutes))
            zone = timezone(-offset if sign == "-" else offset)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError as error:
        raise ValueError(f"not an RFC 3339 time: {text!r}: {error}") from None
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    seconds = since_epoch.days * 86_400 + since_epoch.seconds
    return seconds * 1_000_000_000 + (int(fraction.ljust(9, "0")) if fraction else 0)
