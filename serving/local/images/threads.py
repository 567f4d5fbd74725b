"""Blocking work beside the event loop, such that nothing runs on after its caller has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from threading import Event
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run(executor: Executor | None, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a thread (`None`: the loop's own pool). A cancelled caller still waits for the thread's end, because
    locks that it holds protect what the thread does."""
    return await _finish(asyncio.get_running_loop().run_in_executor(executor, partial(function, *args, **kwargs)))


async def run_stoppable(executor: Executor, function: Callable[[Event], T]) -> T:
    """The same for long work: cancelling sets the event, and the function gives up soon."""
    stop = Event()
    future = asyncio.get_running_loop().run_in_executor(executor, function, stop)
    return await _finish(future, stop)


async def _finish(future: asyncio.Future[T], stop: Event | None = None) -> T:
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if stop is not None:
            stop.set()
        if not future.cancel():  # it had not begun
            await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # seen: the caller has gone
        raise
