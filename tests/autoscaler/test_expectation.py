"""The expectation that live load tests are compared with."""

from __future__ import annotations

import pytest

from loadtests.kpa_expectation import Service, Step, expected, parse_steps
from tests.autoscaler.support import parameters


def test_step_load_up_and_down_to_zero() -> None:
    points = expected([Step(0, 10), Step(50, 60), Step(200, 60), Step(0, 150)], parameters(total=10))
    at = {point.at: point for point in points}
    assert [at[float(second)].desired for second in (9, 69, 129)] == [0, 8, 29]
    assert max(point.desired for point in points) == 29
    assert points[-1].desired == points[-1].ready == 0
    falling = [point.desired for point in points[130:]]
    assert falling == sorted(falling, reverse=True), "no flapping on the way down"
    first = next(point for point in points if point.desired)
    assert first.at <= 11, "woken in the second of the first request"


def test_think_time_lowers_the_concurrency() -> None:
    assert Service(service_time=0.1, think_time=0.3).concurrency(200) == 50
    assert Service(service_time=0.1, think_time=0.4).rate(100) == 200


def test_steps() -> None:
    assert parse_steps("0:30,50:60") == [Step(0, 30.0), Step(50, 60.0)]
    for text in ("", "5", "5:x", "-1:4", "5:0"):
        with pytest.raises(ValueError, match="must be users:seconds"):
            parse_steps(text)
