"""Gradual rollouts on virtual time: the numbers of upstream's examples, and what must hold for any."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.rollout import RevisionShare, Rollout, StepParams, TargetRollout, read_rollout, write_rollout
from serving.controller.rollout import SECOND, Goal, observe_ready, split, steady, step

START = 1_000_000 * SECOND


def goal(revision: str, percent: int = 100, tag: str = "") -> Rollout:
    return steady([Goal(configuration="c", tag=tag, revision=revision, percent=percent)])


def shares(rollout: Rollout, tag: str = "") -> dict[str, int]:
    target = rollout.of("c", tag)
    assert target is not None
    return {row.revision_name: row.percent for row in target.revisions}


def state(percents: dict[str, int], **params: int) -> Rollout:
    rows = tuple(RevisionShare(revision_name=name, percent=percent) for name, percent in percents.items())
    target = TargetRollout(
        configuration_name="c", percent=sum(percents.values()), revisions=rows, step_params=StepParams(**params)
    )
    return Rollout(configurations=(target,))


def test_the_first_percent_moves_at_once() -> None:
    begun = step(goal("b"), goal("a"), now=START)
    assert shares(begun) == {"a": 99, "b": 1}
    assert begun.configurations[0].step_params == StepParams(start_time=START)
    assert step(goal("b"), begun, now=START + 100 * SECOND) == begun, "no step before the gateways are ready"


def test_without_a_former_state_there_is_nothing_to_roll_from() -> None:
    assert step(goal("b"), None, now=START) == goal("b")
    assert step(goal("b"), Rollout(), now=START) == goal("b")


@pytest.mark.parametrize("percent", [0, 1])
def test_small_targets_are_not_rolled_out(percent: int) -> None:
    assert step(goal("b", percent), goal("a", 50), now=START) == goal("b", percent)


@pytest.mark.parametrize(
    ("percent", "seconds", "ready_after", "size", "pause"),
    [
        (100, 60, 1, 2, 1.0),  # 59 steps
        (100, 101, 1, 1, 100 / 99),
        (100, 120, 5, 4, 5.0),
        (100, 10, 20, 99, 1.0),  # it took longer than the whole: one step
        (50, 200, 1, 1, 199 / 49),
        (2, 100, 1, 1, 99.0),
    ],
)
def test_size_and_pace_of_steps(percent: int, seconds: int, ready_after: int, size: int, pause: float) -> None:
    begun = step(goal("b", percent), goal("a", percent), now=START)
    now = START + ready_after * SECOND - SECOND // 2
    params = observe_ready(begun, now=now, duration_seconds=seconds).configurations[0].step_params
    assert params.step_size == size
    assert params.step_duration == pytest.approx(pause * SECOND, abs=2)
    assert params.next_step_time == now + params.step_duration


def test_a_third_revision_takes_from_the_newest() -> None:
    before = state({"a": 60, "b": 40}, start_time=START, step_duration=SECOND, step_size=5, next_step_time=START)
    begun = step(goal("c"), before, now=START)
    assert shares(begun) == {"a": 60, "b": 39, "c": 1}
    timed = observe_ready(begun, now=START + SECOND, duration_seconds=21)
    size = timed.configurations[0].step_params.step_size
    assert size == 5
    later = timed
    seen = []
    for second in range(2, 30):
        later = step(goal("c"), later, now=START + second * SECOND)
        seen.append(shares(later))
    assert seen[0] == {"a": 60, "b": 34, "c": 6}
    assert {"a": 59, "c": 41} in seen
    assert seen[-1] == {"c": 100}
    assert later.done
    assert later.configurations[0].step_params == StepParams()


@pytest.mark.parametrize(
    ("percent", "expected"), [(80, {"a": 70, "b": 10}), (10, {"b": 10}), (5, {"b": 5}), (45, {"a": 35, "b": 10})]
)
def test_the_target_itself_grows_and_shrinks(percent: int, expected: dict[str, int]) -> None:
    before = state({"a": 60, "b": 10}, start_time=START, step_duration=SECOND, step_size=5, next_step_time=2**62)
    got = shares(step(goal("b", percent), before, now=START))
    if percent > 70:
        expected = {"a": 60, "b": percent - 60}
    assert got == expected


def test_going_back_during_a_rollout_is_no_jump() -> None:
    before = state({"a": 70, "b": 30}, start_time=START, step_duration=SECOND, step_size=5, next_step_time=START)
    assert shares(step(goal("a"), before, now=START)) == {"b": 29, "a": 71}


def test_the_state_survives_in_the_form_of_upstream() -> None:
    before = state({"a": 70, "b": 30}, start_time=1, step_duration=2, step_size=5, next_step_time=3)
    text = write_rollout(before)
    assert msgspec.json.decode(text) == {
        "configurations": [
            {
                "configurationName": "c",
                "percent": 100,
                "revisions": [{"revisionName": "a", "percent": 70}, {"revisionName": "b", "percent": 30}],
                "stepParams": {"starttime": 1, "nextStepTime": 3, "stepDuration": 2, "stepSize": 5},
            }
        ]
    }
    assert read_rollout({"networking.internal.knative.dev/rollout": text}) == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        '{"configurations": [{"configurationName": "c", "percent": 101, "revisions": []}]}',
        '{"configurations": [{"configurationName": "c", "percent": 5, "revisions": []}]}',
        '{"configurations": [{"configurationName": "c", "percent": 0, "stepParams": {"stepSize": 1}}]}',
    ],
)
def test_a_damaged_state_counts_as_none(text: str) -> None:
    assert read_rollout({"networking.internal.knative.dev/rollout": text}) is None


def test_targets_of_one_configuration_share_its_rollout() -> None:
    rollout = state({"a": 99, "b": 1})
    dealt = split(rollout, {"c": [50, 50]})
    rows = [{row.revision_name: row.percent for row in rows} for rows in dealt["c"]]
    assert rows == [{"a": 50}, {"a": 49, "b": 1}]


class Run:
    """One target whose latest revision changes from time to time."""

    def __init__(self, percent: int, seconds: int) -> None:
        self.percent, self.seconds = percent, seconds
        self.latest = 0
        self.size = 0
        self.now = START
        self.state = goal("r0", percent)

    def tick(self, elapsed: float, *, renew: bool, ready: bool) -> None:
        self.now += int(elapsed * SECOND)
        self.latest += renew
        before = read_rollout({"networking.internal.knative.dev/rollout": write_rollout(self.state)})
        assert before == self.state, "a restart loses nothing"
        if ready:
            before = observe_ready(before, now=self.now, duration_seconds=self.seconds)
        self.size = before.configurations[0].step_params.step_size
        self.state = step(goal(f"r{self.latest}", self.percent), before, now=self.now)


@settings(max_examples=100, deadline=None)
@given(
    percent=st.integers(2, 100),
    seconds=st.integers(1, 600),
    ticks=st.lists(st.tuples(st.floats(0.1, 20), st.booleans(), st.booleans()), max_size=40),
)
def test_whatever_happens_the_sum_stays_and_nothing_jumps(
    percent: int, seconds: int, ticks: list[tuple[float, bool, bool]]
) -> None:
    run = Run(percent, seconds)
    for elapsed, renew, ready in ticks:
        former, latest = shares(run.state), run.latest
        run.tick(elapsed, renew=renew, ready=ready)
        after = shares(run.state)
        assert sum(after.values()) == percent
        assert all(share > 0 for share in after.values())
        name = f"r{run.latest}"
        if run.latest != latest:
            assert after[name] == 1
        else:
            assert after[name] - former.get(name, 0) <= run.size
    for _ in range(2 * percent + 2):
        run.tick(max(seconds, 1), renew=False, ready=True)
    assert shares(run.state) == {f"r{run.latest}": percent}, "it ends"
