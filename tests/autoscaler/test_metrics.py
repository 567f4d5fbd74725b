"""Merging reports of several gateways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.reports import RevisionDemand
from serving.autoscaler.metrics import (
    NO_DEMAND,
    MetricState,
    averages,
    configure,
    held,
    initial,
    record,
    retain,
    standing,
)
from tests.autoscaler.support import parameters

T0 = 1_000_000.0
PARAMS = parameters()


def demand(in_progress: int = 0, issued: int = 0, held: int = 0, busy: float = 0.0) -> RevisionDemand:
    return RevisionDemand(in_progress=in_progress, issued=issued, held=held, busy_seconds=busy)


def feed(
    state: MetricState, reports: list[tuple[float, str, RevisionDemand]], *, interval: float = 1.0
) -> MetricState:
    for at, gateway, report in reports:
        state = record(state, gateway, report, interval=interval, now=T0 + at)
    return state


def stable(state: MetricState, at: float) -> float:
    result = averages(state, "linear", T0 + at)
    assert result is not None
    return result.stable


def test_no_data() -> None:
    assert averages(initial(PARAMS), "linear", T0) is None
    state = feed(initial(PARAMS), [(0, "a", demand(4))])
    assert averages(state, "linear", T0 + 59) is not None
    assert averages(state, "linear", T0 + 60) is None, "what is a window old is no data"
    assert averages(state, "weighted-exponential", T0) is not None


def test_gateways_add_up() -> None:
    state = feed(initial(PARAMS), [(0.1, "a", demand(4)), (0.6, "b", demand(6))])
    assert stable(state, 0.9) == 10


def test_faster_reports_are_averaged_within_their_second() -> None:
    quarters = [(0.1, "a", demand(8)), (0.35, "a", demand(4)), (0.6, "a", demand(0)), (0.85, "a", demand(4))]
    assert stable(feed(initial(PARAMS), quarters, interval=0.25), 0.9) == pytest.approx(4, abs=1e-3)


def test_slower_reports_fill_the_seconds_that_they_cover() -> None:
    state = feed(initial(PARAMS), [(0, "a", demand(6)), (4, "a", demand(6))], interval=4.0)
    assert stable(state, 4) == 6
    late = feed(initial(PARAMS), [(0.99, "a", demand(6)), (2.01, "a", demand(6))], interval=1.02)
    assert stable(late, 2.01) == 6


def test_zeros_are_data() -> None:
    state = feed(initial(PARAMS), [(0, "a", demand(6)), (1, "a", NO_DEMAND), (2, "a", NO_DEMAND)])
    assert stable(state, 2) == 2


def test_idle_pods_count_as_zeros_before_the_first_report() -> None:
    state = feed(initial(PARAMS, idle_until=T0), [(0, "a", demand(60))])
    result = averages(state, "linear", T0)
    assert result is not None
    assert (result.stable, result.panic) == (1, 10)


def test_short_requests_are_seen_although_samples_are_zero() -> None:
    """1 request a second of 5 ms: nearly every in-progress sample is 0, but the load is not."""
    reports = [(float(at), "a", demand(0, issued=1, busy=0.005)) for at in range(60)]
    assert stable(feed(initial(PARAMS), reports), 59) == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize("window", [6, 60, 3600])
def test_one_request_of_no_length_keeps_the_revision_awake_for_the_window(window: int) -> None:
    params = parameters(window=window)
    state = feed(initial(params), [(-1, "a", NO_DEMAND), (0, "a", demand(issued=1))])
    for at in range(1, window):
        state = record(state, "a", NO_DEMAND, interval=1.0, now=T0 + at)
    assert stable(state, window - 1) > 0
    assert stable(record(state, "a", NO_DEMAND, interval=1.0, now=T0 + window), window) == 0


def test_service_time_from_busy_seconds() -> None:
    state = feed(initial(PARAMS), [(float(at), "a", demand(2, issued=10, busy=2.0)) for at in range(10)])
    assert state.service_time == pytest.approx(0.2, rel=0.05)


def test_service_time_from_samples() -> None:
    state = feed(initial(PARAMS), [(float(at), "a", demand(4, issued=20)) for at in range(10)])
    assert state.service_time == pytest.approx(0.2, rel=0.1)


def test_held_requests_do_not_teach_the_service_time() -> None:
    state = feed(initial(PARAMS), [(0, "a", demand(500, issued=500, held=500)), (1, "a", demand(0, issued=10))])
    assert state.service_time == 0
    assert held(feed(state, [(2, "a", demand(3, held=2)), (2, "b", demand(9, held=5))])) == 7


def test_a_gateway_that_speaks_later_in_the_second_is_not_missing() -> None:
    reports = [(at + late, gateway, demand(30)) for at in range(20) for gateway, late in (("a", 0.1), ("b", 0.6))]
    state = feed(initial(parameters(window=20)), reports)
    state = feed(state, [(20.1, "a", demand(30))])
    for aggregation in ("linear", "weighted-exponential"):
        read = averages(state, aggregation, T0 + 20.2)
        assert read is not None
        assert read.stable == pytest.approx(60, rel=0.02)
        assert read.panic == pytest.approx(60, rel=0.1)
    corrected = feed(state, [(20.6, "b", demand(0))])
    assert stable(corrected, 20.7) == pytest.approx(60 - 30 / 20)


def test_a_decision_just_before_a_report_sees_no_fall() -> None:
    state = feed(initial(PARAMS), [(at + 0.5, "a", demand(30)) for at in range(60)])
    for aggregation in ("linear", "weighted-exponential"):
        before = averages(state, aggregation, T0 + 59.9)
        assert averages(state, aggregation, T0 + 60.4) == before


def test_rps_counts_requests() -> None:
    params = parameters(metric="rps", total=200)
    state = feed(initial(params), [(0, "a", demand(1, issued=50)), (0, "b", demand(1, issued=30))], interval=0.5)
    assert stable(state, 0) == 160


def test_silent_gateways() -> None:
    state = feed(initial(PARAMS), [(0, "a", demand(40)), (0, "b", demand(7))])
    state = feed(state, [(4, "b", demand(7))])
    assert standing(state, {"a", "b"}, T0 + 2) == 0
    assert standing(state, {"a", "b"}, T0 + 4) == 40
    assert standing(state, {"b"}, T0 + 4) == 0
    assert set(retain(state, {"b"}).gateways) == {"b"}
    assert retain(state, {"a", "b", "c"}) is state


def test_changed_parameters() -> None:
    state = feed(initial(PARAMS), [(0, "a", demand(6)), (1, "a", demand(6))])
    assert configure(state, PARAMS) is state
    assert stable(configure(state, parameters(window=30)), 1) == 6
    assert averages(configure(state, parameters(metric="rps")), "linear", T0 + 1) is None


reports = st.lists(
    st.tuples(
        st.floats(0.05, 3),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 1000),
        st.integers(0, 1000),
        st.floats(0.05, 5),
    ),
    min_size=1,
    max_size=40,
)


@given(reports)
def test_averages_are_never_negative_and_never_above_the_load(
    steps: list[tuple[float, str, int, int, float]],
) -> None:
    params = parameters(metric="rps")
    state, now, highest = initial(params), T0, dict[str, float]()
    for gap, gateway, in_progress, issued, interval in steps:
        now += gap
        state = record(state, gateway, demand(in_progress, issued), interval=interval, now=now)
        highest[gateway] = max(highest.get(gateway, 0.0), issued / interval, 2e-4 if in_progress else 0.0)
    result = averages(state, "linear", now)
    assert result is not None
    for value in (result.stable, result.panic):
        assert -1e-6 <= value <= sum(highest.values()) * (1 + 1e-6) + 1e-6


@given(st.integers(1, 500), st.lists(st.floats(0.2, 1.2), min_size=30, max_size=60))
def test_a_constant_load_reads_as_itself_whatever_the_rhythm(load: int, gaps: list[float]) -> None:
    state, now = initial(PARAMS), T0
    for gap in gaps:
        now += gap
        state = record(state, "a", demand(load), interval=gap, now=now)
    assert stable(state, now - T0) == pytest.approx(load, rel=1e-6)
