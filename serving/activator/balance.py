"""Which pod gets the next released request. Pure.

The policies are those of Knative's activator, so that a pod sees the same pattern of load:

| containerConcurrency | policy | why |
|---|---|---|
| 0 (soft) | random choice of two, the one with less in flight | spreads without a scan, no herd on one pod |
| 1 to 3 | first with a free slot, in order of address | fills pods one by one, so that spare ones become idle |
| above 3 | round robin over pods with a free slot | spreads load evenly where a pod takes several |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

FIRST_AVAILABLE_UP_TO = 3
"""Largest containerConcurrency for which pods are filled one by one."""


class PodSlots:
    """Slots of one pod. Mutable and tiny: there is one for each pod and a release touches it once.

    `taken` counts slots in use, `limit` how many there are. Over the limit is possible only after the limit
    was lowered or a ledger restored: it then frees none until `taken` falls below.
    """

    __slots__ = ("address", "limit", "open", "taken", "uid")

    def __init__(self, *, uid: str, address: str, limit: int) -> None:
        self.uid = uid
        self.address = address
        self.limit = limit
        self.taken = 0
        self.open = False
        """Whether new requests may go to it: it answered a probe, is not draining and not terminating."""

    @property
    def free(self) -> bool:
        return self.open and self.taken < self.limit


Choice: TypeAlias = Callable[[Sequence[PodSlots]], PodSlots | None]
"""Picks a pod with a free slot from pods sorted by address, or None when no pod has one."""


def first_available(pods: Sequence[PodSlots]) -> PodSlots | None:
    return next((pod for pod in pods if pod.free), None)


class RoundRobin:
    """Goes on after the pod it gave last. Pods may come and go between two calls."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, pods: Sequence[PodSlots]) -> PodSlots | None:
        after = (pod for pod in pods if pod.free and pod.address > self._last)
        chosen = next(after, None) or first_available(pods)
        if chosen is not None:
            self._last = chosen.address
        return chosen


class RandomOfTwo:
    """Two at random, the one with less in flight. With at most two pods it is simply the less loaded one."""

    __slots__ = ("_random",)

    def __init__(self, random: Random) -> None:
        self._random = random

    def __call__(self, pods: Sequence[PodSlots]) -> PodSlots | None:
        if len(pods) == 1:
            return pods[0] if pods[0].free else None
        free = [pod for pod in pods if pod.free]
        if len(free) > 2:
            free = self._random.sample(free, 2)
        elif len(free) == 2 and self._random.random() < 0.5:
            free.reverse()
        return min(free, key=_taken, default=None)


def _taken(pod: PodSlots) -> int:
    return pod.taken


def choice_for(container_concurrency: int, *, random: Random) -> Choice:
    """The policy for a revision. `random` makes the choice repeatable in tests."""
    if container_concurrency == 0:
        return RandomOfTwo(random)
    if container_concurrency <= FIRST_AVAILABLE_UP_TO:
        return first_available
    return RoundRobin()
