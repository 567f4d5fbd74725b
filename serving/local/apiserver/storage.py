"""State and journal together: the only place where objects change."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from pathlib import Path

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import StatusError, internal
from serving.local.apiserver.journal import Journal
from serving.local.apiserver.state import Entry, Event, Key, Listener, Staged, State


class Storage:
    """Lives in one event loop. `write` returns when the change is durable and visible."""

    def __init__(self, state: State, journal: Journal) -> None:
        self.state = state
        self._journal = journal
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._wakers: dict[str, set[Callable[[], None]]] = {}
        state.listen(self._wake)

    @classmethod
    async def open(cls, path: Path, *, history: int = 1024) -> Storage:
        """Raises StateError when the file cannot be used."""
        journal = await asyncio.to_thread(Journal.open, path)
        storage = cls.over(State(journal.loaded, revision=journal.loaded_revision, history=history), journal)
        journal.loaded = []
        return storage

    @classmethod
    def over(cls, state: State, journal: Journal) -> Storage:
        """On an open journal; starts its thread."""
        storage = cls(state, journal)
        loop = asyncio.get_running_loop()

        def on_done(count: int, error: BaseException | None) -> None:
            loop.call_soon_threadsafe(storage._done, count, error)

        journal.start(on_done)
        return storage

    async def close(self) -> None:
        """Flush; later writes fail."""
        await asyncio.to_thread(self._journal.close)

    async def write(self, key: Key, obj: JsonObject | None, *, expected: Entry | None) -> Entry:
        """Store (or delete, `obj` None) and return the new version; for a deletion the last state with the new
        revision. Raises Stale when `expected` is no longer the head, StatusError 500 when the disk refuses."""
        staged = self.state.stage(key, obj, expected=expected)
        await self._durable(staged)
        return staged.event.entry

    async def settled(self) -> None:
        """Wait until everything that was staged before is durable."""
        if self._waiting:
            await asyncio.shield(self._waiting[-1])

    async def _durable(self, staged: Staged) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_retrieve)
        self._waiting.append(done)
        self._journal.append(staged)
        await asyncio.shield(done)

    def _done(self, count: int, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        self.state.publish(count)
        for _ in range(count):
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def _fail(self, error: BaseException) -> None:
        # Changes that the writer already took after the failed batch carry revisions that are void now.
        self.state.discard()
        self._journal.resume()
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(_disk_error(error))

    # Watching.

    def _wake(self, event: Event) -> None:
        for waker in tuple(self._wakers.get(event.entry.key.storage, ())):
            waker()

    def subscribe(self, storage: str, waker: Callable[[], None]) -> None:
        """`waker` is called after each published change of that storage."""
        self._wakers.setdefault(storage, set()).add(waker)

    def unsubscribe(self, storage: str, waker: Callable[[], None]) -> None:
        self._wakers.get(storage, set()).discard(waker)

    def listen(self, listener: Listener) -> None:
        self.state.listen(listener)


def _retrieve(future: asyncio.Future[None]) -> None:
    """A writer that was cancelled meanwhile is not there to see the failure."""
    if not future.cancelled():
        future.exception()


def _disk_error(error: BaseException) -> StatusError:
    if isinstance(error, sqlite3.Error):
        return internal(f"the state database refused the write: {error}")
    return internal(str(error))
