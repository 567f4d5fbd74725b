"""How much may be started at the same time, and who goes first.

Starting is bound by the machine's cores, so a fixed number goes on at once. A pod that has its sandbox goes before
one that has none: in a burst the first pods serve while the last still wait.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

START_CONTAINER: Final = 0
CREATE_SANDBOX: Final = 1


class StartSlots:
    """A semaphore with priorities: lower first, within one first come first served."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"concurrent starts must be at least 1, not {size}")
        self._free = size
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @asynccontextmanager
    async def hold(self, priority: int) -> AsyncIterator[None]:
        """One slot for the length of the block."""
        await self._acquire(priority)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, priority: int) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # it was handed a slot in the turn of the loop that cancelled it
            raise

    def _release(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
