"""Many services at zero, woken at once: when the last first byte arrives.

    python -m loadtests.wake_many [--services 40] [--rounds 5] [--image hello-static]

All requests are sent in the same moment over connections that are open already. Each row of the first table is a
round; the second shows the stages of all requests of the last round.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

from loadtests.common import (
    CONSOLE,
    Answer,
    Stack,
    connect,
    new_table,
    parser_of,
    percentile,
    stack,
    times_row,
    times_table,
)
from serving.cli.connect import run_until_signal

_PROCESSES = ("apiserver", "controller", "gateway", "node", "envoy")
_STAGES = ("queue", "decide", "create", "schedule", "boot", "image", "app", "probe", "release")


async def wake(up: Stack, names: list[str]) -> tuple[list[Answer], float, dict[str, float]]:
    """The answers, the seconds from the first request sent to the last first byte, and the CPU seconds of our
    processes until then (shims of pods that were spare before count with the pods, not here)."""
    await up.at_zero(*names)
    before = up.cpu_seconds()
    async with AsyncExitStack() as opened:
        connections = [await opened.enter_async_context(connect(up.port)) for _ in names]
        begun = time.time()
        answers = await asyncio.gather(
            *(one.get(up.host(name), timing=True) for one, name in zip(connections, names, strict=True))
        )
    after = up.cpu_seconds()
    used = {process: after[process] - before.get(process, 0.0) for process in _PROCESSES}
    return list(answers), max(answer.first_byte_at for answer in answers) - begun, used


async def bench(image: str, count: int, rounds: int) -> None:
    names = [f"hello-{number}" for number in range(count)]
    async with stack() as up:
        await up.build(image)
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(up.deploy(name, image))
        title = f"{count} services ({image}) at once, {up.state.sandbox} sandbox; CPU in ms per service"
        table = new_table(title, "round", "200", "p50 s", "p95 s", "last first byte s", *_PROCESSES, "goal")
        last: list[Answer] = []
        for number in range(rounds):
            last, taken, used = await wake(up, names)
            seconds = [answer.seconds for answer in last]
            good = sum(answer.status == 200 for answer in last)
            cells = [f"{value:.2f}" for value in (percentile(seconds, 50), percentile(seconds, 95), taken)]
            cpu = [f"{used[process] / count * 1000:.1f}" for process in _PROCESSES]
            table.add_row(str(number + 1), f"{good}/{count}", *cells, *cpu, "≤ 2 s")
        CONSOLE.print(table)
    stages = times_table("Stages of the last round")
    for stage in _STAGES:
        times_row(stages, stage, [answer.stages().get(stage, 0.0) for answer in last])
    CONSOLE.print(stages)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--services", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image", default="hello-static")
    options = parser.parse_args()
    run_until_signal(bench(options.image, options.services, options.rounds))


if __name__ == "__main__":
    main()
