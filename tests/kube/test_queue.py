"""The work queue on virtual time: one worker per key, nothing lost, back-off."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from serving.kube.errors import TooManyRequests, Unreachable
from serving.kube.queue import WorkQueue

pytestmark = pytest.mark.looptime


class Recorder:
    def __init__(self) -> None:
        self.runs: list[tuple[str, float]] = []
        self.active = 0
        self.most_active = 0
        self.failing = 0
        self.delay = 0.0
        self.again: float | None = None

    async def handle(self, key: str) -> float | None:
        self.runs.append((key, asyncio.get_running_loop().time()))
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.active -= 1
        if self.failing:
            self.failing -= 1
            raise Unreachable("down")
        return self.again


async def run_for(queue: WorkQueue, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await queue.run()


async def test_adding_twice_before_the_start_runs_once() -> None:
    recorder = Recorder()
    queue = WorkQueue("test", recorder.handle)
    queue.add("a")
    queue.add("a")
    await run_for(queue, 1)
    assert [key for key, _ in recorder.runs] == ["a"]


async def test_a_key_added_while_worked_on_runs_once_more_and_never_in_parallel() -> None:
    recorder = Recorder()
    recorder.delay = 1.0
    queue = WorkQueue("test", recorder.handle)
    queue.add("a")
    loop = asyncio.get_running_loop()
    for when in (0.2, 0.4, 0.6):
        loop.call_later(when, queue.add, "a")
    await run_for(queue, 10)
    assert len(recorder.runs) == 2
    assert recorder.most_active == 1


async def test_different_keys_run_in_parallel_up_to_the_limit() -> None:
    recorder = Recorder()
    recorder.delay = 1.0
    queue = WorkQueue("test", recorder.handle, concurrency=3)
    for number in range(7):
        queue.add(str(number))
    await run_for(queue, 10)
    assert recorder.most_active == 3
    assert {key for key, _ in recorder.runs} == {str(number) for number in range(7)}


async def test_failures_back_off_and_success_forgets_them() -> None:
    recorder = Recorder()
    recorder.failing = 5
    queue = WorkQueue("test", recorder.handle)
    queue.add("a")
    await run_for(queue, 60)
    times = [time for _, time in recorder.runs]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(times) == 6
    assert gaps == sorted(gaps)
    assert gaps[0] == pytest.approx(0.02)
    assert gaps[-1] == pytest.approx(0.32)


async def test_a_server_that_asks_for_patience_gets_it() -> None:
    times: list[float] = []

    async def handle(key: str) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise TooManyRequests(429, {"details": {"retryAfterSeconds": 7}})

    queue = WorkQueue("test", handle)
    queue.add("a")
    await run_for(queue, 20)
    assert times == pytest.approx([0.0, 7.0], abs=0.01)


async def test_a_key_added_while_the_queue_ends_harms_nobody() -> None:
    async def handle(key: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            queue.add("b")

    queue = WorkQueue("test", handle)
    queue.add("a")
    await run_for(queue, 1)


async def test_a_handler_that_wants_to_run_again_does() -> None:
    recorder = Recorder()
    recorder.again = 5.0
    queue = WorkQueue("test", recorder.handle)
    queue.add("a")
    await run_for(queue, 16)
    assert [time for _, time in recorder.runs] == pytest.approx([0.0, 5.0, 10.0, 15.0], abs=0.01)


async def test_add_beats_a_later_timer() -> None:
    recorder = Recorder()
    queue = WorkQueue("test", recorder.handle)
    queue.add_after("a", 30)
    queue.add_after("a", 10)
    asyncio.get_running_loop().call_later(2, queue.add, "a")
    await run_for(queue, 60)
    assert [time for _, time in recorder.runs] == pytest.approx([2.0], abs=0.01)
