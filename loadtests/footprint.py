"""Memory and CPU of all our processes and Envoy while nothing happens.

    python -m loadtests.footprint [--services 10] [--seconds 60] [--settle 20]

The Services are woken once, go back to zero, and the stack is left alone for `--settle` seconds. Memory is PSS
(shared pages are divided among those who share them) at the end, CPU the share of one core over `--seconds`.
Pods do not count; there are none.
"""

from __future__ import annotations

import asyncio
import time

from loadtests.common import CONSOLE, Stack, connect, new_table, parser_of, stack
from serving.cli.connect import run_until_signal


async def prepare(up: Stack, services: int) -> None:
    await up.build("hello-static")
    names = [f"hello-{number}" for number in range(services)]
    for name in names:
        await up.deploy(name, "hello-static")
        async with connect(up.port) as connection:
            answer = await connection.get(up.host(name))
            if answer.status != 200:
                raise SystemExit(f"{name}: status {answer.status}")
    await up.at_zero(*names)


async def bench(services: int, settle: float, seconds: float) -> None:
    async with stack() as up:
        if services:
            await prepare(up, services)
        await asyncio.sleep(settle)
        before, begun = up.cpu_seconds(), time.monotonic()
        await asyncio.sleep(seconds)
        after, taken = up.cpu_seconds(), time.monotonic() - begun
        title = f"Idle with {services} services at zero, {seconds:g} s"
        table = new_table(title, "process", "n", "PSS MB", "USS MB", "CPU % of a core")
        totals = [0.0, 0.0, 0.0]
        for name, processes in up.processes().items():
            memory = [process.memory_full_info() for process in processes]
            row = [
                sum(one.pss for one in memory) / 1e6,
                sum(one.uss for one in memory) / 1e6,
                (after[name] - before.get(name, 0.0)) / taken * 100,
            ]
            totals = [total + value for total, value in zip(totals, row, strict=True)]
            table.add_row(name, str(len(processes)), f"{row[0]:.1f}", f"{row[1]:.1f}", f"{row[2]:.2f}")
        table.add_section()
        table.add_row("all", "", f"{totals[0]:.1f}", f"{totals[1]:.1f}", f"{totals[2]:.2f}")
        table.add_row("goal", "", "≤ 450", "", "≤ 3")
        CONSOLE.print(table)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--services", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--settle", type=float, default=20)
    options = parser.parse_args()
    run_until_signal(bench(options.services, options.settle, options.seconds))


if __name__ == "__main__":
    main()
