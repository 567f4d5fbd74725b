"""What a service is asked for, and which pods that keeps busy. Pure.

Pods are filled lowest index first, so pod k is needed exactly while more than (k - 1) x concurrency requests are
in the system: each *level* k is an on/off process of its own with idle gaps, and going from zero to one pod is
the same problem as going from n to n + 1. Least-loaded balancing breaks this; there a plan is accepted by
replay.

The observed period is taken as a circle: what came after the last request is what came before the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sizing.law import Floats

MAX_LEVELS = 64


class DemandError(ValueError):
    """A log that cannot be used; the message names the row and the field."""


@dataclass(frozen=True, eq=False)
class Demand:
    """Requests of one period. `arrivals`: seconds from its start, ascending. A request takes `io` seconds plus
    `cpu` vCPU-seconds on at most `parallelism` vCPUs."""

    arrivals: Floats
    period: float
    io: Floats
    cpu: Floats
    parallelism: float = 1.0

    def __post_init__(self) -> None:
        if len(self.arrivals) == 0:
            raise DemandError("arrivals: none")
        steps = np.diff(self.arrivals)
        if np.any(steps < 0):
            row = int(np.argmax(steps < 0)) + 2
            raise DemandError(f"row {row}: arrival {self.arrivals[row - 1]:g} comes before row {row - 1}")
        if self.arrivals[0] < 0 or self.arrivals[-1] >= self.period:
            raise DemandError(f"arrivals: must be within 0 and the period, {self.period:g} s")
        for name, values in (("io", self.io), ("cpu", self.cpu)):
            if len(values) != len(self.arrivals):
                raise DemandError(f"{name}: {len(values)} values for {len(self.arrivals)} arrivals")
            if np.any(values < 0):
                raise DemandError(f"row {int(np.argmax(values < 0)) + 1}: {name} is negative")

    @classmethod
    def of(cls, arrivals: Floats, *, period: float, io: float, cpu: float = 0.0) -> Demand:
        """Every request takes the same."""
        ones = np.ones(len(arrivals))
        return cls(np.asarray(arrivals, dtype=np.float64), period, ones * io, ones * cpu)

    def service(self, vcpu: float) -> Floats:
        """Seconds of each request on a pod of that size, alone."""
        return self.io + self.cpu / min(vcpu, self.parallelism)


@dataclass(frozen=True, eq=False)
class Level:
    """When pod `number` is needed. `gaps[i]` is the idle time before the busy period of `runs[i]` seconds that
    begins with the arrival of index `starts[i]`."""

    number: int
    busy: float
    gaps: Floats
    starts: npt.NDArray[np.int64]
    runs: Floats


def levels(demand: Demand, *, vcpu: float, concurrency: int) -> list[Level]:
    """Levels from 1 to the peak. Raises DemandError above `MAX_LEVELS` pods: larger concurrency is needed."""
    times, depth = _requests_in_system(demand, vcpu)
    pods = -(-int(depth.max()) // concurrency)
    if pods > MAX_LEVELS:
        raise DemandError(f"concurrency: {concurrency} would take {pods} pods at the peak, at most {MAX_LEVELS}")
    return [_level(demand, number, times, depth > (number - 1) * concurrency) for number in range(1, pods + 1)]


def peak(demand: Demand, *, vcpu: float) -> int:
    """Most requests at once."""
    return int(_requests_in_system(demand, vcpu)[1].max())


def _requests_in_system(demand: Demand, vcpu: float) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Times of all changes within the period and the number after each. What runs across the end of the period
    runs at its start."""
    ends = demand.arrivals + demand.service(vcpu)
    wraps = np.floor(ends / demand.period).astype(np.int64)
    times = np.concatenate((ends - wraps * demand.period, demand.arrivals))
    change = np.concatenate((-np.ones(len(ends), np.int64), np.ones(len(ends), np.int64)))
    order = np.lexsort((change, times))
    # Equal times: ends first, so that one request after the other is not two at once.
    return times[order], np.cumsum(change[order]) + int(wraps.sum())


def _level(demand: Demand, number: int, times: Floats, on: npt.NDArray[np.bool_]) -> Level:
    before = np.roll(on, 1)
    ups, downs = np.flatnonzero(on & ~before), np.flatnonzero(~on & before)
    # A gap or a run of no length is none: both of its edges go.
    if len(ups) == 0:  # always needed, or never
        busy = demand.period if on[0] else 0.0
        return Level(number, busy, np.zeros(0), np.zeros(0, np.int64), np.zeros(0))
    rises, falls = times[ups], times[downs]
    began = falls[np.searchsorted(downs, ups) - 1]
    gaps = np.mod(rises - began, demand.period)
    if len(ups) == 1 and gaps[0] == 0:
        gaps[0] = demand.period
    kept = np.flatnonzero(gaps > 0)
    starts = np.searchsorted(demand.arrivals, rises[kept], side="left").astype(np.int64)
    cycle = np.diff(np.append(rises[kept], rises[kept[0]] + demand.period)) if len(kept) else np.zeros(0)
    # From one rise to the next there is this run and the next gap.
    runs = cycle - np.roll(gaps[kept], -1) if len(kept) else cycle
    return Level(number, demand.period - float(gaps.sum()), gaps[kept], starts, np.maximum(runs, 0.0))
