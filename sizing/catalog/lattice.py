"""Shapes of a lattice: which exist, and which one a request is rounded up to. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from sizing.catalog.schema import Lattice, Steps

_EPSILON = 1e-9


class Shape(msgspec.Struct, frozen=True, order=True):
    """vCPU and GiB of a pod."""

    vcpu: float
    gib: float

    def __str__(self) -> str:
        return f"{self.vcpu:g}-{self.gib:g}Gi"


def vcpus(lattices: Iterable[Lattice]) -> list[float]:
    """All sizes of CPU, smallest first."""
    found: set[float] = set()
    for lattice in lattices:
        found.update(lattice.shapes)
        if lattice.rule is not None:
            found.update(_values(lattice.rule.vcpu))
    return sorted(found)


def least_memory(lattices: Sequence[Lattice], vcpu: float, need: float) -> float | None:
    """The smallest memory that comes with `vcpu` and is at least `need` GiB; None when there is none."""
    found = [gib for lattice in lattices for gib in _memories(lattice, vcpu) if gib >= need - _EPSILON]
    return min(found, default=None)


def round_up(lattices: Sequence[Lattice], vcpu: float, gib: float) -> Shape | None:
    """The smallest shape that is not below the request on either axis: least vCPU first, then least memory."""
    for size in vcpus(lattices):
        if size >= vcpu - _EPSILON and (memory := least_memory(lattices, size, gib)) is not None:
            return Shape(size, memory)
    return None


def shapes(lattices: Sequence[Lattice]) -> list[Shape]:
    """Every shape, smallest first."""
    return sorted(
        {Shape(size, gib) for size in vcpus(lattices) for one in lattices for gib in _memories(one, size)}
    )


def contains(lattices: Sequence[Lattice], shape: Shape) -> bool:
    memory = least_memory(lattices, shape.vcpu, shape.gib)
    return memory is not None and math.isclose(memory, shape.gib)


def _memories(lattice: Lattice, vcpu: float) -> list[float]:
    memory = lattice.shapes.get(vcpu, [])
    found = _values(memory) if isinstance(memory, Steps) else list(memory)
    rule = lattice.rule
    if rule is not None and any(math.isclose(vcpu, size) for size in _values(rule.vcpu)):
        low, high = rule.gib_per_vcpu
        found += [gib for gib in _values(rule.gib) if low * vcpu - _EPSILON <= gib <= high * vcpu + _EPSILON]
    return found


def _values(steps: Steps) -> list[float]:
    count = math.floor((steps.most - steps.least) / steps.step + _EPSILON)
    return [round(steps.least + number * steps.step, 6) for number in range(count + 1)]
