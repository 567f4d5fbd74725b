"""Work that is done once and waited for by several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
"""Starts a task that belongs to a pod: (coroutine, what it does)."""


class Once(Generic[T]):
    """A result under way. A waiter that is cancelled does not cancel the work."""

    def __init__(self, work: Coroutine[Any, Any, T], *, spawn: Spawn, name: str) -> None:
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._future.add_done_callback(_retrieve)
        task = spawn(self._run(work), name)
        task.add_done_callback(lambda _: self._ended(work))

    @classmethod
    def done(cls, value: T) -> Once[T]:
        """A result that is there already."""
        self = cls.__new__(cls)
        self._future = asyncio.get_running_loop().create_future()
        self._future.set_result(value)
        return self

    @property
    def failed(self) -> bool:
        return self._future.done() and (self._future.cancelled() or self._future.exception() is not None)

    def result(self) -> T | None:
        """The result if there is one by now."""
        return self._future.result() if self._future.done() and not self.failed else None

    async def wait(self) -> T:
        """The result; raises what the work raised."""
        return await asyncio.shield(self._future)

    def _ended(self, work: Coroutine[Any, Any, T]) -> None:
        """Also when the task was cancelled before its first step."""
        work.close()
        if not self._future.done():
            self._future.cancel()

    async def _run(self, work: Coroutine[Any, Any, T]) -> None:
        try:
            value = await work
        except asyncio.CancelledError:
            self._future.cancel()
            raise
        except Exception as error:
            self._future.set_exception(error)
        else:
            self._future.set_result(value)


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
