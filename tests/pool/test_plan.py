"""The plan: tables for each rule, and properties over a model of the pool that carries plans out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.pod import Pod
from serving.api.reports import PodDrain
from serving.pool.plan import BACKOFF_MAX, NO_FAILURES, Failures, PodView, PoolPlan, drain_mark, plan, view
from tests.pool.support import NOW, pod

DONE = PodDrain(acked=True, in_flight=0)
TIMEOUT = 45.0


def make(
    desired: int,
    pods: list[PodView],
    *,
    now: float = NOW,
    wait_set: frozenset[str] = frozenset({"a", "b"}),
    drains: Mapping[str, Mapping[str, PodDrain]] | None = None,
    expected: frozenset[str] = frozenset(),
    failures: Failures = NO_FAILURES,
) -> PoolPlan:
    return plan(
        desired,
        pods,
        now=now,
        wait_set=wait_set,
        drains=drains or {},
        timeout_seconds=TIMEOUT,
        progress_deadline=600.0,
        expected=expected,
        failures=failures,
    )


def uids(pods: tuple[PodView, ...]) -> list[str]:
    return [entry.uid for entry in pods]


def test_creates_the_deficit() -> None:
    assert make(3, [pod("a")]).create == 2
    assert make(1, [pod("a")]).is_empty
    assert make(0, []).is_empty


def test_pods_that_were_asked_for_but_not_seen_count() -> None:
    assert make(3, [pod("a")], expected=frozenset({"pod-x", "pod-a"})).create == 1
    assert make(1, [pod("a")], expected=frozenset({"pod-x"})).drain == ()


def test_pods_that_are_going_do_not_count() -> None:
    result = make(1, [pod("a", deleting=True), pod("b", deleting=True, draining=1)])
    assert (result.create, result.delete) == (1, ())


def test_finished_pods_are_deleted_and_replaced() -> None:
    result = make(2, [pod("a", finished=True), pod("b"), pod("c", finished=True, deleting=True)])
    assert [(entry.uid, entry.reason) for entry in result.delete] == [("a", "finished")]
    assert result.create == 1


@pytest.mark.parametrize(
    ("pods", "desired", "victims"),
    [
        pytest.param([pod("old", age=50), pod("new", age=10)], 1, ["new"], id="youngest"),
        pytest.param([pod("old", age=50, ready=False), pod("new", age=10)], 1, ["old"], id="not-ready"),
        pytest.param(
            [pod("x", ready=False, age=5), pod("loop", ready=False, crash_looping=True), pod("y")], 2, ["loop"],
            id="crash-loop-first",
        ),
        pytest.param(
            [pod("a1", node="a", age=50), pod("a2", node="a", age=40), pod("b1", node="b", age=10)], 2, ["a2"],
            id="doubled-up-on-a-node",
        ),
        pytest.param(
            [pod("a1", node="a", age=50), pod("a2", node="a", age=40), pod("b1", node="b", age=10)], 1,
            ["a2", "b1"], id="then-youngest",
        ),
        pytest.param([pod("a"), pod("b", age=1)], 0, ["b", "a"], id="all"),
    ],
)  # fmt: skip
def test_who_is_drained(pods: list[PodView], desired: int, victims: list[str]) -> None:
    result = make(desired, pods)
    assert uids(result.drain) == victims
    assert result.create == 0
    assert result.delete == ()


def test_a_drain_is_taken_back_before_a_pod_is_created() -> None:
    pods = [pod("a", draining=5, ready=False), pod("b", draining=5), pod("c", draining=5, deleting=True)]
    assert uids(make(1, pods).undrain) == ["b"]
    result = make(3, pods)
    assert (uids(result.undrain), result.create) == (["b", "a"], 1)


def test_a_drained_pod_that_is_wanted_again_is_not_deleted() -> None:
    drains = {"a": {"x": DONE}, "b": {"x": DONE}}
    result = make(1, [pod("x", draining=5)], drains=drains)
    assert (uids(result.undrain), result.delete, result.create) == (["x"], (), 0)


@pytest.mark.parametrize(
    ("drains", "reason"),
    [
        pytest.param({"a": {"x": DONE}, "b": {"x": DONE}}, "drained", id="all-acked"),
        pytest.param({"a": {"x": DONE}}, None, id="one-silent"),
        pytest.param({"a": {"x": DONE}, "b": {}}, None, id="one-does-not-know-the-pod"),
        pytest.param({"a": {"x": DONE}, "b": {"x": PodDrain(acked=False, in_flight=0)}}, None, id="one-not-acked"),
        pytest.param({"a": {"x": DONE}, "b": {"x": PodDrain(acked=True, in_flight=1)}}, None, id="one-in-flight"),
        pytest.param({"b": {"x": DONE}, "a": {"x": DONE}, "gone": {}}, "drained", id="expired-does-not-count"),
    ],
)
def test_when_a_draining_pod_goes(drains: dict[str, dict[str, PodDrain]], reason: str | None) -> None:
    result = make(0, [pod("x", draining=5)], drains=drains)
    assert [entry.reason for entry in result.delete] == ([reason] if reason else [])
    assert result.requeue_at == (None if reason else NOW - 5 + TIMEOUT)


def test_a_drain_ends_with_the_longest_request() -> None:
    assert make(0, [pod("x", draining=44.9)]).delete == ()
    assert [entry.reason for entry in make(0, [pod("x", draining=45)]).delete] == ["drain-timeout"]


def test_without_any_gateway_nothing_can_be_in_flight() -> None:
    assert [entry.reason for entry in make(0, [pod("x", draining=0)], wait_set=frozenset()).delete] == [
        "no-gateway"
    ]


def test_stuck_pods_are_counted_and_reported() -> None:
    late = pod("late", age=601, ready=False)
    lost = pod("lost", age=5000, ready=False, ready_since=NOW - 100)
    result = make(2, [late, lost])
    assert uids(result.stuck) == ["late"]
    assert result.is_empty
    assert result.requeue_at == NOW + 500


def test_crash_loops_are_counted_and_reported() -> None:
    result = make(1, [pod("x", ready=False, crash_looping=True)])
    assert uids(result.crash_looping) == ["x"]
    assert result.create == 0


def test_pods_that_keep_failing_are_replaced_more_and_more_slowly() -> None:
    failures, now, waits = NO_FAILURES, NOW, []
    for attempt in range(14):
        result = make(1, [pod(f"p{attempt}", finished=True)], now=now, failures=failures)
        waits.append(0.0 if result.create else (result.requeue_at or 0) - now)
        assert result.create + result.postponed == 1
        failures = result.failures
        now += waits[-1]
        assert make(1, [pod(f"p{attempt}", finished=True)], now=now, failures=failures).create == 1
    assert waits[:6] == [0, 1, 2, 4, 8, 16]
    assert waits[-1] == BACKOFF_MAX


def test_one_node_lost_is_one_failure() -> None:
    result = make(5, [pod(f"p{index}", finished=True) for index in range(5)])
    assert (result.create, result.failures.count) == (5, 1)


def test_a_pod_that_became_ready_ends_the_back_off() -> None:
    failures = Failures(count=6, last_at=NOW - 5)
    assert make(2, [pod("ok", age=3)], failures=failures).create == 1
    assert make(2, [pod("before", age=50)], failures=failures).postponed == 1
    assert make(2, [pod("before", age=9000)], failures=Failures(count=6, last_at=NOW - 601)).create == 1


def test_view_of_a_pod() -> None:
    raw: dict[str, Any] = {
        "metadata": {
            "uid": "u", "name": "n", "creationTimestamp": "2026-11-23T19:00:00Z",
            "annotations": {"nodeless.dev/draining": drain_mark(NOW + 0.25)},
        },
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-23T19:00:05Z"}],
            "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
        },
    }  # fmt: skip
    seen = view(msgspec.convert(raw, Pod))
    assert seen.ready
    assert seen.crash_looping
    assert seen.draining_since == pytest.approx(NOW + 0.25)
    assert seen.ready_since == pytest.approx(seen.created_at + 5)
    assert seen.node == "n1"
    raw["metadata"]["annotations"] = {"nodeless.dev/draining": "soon"}
    assert view(msgspec.convert(raw, Pod)).draining_since == seen.created_at


class Pool:
    """Carries plans out, as the shell does, and gateways that acknowledge when told."""

    def __init__(self) -> None:
        self.pods: dict[str, PodView] = {}
        self.drains: dict[str, dict[str, PodDrain]] = {"a": {}, "b": {}}
        self.created = 0

    def carry_out(self, result: PoolPlan, now: float) -> None:
        for entry in result.delete:
            gone = self.pods.pop(entry.uid)
            acked = all(known.get(entry.uid) == DONE for known in self.drains.values())
            timed_out = gone.draining_since is not None and now - gone.draining_since >= TIMEOUT
            assert gone.finished or acked or timed_out, "deleted an un-acked pod early"
        for victim in result.drain:
            self.pods[victim.uid] = msgspec.structs.replace(victim, draining_since=now)
        for saved in result.undrain:
            self.pods[saved.uid] = msgspec.structs.replace(saved, draining_since=None)
            for known in self.drains.values():
                known.pop(saved.uid, None)
        for _ in range(result.create):
            self.created += 1
            uid = f"n{self.created}"
            self.pods[uid] = PodView(uid=uid, name=uid, created_at=now, ready=False)

    def plan(self, desired: int, now: float, failures: Failures = NO_FAILURES) -> PoolPlan:
        return make(desired, list(self.pods.values()), now=now, drains=self.drains, failures=failures)

    def serving(self) -> int:
        return sum(entry.draining_since is None and not entry.finished for entry in self.pods.values())


events = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.integers(0, 8)),
        st.tuples(st.sampled_from(["ack-a", "ack-b", "fail", "ready"]), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.integers(0, 30)),
    ),
    max_size=40,
)


@given(events)
def test_the_pool_follows_what_is_wanted(steps: list[tuple[str, int]]) -> None:
    pool, desired, now, failures = Pool(), 0, NOW, NO_FAILURES
    for what, number in steps:
        now += 1
        names = sorted(pool.pods)
        chosen = names[number % len(names)] if names else None
        if what == "want":
            desired = number
        elif what == "wait":
            now += number
        elif chosen and what.startswith("ack"):
            if pool.pods[chosen].draining_since is not None:
                pool.drains[what[-1]][chosen] = DONE
        elif chosen:
            change = {"finished": True} if what == "fail" else {"ready": True}
            pool.pods[chosen] = msgspec.structs.replace(pool.pods[chosen], **change)
        result = pool.plan(desired, now, failures)
        before = pool.serving()
        assert before + len(result.undrain) + result.create + result.postponed >= desired
        failures = result.failures
        pool.carry_out(result, now)
        assert pool.serving() <= desired, "never exceeds what is wanted"
        assert pool.serving() == desired - result.postponed, "creates exactly the deficit"
        assert pool.plan(desired, now, failures).is_empty, "running twice is running once"
    now += BACKOFF_MAX + TIMEOUT
    pool.carry_out(pool.plan(desired, now, failures), now)
    assert len(pool.pods) == desired, "converges to what is wanted and leaves nothing behind"


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_expected_pods_are_never_made_twice(desired: int, seen: int, asked: int) -> None:
    pods = [pod(str(index)) for index in range(seen)]
    expected = frozenset(f"new-{index}" for index in range(asked))
    assert make(desired, pods, expected=expected).create == max(0, desired - seen - asked)
