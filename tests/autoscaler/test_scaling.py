"""The way to zero and back, one rule at a time."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.meta import Condition
from serving.api.v1 import Revision
from serving.autoscaler.parameters import ScalingParameters
from serving.autoscaler.policies import UNDECIDED
from serving.autoscaler.scaling import (
    Activity,
    Reachability,
    ScaleObservation,
    ScaleOutcome,
    ScaleState,
    Status,
    initial_state,
    reachability,
    revision_reachability,
    scale,
)
from tests.autoscaler.support import parameters

T0 = 1_000_000.0


def outcome(
    desired: int,
    *,
    status: Status = "True",
    since: float = 0.0,
    reason: str = "",
    replicas: int = 1,
    initialized: bool = True,
    ready: int = 1,
    reach: Reachability = "Reachable",
    acked: bool = False,
    params: ScalingParameters | None = None,
) -> ScaleOutcome:
    """The outcome `since` seconds after the Active condition changed."""
    state = ScaleState(
        activity=Activity(status=status, reason=reason, since=T0 - since),
        initialized=initialized,
        replicas=replicas,
    )
    observation = ScaleObservation(ready=ready, reachability=reach, acked=acked)
    return scale(params or parameters(), state, observation, desired, T0)[0]


def short(result: ScaleOutcome) -> tuple[int, int, str, str]:
    return result.want, result.replicas, result.activity.status, result.activity.reason


def test_active_for_less_than_the_window_keeps_one_pod() -> None:
    result = outcome(0, since=20)
    assert short(result) == (1, 1, "True", "")
    assert result.requeue_after == pytest.approx(40, abs=0.01)


def test_active_and_idle_for_the_window_drains() -> None:
    result = outcome(0, since=60)
    assert short(result) == (0, 0, "False", "NoTraffic")
    assert result.activity.message == "The target is not receiving traffic."
    assert result.activity.since == T0
    assert result.requeue_after == 30, "the grace period, unless all gateways acknowledge before"
    assert outcome(0, since=60, acked=True).requeue_after is None


def test_grace_is_an_upper_bound() -> None:
    assert outcome(0, status="False", since=10, replicas=0, ready=0).requeue_after == pytest.approx(20, abs=0.01)
    assert outcome(0, status="False", since=30, replicas=0, ready=0).requeue_after is None
    assert outcome(0, status="False", since=1, replicas=0, ready=0, acked=True).requeue_after is None


def test_pods_are_retained_before_they_drain() -> None:
    params = parameters(retention=90)
    assert short(outcome(0, since=60, replicas=3, ready=3, params=params)) == (0, 1, "False", "NoTraffic")
    waiting = outcome(0, status="False", since=50, params=params)
    assert (waiting.want, waiting.replicas) == (0, 1)
    assert waiting.requeue_after == pytest.approx(40, abs=0.01)
    assert outcome(0, status="False", since=90, params=params).replicas == 0
    assert outcome(0, status="False", since=50, params=params, reach="Unreachable").replicas == 0
    assert outcome(0, status="False", since=50, replicas=0, ready=0, params=params).replicas == 0, "none is made"


def test_scale_to_zero_can_be_off() -> None:
    assert short(outcome(0, since=500, params=parameters(to_zero=False))) == (1, 1, "True", "")


def test_activating_waits_for_the_progress_deadline() -> None:
    params = parameters(deadline=100)
    waiting = outcome(0, status="Unknown", reason="Queued", since=50, ready=0, replicas=2, params=params)
    assert (waiting.want, waiting.replicas) == (UNDECIDED, 2)
    assert waiting.requeue_after == pytest.approx(80, abs=0.01)
    given_up = outcome(0, status="Unknown", reason="Queued", since=131, ready=0, replicas=2, params=params)
    assert short(given_up) == (0, 0, "False", "TimedOut")
    assert given_up.activity.message == "The target could not be activated."


def test_a_timed_out_revision_keeps_its_reason_until_it_is_wanted() -> None:
    again = outcome(0, status="False", reason="TimedOut", since=5, ready=0, replicas=0)
    assert short(again) == (0, 0, "False", "TimedOut")
    assert short(outcome(1, status="False", reason="TimedOut", ready=0, replicas=0)) == (1, 1, "Unknown", "Queued")


def test_waking() -> None:
    result = outcome(1, status="False", reason="NoTraffic", ready=0, replicas=0)
    assert short(result) == (1, 1, "Unknown", "Queued")
    assert result.activity.message == "Requests to the target are being buffered as resources are provisioned."
    assert short(outcome(1, status="Unknown", reason="Queued", ready=1)) == (1, 1, "True", "")


def test_no_data_changes_nothing() -> None:
    assert short(outcome(UNDECIDED, replicas=4, ready=4)) == (UNDECIDED, 4, "True", "")
    assert short(outcome(UNDECIDED, status="False", reason="NoTraffic", replicas=0, ready=0)) == (
        UNDECIDED, 0, "False", "NoTraffic",
    )  # fmt: skip
    started = outcome(UNDECIDED, status="Unknown", replicas=5, ready=0, params=parameters(low=1))
    assert started.replicas == 5, "what runs is not dropped to the minimum"


def test_bounds_hold_without_data() -> None:
    assert outcome(UNDECIDED, replicas=1, params=parameters(low=3)).replicas == 3
    assert outcome(UNDECIDED, replicas=8, params=parameters(high=5)).replicas == 5
    assert outcome(UNDECIDED, status="False", replicas=0, ready=0, params=parameters(low=2)).want == 2


@pytest.mark.parametrize(
    ("desired", "low", "high", "expected"), [(5, 0, 3, 3), (1, 4, 0, 4), (0, 2, 0, 2), (7, 2, 9, 7)]
)
def test_bounds(desired: int, low: int, high: int, expected: int) -> None:
    assert outcome(desired, since=500, params=parameters(low=low, high=high)).replicas == expected


def test_unreachable_needs_no_minimum() -> None:
    params = parameters(low=4)
    assert outcome(0, since=60, ready=4, replicas=4, reach="Unreachable", params=params).replicas == 0


def test_initial_scale_has_to_be_reached_once() -> None:
    params = parameters(initial=3)
    before = outcome(1, status="Unknown", initialized=False, ready=2, replicas=3, params=params)
    assert (before.replicas, before.activity.status, before.initialized) == (3, "Unknown", False)
    reached = outcome(1, status="Unknown", initialized=False, ready=3, replicas=3, params=params)
    assert (reached.replicas, reached.activity.status, reached.initialized) == (3, "True", True)
    later = outcome(1, initialized=True, ready=1, replicas=3, params=params)
    assert (later.replicas, later.initialized) == (1, True)


def test_min_scale_gates_active() -> None:
    params = parameters(low=4)
    assert outcome(4, status="Unknown", ready=3, params=params).activity.status == "Unknown"
    assert outcome(4, status="Unknown", ready=4, params=params).activity.status == "True"


def test_initial_scale_zero_is_ready_without_pods() -> None:
    params = parameters(initial=0)
    state = initial_state(params, now=T0, replicas=None, initialized=False, active=None)
    assert state.replicas == 0
    first, state = scale(params, state, ScaleObservation(ready=0), UNDECIDED, T0)
    assert (first.initialized, first.activity.status, first.replicas) == (True, "False", 0)
    second, state = scale(params, state, ScaleObservation(ready=0), UNDECIDED, T0 + 1)
    assert second.activity == first.activity


def test_a_new_revision_gets_its_initial_scale() -> None:
    state = initial_state(parameters(initial=2), now=T0, replicas=None, initialized=False, active=None)
    result, _ = scale(parameters(initial=2), state, ScaleObservation(ready=0), UNDECIDED, T0)
    assert short(result) == (2, 2, "Unknown", "Queued")


def test_restart_counts_idle_time_from_now() -> None:
    stored = Condition(type="Active", status="True", last_transition_time="2020-01-01T00:00:00Z")
    state = initial_state(parameters(), now=T0, replicas=1, initialized=True, active=stored)
    result, _ = scale(parameters(), state, ScaleObservation(ready=1), 0, T0 + 1)
    assert (result.replicas, result.activity.status) == (1, "True")


def test_restart_writes_nothing() -> None:
    stored = Condition(
        type="Active", status="False", reason="TimedOut", message="The target could not be activated."
    )
    state = initial_state(parameters(), now=T0, replicas=0, initialized=False, active=stored)
    result, _ = scale(parameters(), state, ScaleObservation(ready=0), UNDECIDED, T0 + 1)
    assert (result.activity.status, result.activity.reason, result.replicas) == ("False", "TimedOut", 0)


@pytest.mark.parametrize(
    ("routing", "resources", "container", "pods", "ready", "expected"),
    [
        ("active", False, False, 1, 1, "Reachable"),
        ("reserve", False, False, 1, 1, "Unreachable"),
        ("pending", False, False, 1, 1, ""),
        ("active", True, False, 2, 0, "Unreachable"),
        ("active", False, True, 1, 0, "Unreachable"),
        ("active", True, True, 0, 0, "Reachable"),
        ("active", True, False, 2, 1, "Reachable"),
    ],
)
def test_reachability(
    routing: str, resources: bool, container: bool, pods: int, ready: int, expected: Reachability
) -> None:
    assert expected == reachability(
        routing, resources_failed=resources, container_failed=container, pods=pods, ready=ready
    )
    conditions = [
        {"type": "ResourcesAvailable", "status": "False" if resources else "True"},
        {"type": "ContainerHealthy", "status": "False" if container else "True"},
    ]
    revision = msgspec.convert(
        {
            "metadata": {"labels": {"serving.knative.dev/routingState": routing}},
            "status": {"conditions": conditions},
        },
        Revision,
    )
    assert revision_reachability(revision, pods=pods, ready=ready) == expected


@given(
    st.integers(-1, 50),
    st.sampled_from(["True", "False", "Unknown"]),
    st.floats(0, 2000),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 10),
    st.integers(0, 10),
    st.sampled_from(["Reachable", "Unreachable", ""]),
    st.booleans(),
)
def test_outcome_is_always_within_bounds(
    desired: int, status: Status, since: float, replicas: int, ready: int, low: int, extra: int,
    reach: Reachability, initialized: bool,
) -> None:  # fmt: skip
    params = parameters(low=low, high=low + extra if extra else 0)
    result = outcome(
        desired, status=status, since=since, replicas=replicas, ready=ready, reach=reach, initialized=initialized,
        params=params,
    )  # fmt: skip
    assert result.replicas >= (0 if reach == "Unreachable" else low)
    assert not params.max_scale or result.replicas <= max(params.max_scale, low)
    assert result.want in (UNDECIDED, result.replicas, 0)
    assert result.requeue_after is None or result.requeue_after > 0
    assert result.initialized >= initialized
    if result.want == 0:
        assert result.activity.status == "False"
