"""The throttle under any order of events."""

from __future__ import annotations

import itertools
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.activator.holds import Effects, Slots
from serving.activator.throttle import Throttle
from tests.activator.values import config, hold

PODS = ("a", "b", "c")


class ThrottleMachine(RuleBasedStateMachine):
    """Checks FIFO, the hard limit, exactly one end for each request, and that slots are neither lost nor
    doubled, whatever happens in whatever order."""

    @initialize(
        concurrency=st.sampled_from([0, 1, 2, 4]),
        depth=st.integers(min_value=1, max_value=6),
        seed=st.integers(min_value=0, max_value=9),
    )
    def start(self, concurrency: int, depth: int, seed: int) -> None:
        self.config = config(
            container_concurrency=concurrency, queue_depth=depth, max_in_flight_per_pod=2, timeout_seconds=10.0
        )
        self.throttle = Throttle(self.config, random=Random(seed), ids=itertools.count(1))
        self.now = 0.0
        self.asked = 0
        self.waiting: dict[str, float] = {}
        self.running: dict[int, tuple[str, str]] = {}
        self.ended: set[str] = set()
        self.pods: dict[str, bool] = {}
        self.doubted: set[int] = set()

    def take(self, effects: Effects, *, dropped: bool = False) -> None:
        """Follow what was decided; `dropped`: releases may leave the ledger without having been reported."""
        for release_id in effects.ended:
            gone = self.running.pop(release_id, None)
            assert gone is None or dropped or release_id in self.doubted
        for release in effects.releases:
            name = release.hold.id
            assert name in self.waiting, "released without waiting, or twice"
            assert self.waiting[name] == min(self.waiting.values()), "not first come, first served"
            assert self.pods.get(release.pod), "released to a pod that is not open"
            del self.waiting[name]
            self.running[release.id] = (name, release.pod)
        for refusal in effects.refusals:
            assert refusal.hold.id in self.waiting
            del self.waiting[refusal.hold.id]
            self.ended.add(refusal.hold.id)

    @rule(late=st.floats(min_value=0.0, max_value=3.0))
    def ask(self, late: float) -> None:
        self.asked += 1
        name = f"r{self.asked}"
        # Distinct starts, so that the order is defined.
        started = self.now - late + self.asked * 1e-6
        self.waiting[name] = started
        self.take(self.throttle.hold(hold(name, started=started, arrived=self.now), self.now))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.throttle.hold(hold(name, started=self.waiting[name]), self.now) == Effects()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[name]
        self.ended.add(name)
        self.take(self.throttle.cancel(name, self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), connect_failed=st.booleans())
    def request_ends(self, data: st.DataObject, connect_failed: bool) -> None:
        release_id = data.draw(st.sampled_from(sorted(self.running)))
        name, _ = self.running.pop(release_id)
        self.ended.add(name)
        self.take(self.throttle.finished(release_id, self.now, connect_failed=connect_failed))

    @rule(uids=st.sets(st.sampled_from(PODS)), closed=st.sets(st.sampled_from(PODS)))
    def pods_change(self, uids: set[str], closed: set[str]) -> None:
        self.pods = {uid: uid not in closed for uid in uids}
        pods = [Slots(uid=uid, address=f"{uid}:80", open=is_open) for uid, is_open in self.pods.items()]
        self.take(self.throttle.set_pods(pods, self.now), dropped=True)

    @precondition(lambda self: self.pods)
    @rule(data=st.data(), is_open=st.booleans())
    def pod_answers_or_fails(self, data: st.DataObject, is_open: bool) -> None:
        uid = data.draw(st.sampled_from(sorted(self.pods)))
        self.pods[uid] = is_open
        self.take(self.throttle.set_open(uid, is_open, self.now))

    @rule(seconds=st.floats(min_value=0.0, max_value=12.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.throttle.tick(self.now))

    @rule()
    def access_log_breaks(self) -> None:
        self.throttle.doubt()
        self.doubted |= self.running.keys()

    @rule()
    def load_report_tells_the_truth(self) -> None:
        before = set(self.running)
        self.take(self.throttle.reconcile(len(self.waiting) + len(self.running), self.now, self.now))
        assert before <= self.running.keys(), "a true report drops nothing"

    @invariant()
    def counts_agree(self) -> None:
        assert self.throttle.held == len(self.waiting) <= self.config.queue_depth
        assert set(self.throttle.ledger) == set(self.running)
        for uid in PODS:
            running = sum(pod == uid for _, pod in self.running.values())
            assert self.throttle.in_flight(uid) == running

    @invariant()
    def slots_are_conserved(self) -> None:
        limit = self.config.slots_per_pod
        for uid in self.pods:
            taken = self.throttle.taken(uid)
            assert 0 <= taken <= limit
            if self.config.container_concurrency:
                assert taken == self.throttle.in_flight(uid), "hard limit: one slot for each in flight"

    @invariant()
    def nobody_waits_beside_a_free_slot(self) -> None:
        free = any(self.throttle.taken(uid) < self.config.slots_per_pod for uid, up in self.pods.items() if up)
        assert not (self.waiting and free)

    @invariant()
    def every_wait_has_an_end(self) -> None:
        assert (self.throttle.next_wakeup() is None) == (not self.waiting)

    @invariant()
    def nobody_ends_twice(self) -> None:
        names = [name for name, _ in self.running.values()]
        assert not (self.ended & set(names))
        assert not (self.ended & self.waiting.keys())


TestThrottle = ThrottleMachine.TestCase
TestThrottle.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
