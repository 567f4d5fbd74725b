"""Go durations: `1h0m0s`, `300ms`, `1.5h`. The value is an integer of nanoseconds, as in Go, so nothing rounds."""

from __future__ import annotations

import re
from typing import Final

NANOSECOND: Final = 1
MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE

_UNITS: Final = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "µs": MICROSECOND,  # U+00B5 micro sign
    "μs": MICROSECOND,  # U+03BC Greek small mu
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_TERM = re.compile(r"(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<unit>[^0-9.]*)")
_MAX: Final = (1 << 63) - 1
_MAX_DIGITS: Final = 64  # int() of a hostile megabyte of digits would take seconds


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration. Raises ValueError with Go's wording (`time: invalid duration "x"`)."""
    body = text[1:] if text[:1] in ("+", "-") else text
    negative = text[:1] == "-"
    if body == "0":
        return 0
    if not body:
        raise _invalid(text)
    total, at = 0, 0
    while at < len(body):
        match = _TERM.match(body, at)
        if match is None or not (match["whole"] or match["fraction"]):
            raise _invalid(text)
        if int((match["whole"] or "0")[:_MAX_DIGITS]) > _MAX or len(match["whole"]) > _MAX_DIGITS:
            raise _invalid(text)
        if not match["unit"]:
            raise ValueError(f"time: missing unit in duration {_quote(text)}")
        if match["unit"] not in _UNITS:
            raise ValueError(f"time: unknown unit {_quote(match['unit'])} in duration {_quote(text)}")
        scale = _UNITS[match["unit"]]
        total += int(match["whole"] or "0") * scale
        digits = (match["fraction"] or "")[:_MAX_DIGITS]
        total += int(digits or "0") * scale // 10 ** len(digits)
        if total > _MAX + negative:
            raise _invalid(text)
        at = match.end()
    return -total if negative else total


def parse_seconds(text: str) -> float:
    """Seconds of a Go duration. Raises ValueError."""
    return parse_duration(text) / SECOND


def format_duration(nanoseconds: int) -> str:
    """As Go prints a duration: `0s`, `1.5s`, `1h0m0s`, `300ms`. Inverse of `parse_duration`."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    rest = abs(nanoseconds)
    if rest < SECOND:
        unit = "ms" if rest >= MILLISECOND else "µs" if rest >= MICROSECOND else "ns"
        return f"{sign}{_decimal(rest, _UNITS[unit])}{unit}"
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    seconds = f"{_decimal(rest, SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def is_whole_seconds(nanoseconds: int) -> bool:
    return nanoseconds % SECOND == 0


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if rest == 0:
        return str(whole)
    width = len(str(unit)) - 1
    return f"{whole}.{rest:0{width}d}".rstrip("0")


def _quote(text: str) -> str:
    out = []
    for char in text:
        if char in ('"', "\\"):
            out.append("\\" + char)
        elif " " <= char <= "\x7f":
            out.append(char)
        else:
            out += [f"\\x{byte:02x}" for byte in char.encode()]
    return '"' + "".join(out) + '"'


def _invalid(text: str) -> ValueError:
    return ValueError(f"time: invalid duration {_quote(text)}")
