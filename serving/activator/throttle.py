"""Throttle of one revision: a bounded FIFO queue of held requests and slots per pod. Pure.

Each method takes an event and `now` (Unix seconds) and returns what must be done about it: `Effects`, the
releases and refusals in order. It never waits, calls back or reads a clock.

What holds after every event:

- A held request ends exactly once: released, refused or cancelled. `Effects` names it once.
- In hard mode (containerConcurrency > 0) a pod never has more releases in flight than that.
- First come, first served, by the time Envoy received the request; a request that is asked again (the agent
  was lost, the chosen pod refused the connection) keeps its place and its deadline.
- While a request waits, no open pod has a free slot.

A slot is taken by a release and freed when the access log reports the request's end. In soft mode
(containerConcurrency 0) the slot is only a pace against connection storms: it frees itself after
`PACE_SECONDS`, because WebSockets and long streams would otherwise block those behind them; the ledger still
counts the request until its end, for drains.

Ends can get lost only when the access-log stream breaks or the agent dies. Releases from before such a break
are doubtful: they expire timeoutSeconds after their release, or earlier by `reconcile`. Releases without doubt
never expire, since a response that has started may run longer than timeoutSeconds.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from random import Random

import msgspec

from serving.activator.balance import PodSlots, choice_for
from serving.activator.holds import NOTHING, Effects, Hold, Refusal, Refused, Release, Slots
from serving.activator.model import RevisionConfig

PACE_SECONDS = 0.25
"""How long a release in soft mode counts against the pace of its pod."""

DEADLINE_MARGIN_SECONDS = 0.1
"""A held request is refused this much before its deadline, so that our text arrives before Envoy's time-out."""

REHOLD_SECONDS = 10.0
"""How long the start of a request whose release could not connect is remembered for its next hold."""

SETTLE_SECONDS = 5.0
"""`reconcile_pod` leaves releases alone that are younger: a load sample may be older than they are."""


class Throttle:
    """State of one revision. `ids` gives release ids, never the same twice in the life of a ledger."""

    def __init__(self, config: RevisionConfig, *, random: Random, ids: Iterable[int]) -> None:
        self._config = config
        self._random = random
        self._ids = iter(ids)
        self._choose = choice_for(config.container_concurrency, random=random)
        self._pods: dict[str, PodSlots] = {}
        self._order: list[PodSlots] = []
        self._waiting: dict[str, Hold] = {}
        self._queue: list[tuple[float, int, Hold]] = []
        self._sequence = 0
        self._ledger: dict[int, Release] = {}
        self._by_hold: dict[str, int] = {}
        self._by_pod: dict[str, int] = {}
        self._paced: deque[int] = deque()
        self._pacing: set[int] = set()
        self._reheld: dict[str, tuple[float, float]] = {}
        self._epoch = 0
        self._ended: list[int] = []

    # What it knows

    @property
    def config(self) -> RevisionConfig:
        return self._config

    @property
    def held(self) -> int:
        return len(self._waiting)

    @property
    def ledger(self) -> dict[int, Release]:
        """Releases not yet reported finished, oldest first. Read only."""
        return self._ledger

    def in_flight(self, pod: str) -> int:
        """Releases to the pod that are not yet reported finished, whether they pace or not."""
        return self._by_pod.get(pod, 0)

    def taken(self, pod: str) -> int:
        """Slots of the pod in use. 0 for an unknown pod."""
        slots = self._pods.get(pod)
        return slots.taken if slots else 0

    def is_waiting(self, hold_id: str) -> bool:
        return hold_id in self._waiting

    def has_open_pod(self) -> bool:
        return any(pod.open for pod in self._order)

    def next_wakeup(self) -> float | None:
        """When `tick` has something to do unless another event comes first. None while nothing waits."""
        self._drop_ended()
        if not self._queue:
            return None
        times = [self._deadline(self._queue[0][2])]
        if self._pacing:
            times.append(self._ledger[self._first_paced()].at + PACE_SECONDS)
        oldest = next(iter(self._ledger.values()), None)
        if oldest is not None and oldest.epoch < self._epoch:
            times.append(oldest.at + self._config.timeout_seconds)
        return min(times)

    # Events

    def hold(self, hold: Hold, now: float) -> Effects:
        """A request asks to be let through. Asked again while it waits, it keeps its place; asked again after
        its release, the answer was lost and its slot is freed first."""
        if hold.id in self._waiting:
            return NOTHING
        lost = self._by_hold.get(hold.id)
        if lost is not None:
            self._end(lost)
        before = self._reheld.pop(hold.request_id, None) if self._reheld else None
        if before is not None and now - before[1] < REHOLD_SECONDS:
            hold = msgspec.structs.replace(hold, started=min(hold.started, before[0]))
        if self._deadline(hold) <= now:
            return self._effects((), (Refusal(hold=hold, reason=Refused.TIMEOUT),))
        self._age(now)
        if len(self._waiting) >= self._config.queue_depth and not self._slot_for_newcomer():
            return self._effects((), (Refusal(hold=hold, reason=Refused.QUEUE_FULL),))
        self._sequence += 1
        self._waiting[hold.id] = hold
        heapq.heappush(self._queue, (hold.started, self._sequence, hold))
        return self._advance(now)

    def cancel(self, hold_id: str, now: float) -> Effects:
        """The client went away. Frees the place in the queue, or the slot when the release was not sent."""
        if self._waiting.pop(hold_id, None) is None:
            release = self._by_hold.get(hold_id)
            if release is None:
                return NOTHING
            self._end(release)
        return self._advance(now)

    def finished(self, release_id: int, now: float, *, connect_failed: bool = False) -> Effects:
        """The access log reported the end of a released request. Unknown ids (expired, reported twice) are
        nothing. `connect_failed`: it never reached the pod and will be held again, with its first start."""
        release = self._end(release_id)
        if release is None:
            return NOTHING
        if connect_failed and release.hold.request_id:
            self._remember(release.hold, now)
        return self._advance(now)

    def set_pods(self, pods: Sequence[Slots], now: float) -> Effects:
        """All pods of the revision. Releases to a pod that is gone are dropped: it cannot be busy any more."""
        limit = self._config.slots_per_pod
        known = self._pods
        self._pods = {}
        for pod in pods:
            slots = known.get(pod.uid)
            if slots is None:
                slots = PodSlots(uid=pod.uid, address=pod.address, limit=limit)
                slots.taken = self._by_pod.get(pod.uid, 0) if self._config.container_concurrency else 0
            slots.address, slots.open = pod.address, pod.open
            self._pods[pod.uid] = slots
        for release in [r for r in self._ledger.values() if r.pod not in self._pods]:
            self._end(release.id)
        self._reorder()
        return self._advance(now)

    def set_open(self, uid: str, is_open: bool, now: float) -> Effects:
        """A known pod answered its probe, or is no longer trusted."""
        slots = self._pods.get(uid)
        if slots is None or slots.open == is_open:
            return NOTHING
        slots.open = is_open
        self._reorder()
        return self._advance(now)

    def configure(self, config: RevisionConfig, now: float) -> Effects:
        """New configuration of the same revision; those who wait keep their places."""
        if config == self._config:
            return NOTHING
        if config.container_concurrency != self._config.container_concurrency:
            self._choose = choice_for(config.container_concurrency, random=self._random)
            self._repace(config)
        self._config = config
        for slots in self._pods.values():
            slots.limit = config.slots_per_pod
        return self._advance(now)

    def restore(self, releases: Iterable[Release]) -> None:
        """Ledger of an earlier life of the agent, oldest first, before anything else happens. All of it is
        doubtful and, in soft mode, too old to pace."""
        hard = self._config.container_concurrency > 0
        for release in releases:
            self._enter(release, paces=hard)
        self._epoch += 1

    def doubt(self) -> None:
        """An access-log stream broke: ends of releases until now may be lost."""
        self._epoch += 1

    def reconcile(self, in_progress: int, at: float, now: float) -> Effects:
        """Correct lost ends with a load report: `in_progress` requests of this revision were inside Envoy's
        activator listener at time `at`, held and released together. `at` must not be later than the sample.

        What was held then is known (who waits now or was released since, and came before `at`), and so is
        what runs without doubt. The rest is the most that can run of the releases in doubt; the oldest beyond
        that are over. After timeoutSeconds any release is in doubt: entries can be dropped by Envoy too.
        Others are not: load reports forget running requests when their cluster changes.
        """
        known = sum(1 for hold in self._waiting.values() if hold.arrived <= at)
        doubtful: list[int] = []
        for release in self._ledger.values():
            if self._in_doubt(release, now):
                if release.at <= at:
                    doubtful.append(release.id)
            elif release.hold.arrived <= at:
                known += 1
        self._drop_oldest(doubtful, running=in_progress - known)
        return self._advance(now)

    def reconcile_pod(self, pod: str, in_progress: int, now: float) -> Effects:
        """As `reconcile`, from a source that knows how many requests are running on one pod."""
        old = [
            release.id
            for release in self._ledger.values()
            if release.pod == pod and self._in_doubt(release, now) and release.at <= now - SETTLE_SECONDS
        ]
        others = self._by_pod.get(pod, 0) - len(old)
        self._drop_oldest(old, running=in_progress - min(others, in_progress))
        return self._advance(now)

    def tick(self, now: float) -> Effects:
        """Time passed: refuse who waited too long, expire doubtful releases, move the pace on."""
        return self._advance(now)

    def close(self) -> Effects:
        """The revision is gone: everyone who waits is refused, the ledger is dropped."""
        refusals = tuple(Refusal(hold=hold, reason=Refused.GONE) for hold in self._waiting.values())
        self._waiting.clear()
        self._queue.clear()
        for release_id in list(self._ledger):
            self._end(release_id)
        return self._effects((), refusals)

    # Inside

    def _effects(self, releases: Sequence[Release], refusals: Sequence[Refusal]) -> Effects:
        if not releases and not refusals and not self._ended:
            return NOTHING
        ended, self._ended = self._ended, []
        return Effects(releases, refusals, ended)

    def _deadline(self, hold: Hold) -> float:
        limit = self._config.hold_seconds
        return hold.started + limit - min(DEADLINE_MARGIN_SECONDS, limit / 10)

    def _slot_for_newcomer(self) -> bool:
        return not self._waiting and any(pod.free for pod in self._order)

    def _advance(self, now: float) -> Effects:
        self._age(now)
        self._expire_doubtful(now)
        refusals = self._expire(now)
        releases: list[Release] = []
        while self._waiting:
            pod = self._choose(self._order)
            if pod is None:
                break
            self._drop_ended()
            hold = heapq.heappop(self._queue)[2]
            del self._waiting[hold.id]
            releases.append(self._release(hold, pod, now))
        return self._effects(releases, refusals)

    def _release(self, hold: Hold, pod: PodSlots, now: float) -> Release:
        release = Release(
            id=next(self._ids), hold=hold, pod=pod.uid, address=pod.address, at=now, epoch=self._epoch
        )
        self._enter(release, paces=True)
        pod.taken += 1
        return release

    def _enter(self, release: Release, *, paces: bool) -> None:
        """Into the ledger and its indexes; `taken` is the caller's, or `set_pods`' for a restored one."""
        self._ledger[release.id] = release
        self._by_hold[release.hold.id] = release.id
        self._by_pod[release.pod] = self._by_pod.get(release.pod, 0) + 1
        if paces and self._config.container_concurrency == 0:
            self._paced.append(release.id)
            self._pacing.add(release.id)

    def _end(self, release_id: int) -> Release | None:
        release = self._ledger.pop(release_id, None)
        if release is None:
            return None
        self._ended.append(release_id)
        if self._by_hold.get(release.hold.id) == release_id:
            del self._by_hold[release.hold.id]
        left = self._by_pod[release.pod] - 1
        if left:
            self._by_pod[release.pod] = left
        else:
            del self._by_pod[release.pod]
        if self._config.container_concurrency or release_id in self._pacing:
            self._free(release.pod)
        self._pacing.discard(release_id)
        return release

    def _free(self, pod: str) -> None:
        slots = self._pods.get(pod)
        if slots is not None:
            slots.taken -= 1

    def _expire(self, now: float) -> list[Refusal]:
        """Those whose deadline has come. Queue order is deadline order: all share one time-out."""
        refusals: list[Refusal] = []
        self._drop_ended()
        while self._queue and self._deadline(self._queue[0][2]) <= now:
            hold = heapq.heappop(self._queue)[2]
            del self._waiting[hold.id]
            refusals.append(Refusal(hold=hold, reason=Refused.TIMEOUT))
            self._drop_ended()
        return refusals

    def _drop_ended(self) -> None:
        """Cancelled requests leave the heap when they reach its top."""
        queue, waiting = self._queue, self._waiting
        while queue and waiting.get(queue[0][2].id) is not queue[0][2]:
            heapq.heappop(queue)

    def _first_paced(self) -> int:
        while self._paced[0] not in self._pacing:
            self._paced.popleft()
        return self._paced[0]

    def _age(self, now: float) -> None:
        while self._pacing and self._ledger[first := self._first_paced()].at + PACE_SECONDS <= now:
            self._pacing.discard(first)
            self._free(self._ledger[first].pod)
        if not self._pacing:
            self._paced.clear()

    def _expire_doubtful(self, now: float) -> None:
        """The ledger is ordered by time, so the doubtful ones come first and expire in order."""
        limit = self._config.timeout_seconds
        over: list[int] = []
        for release in self._ledger.values():
            if release.epoch >= self._epoch or release.at + limit > now:
                break
            over.append(release.id)
        for release_id in over:
            self._end(release_id)

    def _in_doubt(self, release: Release, now: float) -> bool:
        return release.epoch < self._epoch or release.at + self._config.timeout_seconds <= now

    def _drop_oldest(self, release_ids: Sequence[int], *, running: int) -> None:
        excess = len(release_ids) - max(0, running)
        for release_id in release_ids[: max(0, excess)]:
            self._end(release_id)

    def _remember(self, hold: Hold, now: float) -> None:
        known = self._reheld
        known.pop(hold.request_id, None)
        while known and now - next(iter(known.values()))[1] >= REHOLD_SECONDS:
            del known[next(iter(known))]
        known[hold.request_id] = (hold.started, now)

    def _repace(self, config: RevisionConfig) -> None:
        """Between soft and hard the meaning of a taken slot changes: count anew."""
        self._paced.clear()
        self._pacing.clear()
        for slots in self._pods.values():
            slots.taken = self._by_pod.get(slots.uid, 0) if config.container_concurrency else 0

    def _reorder(self) -> None:
        self._order = sorted((pod for pod in self._pods.values() if pod.open), key=lambda pod: pod.address)
