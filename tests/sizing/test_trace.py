"""Logs as they are, and what is said about those that cannot be used."""

import numpy as np
import pytest

from sizing.demand import DemandError
from sizing.trace import read_trace

CSV = "time,duration\n0,0.5\n2.5,1\n10,0.1\n"
ISO = "TIMESTAMP,Tokens\n2023-11-16 18:17:03.9799600,48\n2023-11-16 18:17:04.0319600,31\n"
ZONES = "timestamp\n2026-03-29T01:30:00+01:00\n2026-03-29T03:00:00+02:00\n"
LOG = (
    '1.2.3.4 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 512 "-" "curl" 0.250\n'
    '1.2.3.4 - - [10/Oct/2026:13:55:40 +0000] "GET / HTTP/1.1" 200 512 "-" "curl" 0.5\n'
)
JSON = (
    '{"start_time": "2026-11-23T10:00:00Z", "duration_ms": 1500}\n'
    '{"start_time": "2026-11-23T10:00:05Z", "duration_ms": 20}\n'
)


@pytest.mark.parametrize(
    ("text", "arrivals", "durations"),
    [
        (CSV, [0, 2.5, 10], [0.5, 1, 0.1]),
        (ISO, [0, 0.052], None),
        (ZONES, [0, 1800], None),
        (LOG, [0, 4], [0.25, 0.5]),
        (JSON, [0, 5], [1.5, 0.02]),
    ],
    ids=["csv", "iso", "summer-time", "access-log", "json"],
)
def test_formats(text: str, arrivals: list[float], durations: list[float] | None) -> None:
    found = read_trace(text.splitlines(keepends=True), name="log")
    assert found.arrivals.tolist() == pytest.approx(arrivals, abs=1e-5)
    assert (None if found.durations is None else found.durations.tolist()) == durations


def test_disorder_is_mended_when_asked() -> None:
    lines = ["time,duration\n", "5,1\n", "3,2\n"]
    with pytest.raises(DemandError, match="log: row 3: time: -2 s before the row above; rows must be in order"):
        read_trace(lines, name="log")
    found = read_trace(lines, name="log", sort=True)
    assert found.arrivals.tolist() == [0, 2]
    assert found.durations is not None
    assert found.durations.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "log: empty"),
        ("time\n", "log: a header and no rows"),
        ("a,b\n1,2\n", "log: row 1: no column of times in 'a, b'; one must be called one of timestamp, time"),
        ("time\nyesterday\n", "log: row 2: time: 'yesterday' is neither a number of seconds nor like 2026-"),
        ("time,duration\n1,x\n", "log: row 2: duration: 'x' is not a number"),
        ("time,duration\n1,-1\n", "log: row 2: duration: -1 is negative"),
        ("time,duration\n1,inf\n", "log: row 2: duration: 'inf' is not finite"),
        ("time,duration\n1\n", "log: row 2: 1 cells, the header has 2"),
        (JSON + "{\n", "log: row 3: not JSON"),
        (JSON + '{"x": 1}\n', "log: row 3: no field of timestamp, time"),
        (JSON + '{"time": 1795428010}\n', "log: row 3: duration: missing here and not in other rows"),
        (LOG + "oops\n", "log: row 3: not a line of an access log: 'oops"),
    ],
)
def test_what_cannot_be_used_names_row_and_field(text: str, message: str) -> None:
    with pytest.raises(DemandError, match=message):
        read_trace(text.splitlines(keepends=True), name="log", sort=text.startswith(JSON))


def test_demand_of_a_trace() -> None:
    demand = read_trace(CSV.splitlines(keepends=True), name="log").demand(seconds=9, cpu_seconds=0.2)
    assert demand.period == pytest.approx(15)
    assert demand.io.tolist() == pytest.approx([0.3, 0.8, 0])
    assert demand.cpu.tolist() == pytest.approx([0.2, 0.2, 0.1])
    longer = read_trace(ISO.splitlines(keepends=True), name="log").demand(seconds=9, cpu_seconds=0.2, period=60)
    assert longer.period == 60
    assert np.allclose(longer.service(1), 9)
