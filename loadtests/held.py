"""Thousands of requests held on one cold service: all must be answered 200.

    python -m loadtests.held [--requests 2000] [--rounds 3] [--image hello-static]

All requests are sent while the service is at zero, each on a connection of its own that is open already. The
table gives the statuses, when the first and the last first byte arrived, and the CPU that the gateway agent and
Envoy spent on each request.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import Counter
from contextlib import AsyncExitStack

from loadtests.common import CONSOLE, Answer, Stack, connect, new_table, parser_of, percentile, stack
from serving.cli.connect import run_until_signal


async def hold(up: Stack, name: str, count: int) -> list[str]:
    """One round; cells of its row."""
    await up.at_zero(name)
    host = up.host(name)
    before = up.cpu_seconds()
    async with AsyncExitStack() as opened:
        connections = [await opened.enter_async_context(connect(up.port)) for _ in range(count)]
        begun = time.time()
        results = await asyncio.gather(*(one.get(host) for one in connections), return_exceptions=True)
    answers = [result for result in results if isinstance(result, Answer)]
    statuses = Counter(str(r.status) if isinstance(r, Answer) else type(r).__name__ for r in results)
    first = sorted(answer.first_byte_at - begun for answer in answers)
    after = up.cpu_seconds()
    used = [(after[process] - before[process]) / count * 1e6 for process in ("gateway", "envoy")]
    return [
        ", ".join(f"{status}: {n}" for status, n in statuses.items()),
        *(f"{value:.2f}" for value in (first[0], percentile(first, 50), first[-1])),
        *(f"{value:.0f}" for value in used),
        f"{count} × 200",
    ]


async def bench(image: str, count: int, rounds: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    async with stack() as up:
        await up.build(image)
        await up.deploy("hello", image)
        table = new_table(
            f"{count} requests held on one cold {image}, {up.state.sandbox} sandbox",
            *("round", "answers", "first s", "p50 s", "last s", "agent µs/req", "Envoy µs/req", "goal"),
        )
        for number in range(rounds):
            table.add_row(str(number + 1), *await hold(up, "hello", count))
        CONSOLE.print(table)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image", default="hello-static")
    options = parser.parse_args()
    run_until_signal(bench(options.image, options.requests, options.rounds))


if __name__ == "__main__":
    main()
