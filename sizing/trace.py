"""Reads what a service was asked: CSV with a header, JSON lines, or a web server's access log. Streamed.

Kept are two numbers for each request, so a log of ten million lines takes 160 MB and not more. Times are seconds
since the first of them. Rows must be in order; logs are written when a request ends, so a little disorder is
normal, and `sort` asks for it to be mended.
"""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain

import numpy as np

from sizing.demand import Demand, DemandError
from sizing.law import Floats

MOST_ROWS = 10_000_000
_TIMES = ("timestamp", "time", "arrival", "start_time", "date")
_DURATIONS = ("duration", "duration_seconds", "seconds", "latency", "request_time")
_MILLISECONDS = ("duration_ms", "latency_ms")
_LOG = re.compile(r'^\S+ \S+ \S+ \[(?P<time>[^\]]+)\] "[^"]*" \d{3} \S+(?:.*?\s(?P<duration>\d+\.\d+))?\s*$')
_LOG_TIME = "%d/%b/%Y:%H:%M:%S %z"

Row = tuple[int, float, float | None]
"""Row number, Unix or relative time in seconds, duration in seconds if the log has one."""


class Trace:
    """`arrivals` from the first request on; `durations` where the log has them."""

    def __init__(self, arrivals: Floats, durations: Floats | None) -> None:
        self.arrivals = arrivals
        self.durations = durations

    def demand(self, *, seconds: float, cpu_seconds: float, period: float | None = None) -> Demand:
        """For requests that take `seconds`, or what the log says, of which `cpu_seconds` vCPU-seconds are work.
        The period ends as long after the last request as requests are apart on average, unless it is given."""
        span = float(self.arrivals[-1])
        whole = period or max(span * (1 + 1 / max(1, len(self.arrivals) - 1)), span + 1.0)
        took = np.full(len(self.arrivals), seconds) if self.durations is None else self.durations
        cpu = np.minimum(took, cpu_seconds)
        return Demand(self.arrivals, whole, took - cpu, cpu)


def read_trace(lines: Iterable[str], *, name: str, sort: bool = False) -> Trace:
    """The format is seen from the first line. Raises DemandError with `name`, the row, the field and what is
    allowed."""
    stream = iter(lines)
    first = next(stream, "")
    if not first.strip():
        raise DemandError(f"{name}: empty")
    times, durations = array("d"), array("d")
    for row, time, duration in _reader(first, name)(chain([first], stream)):
        if not sort and len(times) and time < times[-1]:
            raise DemandError(
                f"{name}: row {row}: time: {time - times[-1]:.6g} s before the row above; rows must be in order "
                "(or ask for sorting)"
            )
        if len(times) == MOST_ROWS:
            raise DemandError(f"{name}: more than {MOST_ROWS:,} rows; give a shorter part of the log")
        times.append(time)
        if duration is not None:
            if duration < 0:
                raise DemandError(f"{name}: row {row}: duration: {duration:g} is negative")
            durations.append(duration)
        if len(durations) not in (0, len(times)):
            raise DemandError(f"{name}: row {row}: duration: missing here and not in other rows")
    if not times:
        raise DemandError(f"{name}: a header and no rows")
    return _trace(np.array(times), np.array(durations) if durations else None, sort=sort)


def _trace(times: Floats, durations: Floats | None, *, sort: bool) -> Trace:
    if sort:
        order = np.argsort(times, kind="stable")
        times, durations = times[order], None if durations is None else durations[order]
    return Trace(times - times[0], durations)


def _reader(first: str, name: str) -> Callable[[Iterable[str]], Iterator[Row]]:
    if _LOG.match(first):
        return lambda lines: _log_rows(lines, name)
    if first.lstrip().startswith("{"):
        return lambda lines: _json_rows(lines, name)
    return lambda lines: _csv_rows(lines, name)


def _csv_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
    reader = csv.reader(lines)
    header = [cell.strip().lower() for cell in next(reader)]
    time_at = _column(header, _TIMES)
    if time_at is None:
        raise DemandError(
            f"{name}: row 1: no column of times in {', '.join(header)[:200]!r}; one must be called one of "
            f"{', '.join(_TIMES)}"
        )
    duration_at, scale = _column(header, _DURATIONS), 1.0
    if duration_at is None:
        duration_at, scale = _column(header, _MILLISECONDS), 0.001
    for number, cells in enumerate(reader, start=2):
        if not cells:
            continue
        if len(cells) <= max(time_at, duration_at or 0):
            raise DemandError(f"{name}: row {number}: {len(cells)} cells, the header has {len(header)}")
        duration = None if duration_at is None else scale * _number(cells[duration_at], name, number, "duration")
        yield number, _time(cells[time_at], name, number), duration


def _json_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise DemandError(f"{name}: row {number}: not JSON: {error}") from error
        fields = {str(key).lower(): value for key, value in entry.items()} if isinstance(entry, dict) else {}
        time = next((fields[key] for key in _TIMES if key in fields), None)
        if time is None:
            raise DemandError(f"{name}: row {number}: no field of {', '.join(_TIMES)}")
        duration = next((fields[key] for key in _DURATIONS if key in fields), None)
        scaled = next((fields[key] for key in _MILLISECONDS if key in fields), None)
        seconds = None
        if duration is not None:
            seconds = _number(str(duration), name, number, "duration")
        elif scaled is not None:
            seconds = 0.001 * _number(str(scaled), name, number, "duration")
        yield number, _time(str(time), name, number), seconds


def _log_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _LOG.match(line)
        if found is None:
            raise DemandError(f"{name}: row {number}: not a line of an access log: {line[:80]!r}")
        yield (
            number,
            _log_time(found["time"], name, number),
            None if found["duration"] is None else float(found["duration"]),
        )


def _log_time(text: str, name: str, row: int) -> float:
    try:
        return datetime.strptime(text, _LOG_TIME).timestamp()  # noqa: DTZ007 - the format has %z
    except ValueError:
        raise DemandError(f"{name}: row {row}: time: {text!r} is not like 10/Oct/2026:13:55:36 +0000") from None


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _time(text: str, name: str, row: int) -> float:
    """Seconds as a number, or a date with time; without a zone it is UTC, so no hour is there twice."""
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        # Python takes six digits of a fraction, logs have seven and nine.
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        raise DemandError(
            f"{name}: row {row}: time: {text!r} is neither a number of seconds nor like 2026-11-23T18:17:03.98Z"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str, name: str, row: int, field: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DemandError(f"{name}: row {row}: {field}: {text!r} is not a number") from None
    if not np.isfinite(value):
        raise DemandError(f"{name}: row {row}: {field}: {text!r} is not finite")
    return value
