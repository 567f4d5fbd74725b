"""Ages as kubectl prints them."""

from __future__ import annotations

from datetime import datetime


def parse_time(text: str) -> datetime:
    """An RFC 3339 time. Raises ValueError."""
    return datetime.fromisoformat(text)


def age(text: object, now: datetime) -> str:
    """How long ago, `<unknown>` for something that is not a time."""
    if not isinstance(text, str) or not text:
        return "<unknown>"
    try:
        then = parse_time(text)
    except ValueError:
        return "<unknown>"
    return human((now - then).total_seconds())


def human(seconds: float) -> str:
    """At most two units, coarser with age: 90s, 5m30s, 3h20m, 2d4h, 30d, 2y3d."""
    if seconds < -1:
        return "<invalid>"
    total = max(0, int(seconds))
    if total < 120:
        return f"{total}s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 8 * 365:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(first: int, unit: str, second: int, small: str) -> str:
    return f"{first}{unit}{second}{small}" if second else f"{first}{unit}"
