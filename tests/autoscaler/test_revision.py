"""The facade on virtual time: waking, following load, going to zero, restarts, silent gateways."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.meta import Condition
from serving.autoscaler.parameters import ScalingParameters
from serving.autoscaler.revision import Observation, PodCounts, poke, report, start, step, wake_scale
from tests.autoscaler.support import parameters
from tests.autoscaler.world import T0, World

ONE = frozenset({"a"})
ASLEEP = Condition(type="Active", status="False", reason="NoTraffic")


def asleep(params: ScalingParameters) -> World:
    """A revision that was scaled to zero before this process started."""
    world = World(params)
    world.scaler = start(params, pods=PodCounts(), now=world.now, replicas=0, initialized=True, active=ASLEEP)
    return world


def test_a_new_revision_gets_its_initial_scale_at_once() -> None:
    world = World(parameters(initial=3))
    decision = world.step()
    assert (decision.desired, decision.want, decision.activity.status) == (3, 3, "Unknown")
    decision = world.run(1)
    assert (decision.desired, decision.initialized, decision.activity.status) == (3, True, "True")
    assert world.run(10).desired == 1, "then load decides"


def test_idle_goes_to_zero_and_costs_nothing() -> None:
    world = World(parameters())
    world.step()
    decision = world.run(70)
    assert (decision.desired, decision.want) == (0, 0)
    assert (decision.activity.status, decision.activity.reason) == ("False", "NoTraffic")
    assert [scale for _, scale in world.history] == [1, 0]
    assert 60 <= world.history[-1][0] <= 64
    assert decision.next_tick_at is None
    assert not world.scaler.is_tracking
    assert world.scaler.metrics is None


def test_reports_without_demand_leave_a_sleeping_revision_alone() -> None:
    world = asleep(parameters())
    assert report(world.scaler, world.params, "a", None, interval=1.0, now=T0) is world.scaler
    decision = world.step()
    assert (decision.desired, decision.next_tick_at) == (0, None)


@pytest.mark.parametrize(
    ("params", "held", "expected"),
    [
        pytest.param(parameters(), 1, 1, id="one"),
        pytest.param(parameters(activation=3), 1, 3, id="activation-scale"),
        pytest.param(parameters(), 500, 8, id="flood"),
        pytest.param(parameters(high=2), 500, 2, id="max-scale"),
        pytest.param(parameters(total=1, target=0.7), 3, 5, id="hard-concurrency"),
        pytest.param(parameters(up=4), 5000, 4, id="rate"),
        pytest.param(parameters(low=2), 1, 2, id="min-scale"),
    ],
)
def test_a_poke_is_answered_in_the_same_step(params: ScalingParameters, held: int, expected: int) -> None:
    world = asleep(params)
    decision = world.poke(held)
    assert (decision.desired, decision.woken) == (expected, True)
    assert (decision.activity.status, decision.activity.reason) == ("Unknown", "Queued")
    assert decision.next_tick_at == pytest.approx(T0 + 2)


def test_a_poke_cancels_scaling_to_zero() -> None:
    world = World(parameters())
    world.step()
    world.run(70)
    world.draining = 1
    assert world.poke().desired == 1


def test_a_poke_while_pods_boot_changes_nothing() -> None:
    world = World(parameters(), boot=10)
    assert world.step().desired == 1
    decision = world.poke(400)
    assert (decision.desired, decision.woken) == (1, False)


def test_a_flood_keeps_what_it_asked_for() -> None:
    world = asleep(parameters())
    assert world.poke(500).desired == 8
    world.run(40, 500)
    assert all(scale >= 8 for _, scale in world.history[1:])


def test_a_held_request_in_a_report_is_a_poke() -> None:
    """The poke itself may be lost: the next report carries it too."""
    world = asleep(parameters())
    world.step()
    decision = world.run(1.5, 1)
    assert decision.desired == 1


def test_load_is_followed_up_and_down() -> None:
    world = World(parameters(total=10))
    world.step()
    world.run(30, 4)
    assert world.decision is not None
    assert world.decision.desired == 1
    assert world.run(30, 100).desired == 15
    assert world.run(150, 20).desired == 3
    assert world.run(200, 0).desired == 0


def test_a_single_short_request_keeps_the_pod_for_the_window() -> None:
    world = asleep(parameters())
    world.poke()
    world.run(1, 0, issued=1)
    world.run(55, 0)
    assert world.decision is not None
    assert world.decision.desired == 1
    assert world.run(15, 0).desired == 0


def test_min_scale_revisions_rest_too() -> None:
    world = World(parameters(low=4, initial=4))
    world.step()
    decision = world.run(200)
    assert (decision.desired, decision.next_tick_at, decision.activity.status) == (4, None, "True")
    world.params = parameters(low=1)
    world.step()
    assert world.run(20).desired == 1
    world.params = parameters(low=3)
    assert world.step().desired == 3


def test_load_after_rest_is_damped_by_the_idle_window() -> None:
    """One sample of 100 within a window of zeros is an average of 1.7, and 17 in the panic window."""
    world = World(parameters(low=1))
    world.step()
    assert world.run(200).next_tick_at is None
    decision = world.run(1, 100)
    assert decision.desired == 1
    assert decision.averages is not None
    assert decision.averages.stable == pytest.approx(100 / 60, abs=1e-5)


def test_restart_keeps_the_pods_until_there_is_data() -> None:
    world = World(parameters(), pods=6)
    assert world.step().desired == 6
    world.talking = set()
    assert world.run(300).desired == 6, "nothing was heard"


def test_restart_with_load_holds_in_panic() -> None:
    world = World(parameters(total=10), pods=6)
    world.step()
    assert world.run(55, 7).desired == 6
    assert world.run(60, 7).desired == 1


def test_restart_never_drops_pods_below_what_runs() -> None:
    scaler = start(
        parameters(), pods=PodCounts(ready=3, live=3), now=T0, replicas=1, initialized=True, active=None
    )
    decision, _ = step(
        scaler, parameters(), Observation(pods=PodCounts(ready=3, live=3), gateways=frozenset()), T0
    )
    assert decision.desired == 3


def test_restart_asleep_stays_asleep() -> None:
    world = asleep(parameters(initial=3))
    decision = world.run(120)
    assert (decision.desired, decision.next_tick_at, decision.activity.reason) == (0, None, "NoTraffic")
    assert world.history == [(0.1, 0)]


def test_a_silent_gateway_blocks_scaling_down_until_its_lease_ends() -> None:
    world = World(parameters(total=10), gateways=("a", "b"))
    world.step()
    assert world.run(90, 60).desired == 9
    world.talking = {"a"}
    world.run(100, lambda _: 0)
    assert world.decision is not None
    assert world.decision.desired >= 5, "half of the load was at the gateway that fell silent"
    world.live = frozenset({"a"})
    assert world.run(120, lambda _: 0).desired == 0


def test_a_silent_gateway_never_scales_up() -> None:
    world = World(parameters(total=10), gateways=("a", "b"))
    world.step()
    world.run(90, 60)
    world.talking = {"a"}
    before = world.decision.desired if world.decision else 0
    world.run(60, 60)
    assert not any(scale > before for at, scale in world.history if at > 90)


def test_a_gateway_that_was_never_heard_blocks_scaling_down() -> None:
    world = World(parameters(), gateways=("a", "b"), pods=1)
    world.talking = {"a"}
    world.step()
    assert world.run(200).desired == 1
    world.talking = {"a", "b"}
    assert world.run(80).desired == 0


def test_pods_that_never_start_time_out() -> None:
    world = World(parameters(deadline=60), boot=1e9)
    world.step()
    decision = world.run(100)
    assert (decision.desired, decision.activity.reason) == (0, "TimedOut")
    assert decision.next_tick_at is None


def test_an_unreachable_revision_drops_everything_at_once() -> None:
    world = World(parameters(low=3, initial=3))
    world.step()
    world.run(80)
    world.reachability = "Unreachable"
    assert world.run(70).desired == 0


def test_without_an_acknowledgement_the_grace_period_ends() -> None:
    world = World(parameters())
    world.step()
    world.run(61.5)
    world.acked, world.draining = False, 1
    decision = world.run(5)
    assert decision.desired == 0
    assert decision.next_tick_at is not None
    assert world.run(40).next_tick_at is None


def test_decisions_without_load_are_few() -> None:
    world = asleep(parameters())
    world.run(60)
    assert world.scaler.metrics is None
    assert wake_scale(parameters(), 0) == 1


def test_step_is_idempotent_between_ticks() -> None:
    world = World(parameters(total=10))
    world.step()
    world.run(31, 50)
    observation = Observation(pods=world.counts(), gateways=ONE, reachability="Reachable", acked=True)
    first, after = step(world.scaler, world.params, observation, world.now)
    second, _ = step(after, world.params, observation, world.now)
    assert first == second


def test_pokes_merge() -> None:
    scaler = start(parameters(), pods=PodCounts(), now=T0)
    assert poke(poke(scaler, 5), 2).held == 5
    assert poke(scaler, 0).held == 1


@settings(max_examples=15)
@given(st.integers(1, 300), st.integers(1, 60), st.sampled_from(["linear", "weighted-exponential"]))
def test_constant_load_settles_and_does_not_flap(load: int, total: int, aggregation: str) -> None:
    params = parameters(total=total, aggregation=aggregation)  # type: ignore[arg-type]
    world = World(params)
    world.step()
    world.run(80, load)
    settled = len(world.history)
    world.run(200, load)
    changes = world.history[settled:]
    assert len(changes) <= 1, "at most the end of the first panic"
    assert world.decision is not None
    # Exponential weights add up to 0.9999, so the average may be that little below a load that fills its pods.
    least = math.ceil(0.9999 * load / params.target - 1e-6)
    assert least <= world.decision.desired <= math.ceil(load / params.target) + 1


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=6), st.integers(0, 3), st.integers(0, 4), st.integers(0, 8)
)
def test_always_within_bounds(loads: list[int], low: int, extra: int, pods: int) -> None:
    params = parameters(total=20, low=low, high=low + extra if extra else 0)
    world = World(params, pods=pods)
    world.step()
    for load in loads:
        decision = world.run(15, load)
        assert decision.desired >= low
        assert not params.max_scale or decision.desired <= params.max_scale


@settings(max_examples=10)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=5), st.integers(0, 200))
def test_more_load_never_gets_fewer_pods(loads: list[int], more: int) -> None:
    less_world, more_world = World(parameters(total=20)), World(parameters(total=20))
    less_world.step()
    more_world.step()
    for load in loads:
        less = less_world.run(12, load)
        greater = more_world.run(12, load + more)
        assert greater.desired >= less.desired
