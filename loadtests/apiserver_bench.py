"""How fast the embedded API server is: a table of latencies and rates, over its Unix socket.

    python -m loadtests.apiserver_bench [--rounds 500]

The server runs in a process of its own, as `nodeless up` runs it. "watch" is the time from the answer of a write
to the arrival of its event at another connection; negative means that the event came first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from loadtests.common import machine, percentile

PODS = "/api/v1/namespaces/default/pods"


def pod(name: str) -> dict[str, Any]:
    """About the size of the pods that the pool creates."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {f"serving.knative.dev/label-{n}": f"value-{n}" for n in range(8)},
            "annotations": {f"nodeless.dev/annotation-{n}": "x" * 40 for n in range(8)},
        },
        "spec": {
            "nodeName": "local",
            "containers": [
                {
                    "name": "user-container",
                    "image": "example.dev/hello:1",
                    "env": [{"name": f"VARIABLE_{n}", "value": "value"} for n in range(12)],
                    "ports": [{"containerPort": 8080, "name": "user-port"}],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                    "resources": {"limits": {"cpu": "1", "memory": "256Mi"}},
                }
            ],
        },
    }


@asynccontextmanager
async def server_process(directory: Path) -> AsyncIterator[psutil.Process]:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from serving.local.apiserver.service import ApiServerSettings, run\n"
        "settings = ApiServerSettings(data_dir=Path(sys.argv[1]))\n"
        "asyncio.run(run(settings, ready=lambda port: print(port, flush=True)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(directory), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    try:
        if not await process.stdout.readline():
            raise SystemExit("the server did not start")
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


def connect(directory: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        base_url="http://nodeless",
        connector=aiohttp.UnixConnector(path=str(directory / "api.sock"), limit=0),
        headers={"Authorization": f"Bearer {(directory / 'token').read_text().strip()}"},
    )


async def measured(count: int, call: Callable[[int], Awaitable[None]]) -> list[float]:
    """Seconds of each of `count` calls, one after the other."""
    taken: list[float] = []
    for number in range(count):
        before = time.perf_counter()
        await call(number)
        taken.append(time.perf_counter() - before)
    return taken


async def request(
    session: aiohttp.ClientSession, method: str, path: str, body: Any = None, *, media: str = "application/json"
) -> Any:
    data = None if body is None else json.dumps(body)
    headers = {"Content-Type": media} if data else {}
    async with session.request(method, path, data=data, headers=headers) as response:
        answer = await response.read()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {response.status} {answer[:300]!r}")
        return answer


class Arrivals:
    """When each event of a watch arrived, by object name and type."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, str], float] = {}
        self.connected = asyncio.Event()

    async def follow(self, session: aiohttp.ClientSession) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with session.get(f"{PODS}?watch=true", timeout=timeout) as response:
            self.connected.set()
            async for line in response.content:
                now = time.perf_counter()
                event = json.loads(line)
                self.at[event["object"]["metadata"]["name"], event["type"]] = now


def row(name: str, seconds: list[float]) -> None:
    figures = (percentile(seconds, 50), percentile(seconds, 99), max(seconds))
    print(f"{name:<44} " + " ".join(f"{value * 1e3:8.2f}" for value in figures))


async def bench(rounds: int, watchers: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with server_process(directory) as process, connect(directory) as session:
            print(f"{machine()}, {rounds} rounds\n")
            print(f"{'':<44} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
            idle = process.memory_full_info().pss
            await sequential(session, rounds)
            await watched(session, directory, rounds, watchers)
            await concurrent(session, rounds)
            pss = process.memory_full_info().pss
            print(f"\nmemory (PSS): {idle / 1e6:.0f} MB after start, {pss / 1e6:.0f} MB at the end")


async def sequential(session: aiohttp.ClientSession, rounds: int) -> None:
    async def create(number: int) -> None:
        await request(session, "POST", PODS, pod(f"pod-{number}"))

    async def create_ignoring(number: int) -> None:
        await request(session, "POST", f"{PODS}?fieldValidation=Ignore", pod(f"quick-{number}"))

    async def get(number: int) -> None:
        await request(session, "GET", f"{PODS}/pod-{number}")

    async def patch_status(number: int) -> None:
        change = {"status": {"phase": "Running", "podIP": "198.18.0.7"}}
        path = f"{PODS}/pod-{number}/status"
        await request(session, "PATCH", path, change, media="application/merge-patch+json")

    async def listed(_: int) -> None:
        await request(session, "GET", PODS)

    async def remove(number: int) -> None:
        await request(session, "DELETE", f"{PODS}/pod-{number}?gracePeriodSeconds=0")

    row("create pod", await measured(rounds, create))
    row("create pod, fieldValidation=Ignore", await measured(rounds, create_ignoring))
    row("get pod", await measured(rounds, get))
    row("patch pod status", await measured(rounds, patch_status))
    row(f"list {2 * rounds} pods", await measured(20, listed))
    row("delete pod", await measured(rounds, remove))


async def watched(session: aiohttp.ClientSession, directory: Path, rounds: int, watchers: int) -> None:
    """One write at a time, watched over `watchers` connections."""
    async with connect(directory) as other, asyncio.TaskGroup() as group:
        arrivals = [Arrivals() for _ in range(watchers)]
        tasks = [group.create_task(arrival.follow(other)) for arrival in arrivals]
        for arrival in arrivals:
            await arrival.connected.wait()
        delays: list[float] = []
        totals: list[float] = []
        for number in range(rounds):
            begun = time.perf_counter()
            await request(session, "POST", PODS, pod(f"watched-{number}"))
            answered = time.perf_counter()
            key = (f"watched-{number}", "ADDED")
            while any(key not in arrival.at for arrival in arrivals):
                await asyncio.sleep(0)
            last = max(arrival.at[key] for arrival in arrivals)
            delays.append(last - answered)
            totals.append(last - begun)
        row(f"watch: answer -> event at {watchers} watchers", delays)
        row(f"watch: request sent -> event at {watchers} watchers", totals)
        for task in tasks:
            task.cancel()


async def concurrent(session: aiohttp.ClientSession, rounds: int) -> None:
    """Forty requests in flight at any time."""
    numbers = iter(range(rounds * 2))

    async def worker() -> None:
        for number in numbers:
            await request(session, "POST", PODS, pod(f"burst-{number}"))

    before = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(40):
            group.create_task(worker())
    taken = time.perf_counter() - before
    print(f"\n40 in flight: {rounds * 2 / taken:.0f} creates/s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--watchers", type=int, default=4)
    arguments = parser.parse_args()
    asyncio.run(bench(arguments.rounds, arguments.watchers))
