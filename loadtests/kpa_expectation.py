"""Expected replicas over time for a step load, by running the autoscaler's own code on virtual time.

A live load test is compared with this: the same steps, window and targets give the number of pods that the KPA
should want at each moment. The model of the service is simple on purpose: `users` send requests one after the
other, each takes `service_time` and is followed by `think_time`, so the concurrency is
`users × service_time / (service_time + think_time)` at any number of pods.

    python -m loadtests.kpa_expectation --steps 0:30,50:60,200:60,0:120 --target 10
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from serving.api.config.autoscaler import AutoscalerConfig
from serving.api.reports import RevisionDemand
from serving.autoscaler.parameters import ScalingParameters, parameters_of
from serving.autoscaler.revision import Decision, Observation, PodCounts, RevisionScaler, poke, report, start, step

GATEWAY: Final = "gateway"
_EPOCH: Final = 1_000_000.0
_TICK: Final = 0.1
_REPORT_AT: Final = 0.5
"""Reports come in the middle of each second, decisions where the autoscaler asks for them."""


class Step(msgspec.Struct, frozen=True):
    users: int
    seconds: float


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds each. `start_time`: from the decision until a pod is Ready."""

    service_time: float = 0.1
    think_time: float = 0.0
    start_time: float = 0.3
    drain_time: float = 0.1

    def concurrency(self, users: int) -> int:
        return round(users * self.service_time / (self.service_time + self.think_time))

    def rate(self, users: int) -> int:
        """Requests a second."""
        return round(users / (self.service_time + self.think_time))


_SERVICE: Final = Service()


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One second of the expectation; `at` counts from the begin of the load."""

    at: float
    users: int
    desired: int
    ready: int
    stable: float
    panic: float
    panicking: bool


def expected(
    steps: Sequence[Step], params: ScalingParameters, *, service: Service = _SERVICE, ready: int = 0
) -> list[Point]:
    """Replicas for each second of the steps, beginning with `ready` idle pods."""
    return list(_Run(params, service, ready).points(steps))


class _Run:
    def __init__(self, params: ScalingParameters, service: Service, ready: int) -> None:
        self._params = params
        self._service = service
        self._born = [_EPOCH - service.start_time] * ready
        self._leaving: list[float] = []
        self._in_progress = 0
        self._now = _EPOCH
        self._scaler: RevisionScaler = start(
            params, pods=self._pods(), now=_EPOCH, replicas=ready, initialized=True
        )
        self._decision: Decision = self._decide()

    def points(self, steps: Sequence[Step]) -> Iterator[Point]:
        for wanted in steps:
            for _ in range(round(wanted.seconds)):
                yield self._second(wanted.users)

    def _second(self, users: int) -> Point:
        for part in range(round(1 / _TICK)):
            self._now = round(self._now + _TICK, 1)
            pods = self._pods()
            if users and not pods.live:
                self._scaler = poke(self._scaler, self._service.concurrency(users))
                self._decide()
            if part == round(_REPORT_AT / _TICK):
                self._report(users, pods)
                self._decide()
            due = self._decision.next_tick_at
            if (due is not None and self._now >= due) or self._pods() != pods:
                self._decide()
        averages = self._decision.averages
        return Point(
            at=round(self._now - _EPOCH, 1),
            users=users,
            desired=self._decision.desired,
            ready=self._pods().ready,
            stable=averages.stable if averages else 0.0,
            panic=averages.panic if averages else 0.0,
            panicking=self._decision.panicking,
        )

    def _report(self, users: int, pods: PodCounts) -> None:
        load, issued = self._service.concurrency(users), self._service.rate(users) if pods.ready else 0
        finished = max(0, issued + self._in_progress - load) if pods.ready else 0
        demand = RevisionDemand(
            in_progress=load,
            issued=issued,
            held=0 if pods.ready else load,
            busy_seconds=finished * self._service.service_time,
        )
        self._in_progress = load
        present = demand if users else None
        self._scaler = report(self._scaler, self._params, GATEWAY, present, interval=1.0, now=self._now)

    def _decide(self) -> Decision:
        observation = Observation(pods=self._pods(), gateways=frozenset({GATEWAY}), reachability="Reachable")
        self._decision, self._scaler = step(self._scaler, self._params, observation, self._now)
        surplus = self._born[self._decision.desired :]
        self._leaving += [self._now + self._service.drain_time] * len(surplus)
        self._born = self._born[: self._decision.desired]
        self._born += [self._now] * (self._decision.desired - len(self._born))
        return self._decision

    def _pods(self) -> PodCounts:
        self._leaving = [until for until in self._leaving if until > self._now]
        ready = sum(self._now - born >= self._service.start_time for born in self._born)
        return PodCounts(ready=ready, live=len(self._born), draining=len(self._leaving))


def parse_steps(text: str) -> list[Step]:
    """`users:seconds,users:seconds`. Raises ValueError naming the part that is wrong."""
    steps = []
    for part in text.split(","):
        users, colon, seconds = part.partition(":")
        if not colon or not users.isdecimal() or not seconds.isdecimal() or not int(seconds):
            raise ValueError(f"--steps: {part!r} is not allowed, must be users:seconds, e.g. 50:60")
        steps.append(Step(int(users), float(seconds)))
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="0:30,50:60,200:60,0:150", help="users:seconds, comma separated")
    parser.add_argument("--target", default="100", help="autoscaling.knative.dev/target")
    parser.add_argument("--window", default="60s", help="autoscaling.knative.dev/window")
    parser.add_argument("--concurrency", type=int, default=0, help="containerConcurrency, 0 = unlimited")
    parser.add_argument("--service-time", type=float, default=0.1, help="seconds per request")
    parser.add_argument("--think-time", type=float, default=0.0, help="seconds between a user's requests")
    parser.add_argument("--start-time", type=float, default=0.3, help="seconds from decision to Ready")
    options = parser.parse_args()
    params = parameters_of(
        {"autoscaling.knative.dev/target": options.target, "autoscaling.knative.dev/window": options.window},
        container_concurrency=options.concurrency,
        config=AutoscalerConfig(),
    )
    if params.problems:
        parser.error("; ".join(params.problems))
    try:
        steps = parse_steps(options.steps)
    except ValueError as error:
        parser.error(str(error))
    service = Service(
        service_time=options.service_time, think_time=options.think_time, start_time=options.start_time
    )
    out = csv.writer(sys.stdout)
    out.writerow(Point.__struct_fields__)
    for point in expected(steps, params, service=service):
        out.writerow(msgspec.structs.astuple(point))


if __name__ == "__main__":
    main()
