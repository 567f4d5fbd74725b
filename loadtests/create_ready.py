"""From the creation of a Service until it is Ready, and many Services created at once.

    python -m loadtests.create_ready [--rounds 30] [--many 200]

*Initial scale 1* (the default of Knative) includes the start of a pod; *initial scale 0* is the work of our
reconcilers and the gateway alone. Times are taken where a watch shows `Ready=True`. The Services created at once
start at zero.
"""

from __future__ import annotations

import asyncio
import time

from loadtests.common import (
    CONSOLE,
    NAMESPACE,
    Stack,
    new_table,
    parser_of,
    percentile,
    service,
    stack,
    times_row,
    times_table,
)
from serving.api.resources import KSERVICES
from serving.api.v1 import Service
from serving.cli.connect import run_until_signal

GOAL = "≤ 400 p50, ≤ 1000 p95"


async def one_by_one(up: Stack, prefix: str, count: int, *, initial_scale: str) -> list[float]:
    taken = []
    for number in range(count):
        name = f"{prefix}-{number}"
        begun = time.perf_counter()
        await up.deploy(name, "hello-static", annotations={"autoscaling.knative.dev/initial-scale": initial_scale})
        taken.append(time.perf_counter() - begun)
        await up.client.delete(KSERVICES, name, NAMESPACE)
        await up.gone(name)
    return taken


async def at_once(up: Stack, count: int) -> tuple[list[float], float]:
    """Seconds from each Service's own create call to Ready, and from the first call to the last Ready."""
    names = [f"many-{number}" for number in range(count)]
    sent: dict[str, float] = {}
    ready: dict[str, float] = {}

    def changed(key: str, old: Service | None, new: Service | None) -> None:
        name = key.partition("/")[2]
        if name in sent and name not in ready and up.is_ready(name):
            ready[name] = time.perf_counter()

    up.services.informer.subscribe(changed)

    async def create(name: str) -> None:
        sent[name] = time.perf_counter()
        await up.client.create(KSERVICES, service(name, "hello-static"), NAMESPACE)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(create(name))
    await up.services.until(lambda: len(ready) == count, seconds=300)
    return [ready[name] - sent[name] for name in names], max(ready.values()) - begun


async def bench(rounds: int, many: int) -> None:
    async with stack() as up:
        await up.build("hello-static")
        table = times_table(f"Service create → Ready, {up.state.sandbox} sandbox")
        times_row(table, "initial scale 1", await one_by_one(up, "one", rounds, initial_scale="1"), GOAL)
        times_row(table, "initial scale 0", await one_by_one(up, "zero", rounds, initial_scale="0"), GOAL)
        CONSOLE.print(table)
        taken, whole = await at_once(up, many)
        burst = new_table(
            f"{many} Services created at once", "", "p50 s", "p95 s", "all Ready after s", "Services/s"
        )
        burst.add_row(
            "create → Ready",
            *(f"{value:.2f}" for value in (percentile(taken, 50), percentile(taken, 95), whole)),
            f"{many / whole:.0f}",
        )
        CONSOLE.print(burst)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--many", type=int, default=200)
    options = parser.parse_args()
    run_until_signal(bench(options.rounds, options.many))


if __name__ == "__main__":
    main()
