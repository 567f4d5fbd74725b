"""The throttle, case by case."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from serving.activator.holds import Effects, Refused, Release, Slots
from serving.activator.throttle import PACE_SECONDS, Throttle
from tests.activator.values import config, hold


def throttle(*open_pods: str, concurrency: int = 1, **given: object) -> Throttle:
    made = Throttle(config(container_concurrency=concurrency, **given), random=Random(1), ids=itertools.count(1))
    made.set_pods([slots(uid) for uid in open_pods], 0.0)
    return made


def slots(uid: str, *, is_open: bool = True) -> Slots:
    return Slots(uid=uid, address=f"{uid}:8080", open=is_open)


def released(effects: Effects) -> list[tuple[str, str]]:
    return [(release.hold.id, release.pod) for release in effects.releases]


def refused(effects: Effects) -> list[tuple[str, Refused]]:
    return [(refusal.hold.id, refusal.reason) for refusal in effects.refusals]


def release_id(effects: Effects) -> int:
    return effects.releases[0].id


def test_a_request_waits_until_a_pod_opens() -> None:
    made = throttle()
    assert made.hold(hold("x"), 0.0) == Effects()
    assert made.held == 1
    made.set_pods([slots("a", is_open=False)], 1.0)
    assert made.held == 1
    assert released(made.set_open("a", True, 2.0)) == [("x", "a")]
    assert (made.held, made.in_flight("a")) == (0, 1)


def test_first_come_first_served_by_the_time_envoy_received_them() -> None:
    made = throttle(concurrency=10)
    for name, started in (("second", 2.0), ("first", 1.0), ("third", 3.0), ("also-third", 3.0)):
        made.hold(hold(name, started=started), 4.0)
    effects = made.set_pods([slots("a")], 5.0)
    assert [name for name, _ in released(effects)] == ["first", "second", "third", "also-third"]


def test_a_slot_goes_to_the_next_when_the_access_log_reports_the_end() -> None:
    made = throttle("a")
    first = made.hold(hold("x"), 0.0)
    assert made.hold(hold("y"), 0.0) == Effects()
    after = made.finished(release_id(first), 1.0)
    assert released(after) == [("y", "a")]
    assert list(after.ended) == [release_id(first)]
    assert made.finished(release_id(first), 1.0) == Effects(), "reported twice"
    assert made.in_flight("a") == 1


def test_a_client_that_leaves_frees_its_place() -> None:
    made = throttle(queue_depth=1)
    made.hold(hold("x"), 0.0)
    assert refused(made.hold(hold("y"), 0.0)) == [("y", Refused.QUEUE_FULL)]
    made.cancel("x", 0.0)
    assert made.hold(hold("z"), 0.0) == Effects()
    assert released(made.set_pods([slots("a")], 0.0)) == [("z", "a")]


def test_a_client_that_leaves_before_its_release_was_sent_frees_the_slot() -> None:
    made = throttle("a")
    made.hold(hold("x"), 0.0)
    made.hold(hold("y"), 0.0)
    assert released(made.cancel("x", 0.0)) == [("y", "a")]
    assert made.cancel("nobody", 0.0) == Effects()


@pytest.mark.parametrize(
    ("timeout", "start_timeout", "deadline"),
    [(30.0, None, 29.9), (30.0, 10.0, 9.9), (1.0, 300.0, 0.9), (0.5, None, 0.45)],
)
def test_the_deadline_counts_from_the_start_of_the_hold(
    timeout: float, start_timeout: float | None, deadline: float
) -> None:
    made = throttle(timeout_seconds=timeout, response_start_timeout_seconds=start_timeout)
    made.hold(hold("x", started=100.0, arrived=100.2), 100.2)
    assert made.next_wakeup() == pytest.approx(100.0 + deadline)
    assert made.tick(100.0 + deadline - 0.01) == Effects()
    assert refused(made.tick(100.0 + deadline + 0.01)) == [("x", Refused.TIMEOUT)]
    assert (made.held, made.next_wakeup()) == (0, None)


def test_a_request_that_is_already_too_late_is_refused_at_once() -> None:
    made = throttle("a", timeout_seconds=5.0)
    assert refused(made.hold(hold("x", started=10.0), 15.0)) == [("x", Refused.TIMEOUT)]


def test_asked_again_while_waiting_keeps_the_place() -> None:
    made = throttle()
    made.hold(hold("x", started=1.0), 1.0)
    made.hold(hold("y", started=2.0), 2.0)
    assert made.hold(hold("x", started=1.0), 3.0) == Effects()
    assert made.held == 2
    assert released(made.set_pods([slots("a")], 3.0)) == [("x", "a")]


def test_asked_again_after_its_release_frees_the_lost_slot_and_goes_first() -> None:
    made = throttle("a")
    lost = made.hold(hold("x", started=1.0), 1.0)
    made.hold(hold("y", started=2.0), 2.0)
    again = made.hold(hold("x", started=1.0), 3.0)
    assert released(again) == [("x", "a")]
    assert list(again.ended) == [release_id(lost)]
    assert made.in_flight("a") == 1


def test_a_release_that_could_not_connect_keeps_its_first_start() -> None:
    made = throttle("a", timeout_seconds=10.0)
    first = made.hold(hold("x", started=0.0, request_id="r"), 0.0)
    made.set_open("a", False, 1.0)
    made.finished(release_id(first), 1.0, connect_failed=True)
    made.hold(hold("x-again", started=1.1, request_id="r"), 1.1)
    assert made.next_wakeup() == pytest.approx(9.9)


def test_the_same_request_id_alone_shortens_nobodys_deadline() -> None:
    made = throttle("a", timeout_seconds=10.0)
    made.hold(hold("x", started=0.0, request_id="fan-out"), 0.0)
    made.hold(hold("y", started=8.0, request_id="fan-out"), 8.0)
    assert made.next_wakeup() == pytest.approx(17.9)


def test_soft_mode_paces_and_the_pace_frees_itself() -> None:
    made = throttle("a", concurrency=0, max_in_flight_per_pod=2)
    for name in "wxyz":
        made.hold(hold(name), 0.0)
    assert (made.held, made.in_flight("a")) == (2, 2)
    assert made.next_wakeup() == pytest.approx(PACE_SECONDS)
    assert [name for name, _ in released(made.tick(PACE_SECONDS))] == ["y", "z"]
    assert made.in_flight("a") == 4, "drains still count the long ones"


def test_soft_mode_frees_the_pace_with_the_end() -> None:
    made = throttle("a", concurrency=0, max_in_flight_per_pod=1)
    first = made.hold(hold("x"), 0.0)
    made.hold(hold("y"), 0.0)
    assert released(made.finished(release_id(first), 0.01)) == [("y", "a")]
    made.tick(1.0)
    assert made.taken("a") == 0
    assert made.finished(2, 1.0).ended == [2]
    assert made.taken("a") == 0


def test_draining_pods_get_nothing_and_keep_their_ledger() -> None:
    made = throttle("a", "b")
    made.hold(hold("x"), 0.0)
    made.set_pods([slots("a", is_open=False), slots("b")], 1.0)
    assert made.in_flight("a") == 1
    assert released(made.hold(hold("y"), 1.0)) == [("y", "b")]
    assert made.hold(hold("z"), 1.0) == Effects()


def test_a_pod_that_is_gone_takes_its_ledger_along() -> None:
    made = throttle("a")
    made.hold(hold("x"), 0.0)
    assert list(made.set_pods([], 1.0).ended) == [1]
    assert made.in_flight("a") == 0
    assert released(made.set_pods([slots("a")], 2.0)) == []
    assert released(made.hold(hold("y"), 2.0)) == [("y", "a")]


def test_without_doubt_a_release_outlives_the_timeout() -> None:
    made = throttle("a", timeout_seconds=10.0)
    made.hold(hold("x"), 0.0)
    made.tick(1000.0)
    assert made.in_flight("a") == 1, "a response that has started may run longer"


def test_a_doubtful_release_expires_after_the_timeout() -> None:
    made = throttle("a", timeout_seconds=10.0)
    made.hold(hold("x"), 0.0)
    made.doubt()
    made.hold(hold("y", started=5.0), 5.0)
    assert made.next_wakeup() == pytest.approx(10.0)
    assert released(made.tick(10.0)) == [("y", "a")]


def restored(count: int) -> list[Release]:
    return [
        Release(id=100 + n, hold=hold(f"old-{n}"), pod="a", address="a:8080", at=float(n)) for n in range(count)
    ]


def test_slots_survive_a_restart() -> None:
    made = throttle(concurrency=2)
    made.restore(restored(2))
    made.set_pods([slots("a")], 5.0)
    assert made.hold(hold("x"), 5.0) == Effects()
    assert released(made.finished(100, 6.0)) == [("x", "a")]


def test_a_restored_soft_ledger_counts_for_drains_but_does_not_pace() -> None:
    made = throttle(concurrency=0, max_in_flight_per_pod=1)
    made.restore(restored(3))
    made.set_pods([slots("a")], 5.0)
    assert made.in_flight("a") == 3
    assert released(made.hold(hold("x"), 5.0)) == [("x", "a")]


def test_reconcile_drops_what_cannot_be_running() -> None:
    made = throttle(concurrency=2)
    made.restore(restored(2))
    made.set_pods([slots("a")], 5.0)
    made.hold(hold("x", started=5.0), 5.0)
    made.hold(hold("y", started=5.0), 5.0)
    # Three in Envoy at 6 s: two were held, so one of the two old ones runs at most.
    effects = made.reconcile(3, 6.0, 6.1)
    assert list(effects.ended) == [100]
    assert released(effects) == [("x", "a")]
    # Both are inside, one of the old ones is: nothing may be dropped.
    assert made.reconcile(3, 7.0, 7.1) == Effects()


def test_reconcile_does_not_take_new_releases_for_old_ones() -> None:
    made = throttle("a", concurrency=5)
    made.hold(hold("x", started=10.0), 10.0)
    made.doubt()
    assert made.reconcile(0, 9.0, 10.1) == Effects(), "the sample is older than the release"
    assert list(made.reconcile(0, 10.05, 10.1).ended) == [1]


def test_reconcile_leaves_alone_what_nobody_doubts() -> None:
    made = throttle("a", concurrency=5, timeout_seconds=30.0)
    made.hold(hold("x"), 0.0)
    assert made.reconcile(0, 5.0, 5.1) == Effects(), "load reports forget requests when a cluster changes"
    assert list(made.reconcile(0, 30.0, 30.1).ended) == [1], "but not for ever"


def test_reconcile_counts_what_surely_runs() -> None:
    made = throttle(concurrency=5)
    made.restore(restored(2))
    made.set_pods([slots("a")], 5.0)
    made.hold(hold("x", started=5.0), 5.0)
    assert list(made.reconcile(2, 6.0, 6.1).ended) == [100]


def test_reconcile_pod_leaves_the_young_alone() -> None:
    made = throttle("a", concurrency=5)
    made.hold(hold("old", started=0.0), 0.0)
    made.hold(hold("young", started=8.0), 8.0)
    assert made.reconcile_pod("a", 0, 10.0) == Effects()
    made.doubt()
    assert list(made.reconcile_pod("a", 1, 10.0).ended) == [1]
    assert made.in_flight("a") == 1


def test_close_refuses_everyone() -> None:
    made = throttle("a")
    made.hold(hold("x"), 0.0)
    made.hold(hold("y"), 0.0)
    effects = made.close()
    assert refused(effects) == [("y", Refused.GONE)]
    assert list(effects.ended) == [1]
    assert made.held == made.in_flight("a") == 0


def test_a_lower_limit_lets_running_ones_end() -> None:
    made = throttle("a", concurrency=3)
    for name in "xyz":
        made.hold(hold(name), 0.0)
    made.configure(config(container_concurrency=1), 1.0)
    made.hold(hold("w"), 1.0)
    assert made.finished(1, 2.0).releases == []
    assert made.finished(2, 2.0).releases == []
    assert released(made.finished(3, 2.0)) == [("w", "a")]
