"""Per-key serial work with back-off: the heart of every reconciler.

A key is worked on by one task at a time; adding it while it is worked on makes it run once more afterwards;
adding it twice makes it run once. Tasks exist only while there is work, so an idle key costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from serving.kube.errors import Conflict, KubeError

log = logging.getLogger(__name__)

Handler = Callable[[str], Awaitable[float | None]]
"""Reconcile one key; returns seconds until it wants to run again, or None."""

_BACKOFF_FIRST_SECONDS = 0.01
_BACKOFF_CAP_SECONDS = 30.0


class WorkQueue:
    """Runs `handler` for added keys, at most `concurrency` at once. Call `run` in a TaskGroup."""

    def __init__(self, name: str, handler: Handler, *, concurrency: int = 64) -> None:
        self._name = name
        self._handler = handler
        self._slots = asyncio.Semaphore(concurrency)
        self._dirty: set[str] = set()
        self._running: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._group: asyncio.TaskGroup | None = None

    def add(self, key: str) -> None:
        """Reconcile this key soon."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._dirty.add(key)
        self._start(key)

    def add_after(self, key: str, delay: float) -> None:
        """Reconcile this key in `delay` seconds, unless an earlier run is already due."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        when = loop.time() + delay
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self.add, key)

    async def run(self) -> None:
        """Work until cancelled. Keys added before are started now."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for key in list(self._dirty):
                    self._start(key)
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self._group = None  # a group that is ending takes no more tasks; the key stays dirty
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _start(self, key: str) -> None:
        if self._group is not None and key not in self._running:
            self._running.add(key)
            self._group.create_task(self._work(key), name=f"{self._name} {key}")

    async def _work(self, key: str) -> None:
        try:
            while key in self._dirty:
                async with self._slots:
                    self._dirty.discard(key)
                    await self._once(key)
        finally:
            self._running.discard(key)

    async def _once(self, key: str) -> None:
        try:
            again = await self._handler(key)
        except Exception as raised:
            error = _single(raised)
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(_BACKOFF_FIRST_SECONDS * 2 ** min(failures, 20), _BACKOFF_CAP_SECONDS)
            if isinstance(error, KubeError):
                delay = max(delay, error.retry_after_seconds or 0.0)
            if isinstance(error, Conflict):
                log.debug("%s %s: %s", self._name, key, error)
            elif isinstance(error, KubeError):
                log.warning("%s %s: %s; again in %.2f s", self._name, key, error, delay)
            else:
                log.exception("%s %s failed; again in %.2f s", self._name, key, delay)
            self.add_after(key, delay)
            return
        self._failures.pop(key, None)
        if again is not None:
            self.add_after(key, again)


def _single(error: Exception) -> Exception:
    """The cause of a TaskGroup's failure when there is only one kind to report."""
    if isinstance(error, ExceptionGroup):
        leaves = [_single(leaf) for leaf in error.exceptions]
        if all(isinstance(leaf, KubeError) for leaf in leaves):
            return leaves[0]
    return error
