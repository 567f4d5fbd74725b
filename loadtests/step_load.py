"""Step load with locust: replicas over time against what the KPA should want.

    python -m loadtests.step_load [--steps 50:40,200:40,0:60] [--target 10] [--window 20s]

The service begins at zero. What the Revision wants and which pods are ready is recorded from watches, second by
second, and put beside `loadtests.kpa_expectation`, which runs the autoscaler's code on the same steps in virtual
time. The load takes one core for locust itself, so pods and proxy have the other: figures of latency are of this
machine under this load, the course of the replicas is what counts. Locust's HTML report and the course as CSV go
to `loadtests/results/`.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import sys
import time
from bisect import bisect_right
from pathlib import Path

from loadtests.common import CONSOLE, NAMESPACE, Stack, new_table, parser_of, stack
from loadtests.kpa_expectation import Point, Service, expected, parse_steps
from serving.api.config.autoscaler import AutoscalerConfig
from serving.autoscaler.parameters import parameters_of
from serving.cli.connect import run_until_signal

RESULTS = Path(__file__).parent / "results"
NAME = "hello"
_START_SECONDS = 0.3


class Course:
    """What was wanted and ready since when; each list is in order of time."""

    def __init__(self, up: Stack) -> None:
        self._up = up
        self._desired: list[tuple[float, int]] = [(0.0, 0)]
        self._ready: list[tuple[float, int]] = [(0.0, 0)]
        up.revisions.informer.subscribe(lambda key, old, new: self._note())
        up.pods.informer.subscribe(lambda key, old, new: self._note())

    def _note(self) -> None:
        now = time.time()
        revision = self._up.revisions.informer.get(f"{NAMESPACE}/{NAME}-00001")
        wanted = (revision.status.desired_replicas or 0) if revision is not None else 0
        ready = sum(pod.ready and pod.metadata.deletion_timestamp is None for pod in self._up.pods_of(NAME))
        for course, value in ((self._desired, wanted), (self._ready, ready)):
            if course[-1][1] != value:
                course.append((now, value))

    def at(self, moment: float) -> tuple[int, int]:
        """(desired, ready) at a Unix time."""
        return tuple(  # type: ignore[return-value]
            course[bisect_right(course, (moment, sys.maxsize)) - 1][1] for course in (self._desired, self._ready)
        )


async def locust(up: Stack, steps: str, options: argparse.Namespace) -> float:
    """Run it to the end; returns when the load began."""
    RESULTS.mkdir(exist_ok=True)
    began = RESULTS / "began"
    environment = {
        **os.environ,
        "NODELESS_STEPS": steps,
        "NODELESS_HOST": up.host(NAME),
        "NODELESS_BEGAN": str(began),
        "NODELESS_SERVICE_MS": str(round(options.service_time * 1000)),
        "NODELESS_THINK_MS": str(round(options.think_time * 1000)),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "locust", "--headless", "--only-summary", "--loglevel", "ERROR"),
        *("-f", str(Path(__file__).with_name("locustfile.py")), "--host", f"http://127.0.0.1:{up.port}"),
        *("--html", str(RESULTS / "step_load.html"), "--csv", str(RESULTS / "step_load")),
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await process.wait()
    return float(began.read_text())


def summary() -> dict[str, str]:
    """Locust's line over all requests."""
    with (RESULTS / "step_load_stats.csv").open() as file:
        return next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")


def report(points: list[Point], course: Course, began: float, options: argparse.Namespace) -> None:
    rows = [(point, *course.at(began + point.at)) for point in points]
    with (RESULTS / "step_load.csv").open("w") as file:
        out = csv.writer(file)
        out.writerow(("second", "users", "expected", "desired", "ready"))
        out.writerows((round(point.at), point.users, point.desired, *seen) for point, *seen in rows)
    most = max(max(point.desired, desired, ready) for point, desired, ready in rows)
    table = new_table(
        f"Step load {options.steps}, target {options.target}, window {options.window}",
        *("second", "users", "expected", "desired", "ready", "▒ expected  █ ready"),
    )
    table.columns[-1].justify = "left"
    for number, (point, desired, ready) in enumerate(rows):
        changed = number == 0 or (point.desired, desired, ready) != (
            rows[number - 1][0].desired,
            *rows[number - 1][1:],
        )
        if changed or number % 10 == 9:
            table.add_row(
                *map(str, (round(point.at), point.users, point.desired, desired, ready)),
                bar(point.desired, ready, most),
            )
    CONSOLE.print(table)
    stats = summary()
    result = new_table("Requests", "requests", "failures", "p50 ms", "p95 ms", "p99 ms", "max ms", "rps", "goal")
    result.add_row(
        *(stats[name] for name in ("Request Count", "Failure Count", "50%", "95%", "99%")),
        f"{float(stats['Max Response Time']):.0f}",
        f"{float(stats['Requests/s']):.0f}",
        "0 failures",
    )
    CONSOLE.print(result)
    off = [abs(desired - point.desired) for point, desired, _ in rows]
    CONSOLE.print(
        f"Wanted replicas differ from the expectation by {sum(off) / len(off):.2f} on average, {max(off)} at "
        f"most; HTML report: {RESULTS / 'step_load.html'}"
    )


def bar(wanted: int, ready: int, most: int) -> str:
    """One character is one replica, or a share when there are too many."""
    scale = min(1.0, 30 / max(most, 1))
    full, shade = round(ready * scale), round(wanted * scale)
    return "█" * full + "▒" * max(0, shade - full)


async def bench(options: argparse.Namespace) -> None:
    steps = parse_steps(options.steps)
    loaded = ",".join(f"{step.users}:{step.seconds:.0f}" for step in steps if step.users)
    annotations = {
        "autoscaling.knative.dev/target": options.target,
        "autoscaling.knative.dev/window": options.window,
    }
    params = parameters_of(annotations, container_concurrency=0, config=AutoscalerConfig())
    service = Service(service_time=options.service_time, think_time=options.think_time, start_time=_START_SECONDS)
    points = expected(steps, params, service=service)
    async with stack() as up:
        await up.build("hello-static")
        await up.deploy(NAME, "hello-static", annotations=annotations)
        course = Course(up)
        began = await locust(up, loaded, options)
        await asyncio.sleep(max(0.0, began + points[-1].at + 1 - time.time()))
    report(points, course, began, options)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", default="50:40,200:40,0:60", help="users:seconds; zero only at the end")
    parser.add_argument("--target", default="10", help="autoscaling.knative.dev/target")
    parser.add_argument("--window", default="20s", help="autoscaling.knative.dev/window")
    parser.add_argument("--service-time", type=float, default=0.5, help="seconds per request")
    parser.add_argument("--think-time", type=float, default=0.5, help="seconds between a user's requests")
    options = parser.parse_args()
    try:
        parse_steps(options.steps)
    except ValueError as error:
        parser.error(str(error))
    run_until_signal(bench(options))


if __name__ == "__main__":
    main()
