"""Distributions of durations: of cold starts, of resuming, of service times. Seconds throughout. Pure.

Stages are added by convolution on a grid, never by adding quantiles: the 95th percentile of a sum is not the sum
of the 95th percentiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

GRID_SECONDS = 0.01
_TAIL = 1e-9
_Z = np.linspace(-9.0, 9.0, 18_001)
_ABOVE = np.array([0.5 * math.erfc(z / math.sqrt(2)) for z in _Z])
"""P(standard normal > z); between two points it is interpolated, which is wrong by less than 1e-7."""


class Law(Protocol):
    """A duration that is not negative."""

    @property
    def mean(self) -> float: ...

    def survival(self, at: Floats) -> Floats:
        """P(duration > at), element by element; 1 below zero."""
        ...

    def quantile(self, q: float) -> float:
        """Smallest duration that is not exceeded with probability `q`, 0 < q < 1."""
        ...


@dataclass(frozen=True)
class Fixed:
    """Always the same."""

    seconds: float

    @property
    def mean(self) -> float:
        return self.seconds

    def survival(self, at: Floats) -> Floats:
        return np.where(np.asarray(at) < self.seconds, 1.0, 0.0)

    def quantile(self, q: float) -> float:
        return self.seconds


@dataclass(frozen=True)
class Lognormal:
    """`sigma` is the standard deviation of the logarithm."""

    median: float
    sigma: float

    @property
    def mean(self) -> float:
        return self.median * math.exp(self.sigma**2 / 2)

    def survival(self, at: Floats) -> Floats:
        at = np.asarray(at, dtype=np.float64)
        if self.median <= 0 or self.sigma <= 0:
            return Fixed(self.median).survival(at)
        with np.errstate(divide="ignore"):
            z = np.log(np.maximum(at, 0.0) / self.median) / self.sigma
        return np.asarray(np.interp(z, _Z, _ABOVE))

    def quantile(self, q: float) -> float:
        return self.median * math.exp(self.sigma * _normal_quantile(q))


@dataclass(frozen=True, eq=False)
class Gridded:
    """Probabilities of 0, step, 2 step, …; what convolution gives."""

    mass: Floats
    step: float = GRID_SECONDS

    @property
    def mean(self) -> float:
        return float(np.arange(len(self.mass)) @ self.mass) * self.step

    def survival(self, at: Floats) -> Floats:
        at = np.asarray(at, dtype=np.float64)
        above = np.concatenate((np.cumsum(self.mass[::-1])[::-1][1:], [0.0]))
        index = np.floor(at / self.step + 1e-9).astype(np.int64)
        inside = np.clip(index, 0, len(above) - 1)
        return np.where(index < 0, 1.0, np.where(index >= len(above), 0.0, above[inside]))

    def quantile(self, q: float) -> float:
        return float(np.searchsorted(np.cumsum(self.mass), q - 1e-12)) * self.step


def sum_of(*laws: Law, step: float = GRID_SECONDS) -> Law:
    """The sum of independent durations. Each is put on a grid of `step` seconds, upwards, so that the sum is never
    too short; its tail beyond one in 10⁹ is cut."""
    fixed = sum(law.seconds for law in laws if isinstance(law, Fixed))
    spread = [law for law in laws if not isinstance(law, Fixed)]
    if not spread:
        return Fixed(fixed)
    if len(spread) == 1 and fixed == 0:
        return spread[0]
    mass = np.ones(1)
    for law in spread:
        mass = _convolve(mass, _on_grid(law, step))
    shift = math.ceil(fixed / step - 1e-9)
    return Gridded(np.concatenate((np.zeros(shift), mass)), step)


def _convolve(one: Floats, other: Floats) -> Floats:
    """By Fourier transform: two long tails would take seconds otherwise. Rounding is far below the cut."""
    length = len(one) + len(other) - 1
    size = 1 << (length - 1).bit_length()
    product = np.fft.irfft(np.fft.rfft(one, size) * np.fft.rfft(other, size), size)[:length]
    return np.maximum(product, 0.0)


def _on_grid(law: Law, step: float) -> Floats:
    if isinstance(law, Gridded) and math.isclose(law.step, step):
        return law.mass
    count = max(1, math.ceil(law.quantile(1 - _TAIL) / step))
    survival = law.survival(np.arange(count + 1, dtype=np.float64) * step)
    mass = np.concatenate(([1 - survival[0]], survival[:-1] - survival[1:]))
    return np.asarray(mass / mass.sum())


def _normal_quantile(q: float) -> float:
    """By bisection of erfc: exact enough, and needs no library."""
    low, high = -9.0, 9.0
    for _ in range(80):
        middle = (low + high) / 2
        if 0.5 * math.erfc(-middle / math.sqrt(2)) < q:
            low = middle
        else:
            high = middle
    return (low + high) / 2
