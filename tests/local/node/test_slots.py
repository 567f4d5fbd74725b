"""Slots for starts: bounded, by priority, and none is lost to a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from serving.local.node.slots import CREATE_SANDBOX, START_CONTAINER, StartSlots


async def test_starts_go_before_creates_in_order_of_arrival() -> None:
    slots, order = StartSlots(1), list[str]()

    async def one(name: str, priority: int) -> None:
        async with slots.hold(priority):
            order.append(name)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for name in ("c1", "c2", "s1", "c3", "s2"):
            group.create_task(one(name, START_CONTAINER if name[0] == "s" else CREATE_SANDBOX))
    assert order == ["c1", "s1", "s2", "c2", "c3"]


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancelled_waiter_loses_no_slot(turns: int) -> None:
    slots = StartSlots(1)
    release = asyncio.Event()

    async def holder() -> None:
        async with slots.hold(0):
            await release.wait()

    async def waiter() -> None:
        async with slots.hold(0):
            pass

    first = asyncio.create_task(holder())
    await asyncio.sleep(0)
    second = asyncio.create_task(waiter())
    await asyncio.sleep(0)
    release.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    await asyncio.wait_for(waiter(), 1)


def test_size() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        StartSlots(0)
