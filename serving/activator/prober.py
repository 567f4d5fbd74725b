"""Probes pods until they answer. Shell around `probe_schedule` and `probes`.

One task for each pod that is being probed; it ends with the first success (of `success_threshold` in a row) or
when the pod is no longer wanted. Idle services have none. At most `limit` probes are under way at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from serving.activator.probe_schedule import ProbeTarget, attempt_timeout, next_delay
from serving.activator.probes import Outcome, probe

LIMIT = 64


class _Watched:
    """One pod being probed. `hurry` wakes it from a long delay when somebody starts to wait."""

    __slots__ = ("hurry", "key", "target", "task", "uid")

    def __init__(self, *, uid: str, key: str, target: ProbeTarget) -> None:
        self.uid = uid
        self.key = key
        self.target = target
        self.hurry = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Prober:
    """`told(key, uid, answered)` is called in the loop for every outcome of a probe, `key` being the pod's
    revision. `waited_for(key)` tells whether requests are held."""

    def __init__(
        self,
        *,
        told: Callable[[str, str, bool], None],
        waited_for: Callable[[str], bool],
        limit: int = LIMIT,
    ) -> None:
        self._told = told
        self._waited_for = waited_for
        self._watched: dict[str, _Watched] = {}
        self._limit = asyncio.Semaphore(limit)
        self._group: asyncio.TaskGroup | None = None

    @property
    def probing(self) -> frozenset[str]:
        """Uids of pods being probed."""
        return frozenset(self._watched)

    async def run(self) -> None:
        """Probe until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                for watched in list(self._watched.values()):
                    self._start(watched)
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None
                for watched in self._watched.values():
                    if watched.task is not None:
                        watched.task.cancel()

    def want(self, *, uid: str, key: str, target: ProbeTarget) -> None:
        """Probe this pod from now on. Wanted again with the same target is nothing."""
        watched = self._watched.get(uid)
        if watched is not None:
            if watched.target == target:
                return
            self.drop(uid)
        watched = self._watched[uid] = _Watched(uid=uid, key=key, target=target)
        if self._group is not None:
            self._start(watched)

    def drop(self, uid: str) -> None:
        """Stop probing this pod. Unknown is nothing."""
        watched = self._watched.pop(uid, None)
        if watched is not None and watched.task is not None:
            watched.task.cancel()

    def hurry(self, uid: str) -> None:
        """Somebody waits for this pod now: probe it at once, and often from here on."""
        watched = self._watched.get(uid)
        if watched is not None:
            watched.hurry.set()

    def _start(self, watched: _Watched) -> None:
        if self._group is not None:
            watched.task = self._group.create_task(self._watch(watched), name=f"probe {watched.target.host}")

    async def _watch(self, watched: _Watched) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        attempt = unanswered = successes = 0
        while True:
            outcome = await self._try(watched, unanswered=unanswered, successes=successes)
            unanswered = unanswered + 1 if outcome is Outcome.SILENT else 0
            successes = successes + 1 if outcome is Outcome.ANSWERED else 0
            if successes >= watched.target.success_threshold:
                return
            attempt = 0 if successes else attempt + 1
            if watched.hurry.is_set():
                watched.hurry.clear()
                attempt, began = 1, loop.time()
            delay = next_delay(
                attempt=max(1, attempt),
                elapsed=loop.time() - began,
                waited_for=self._waited_for(watched.key),
                probing=len(self._watched),
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await watched.hurry.wait()

    async def _try(self, watched: _Watched, *, unanswered: int, successes: int) -> Outcome:
        outcome = Outcome.SILENT

        def heard(result: Outcome) -> None:
            nonlocal outcome
            outcome = result
            answered = result is Outcome.ANSWERED
            if answered and successes + 1 < watched.target.success_threshold:
                return
            # Whoever is told may drop or want the pod again, so it is forgotten first.
            if self._watched.get(watched.uid) is watched:
                if answered:
                    del self._watched[watched.uid]
                self._told(watched.key, watched.uid, answered)

        async with self._limit:
            within = attempt_timeout(watched.target, unanswered=unanswered)
            await probe(watched.target, within=within, told=heard)
        return outcome
