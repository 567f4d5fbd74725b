"""How long a pod takes from nothing to ready on an offer. Pure.

median = schedule + sandbox + image + serial + work / min(vCPU, parallelism)

The image stage is its bytes through the shape's network and the provider's fixed cost of a pull; nothing when the
provider keeps a cache and the image is in it. Small shapes have slow networks as well as slow CPUs, so a larger
shape can be the cheaper way to keep an SLA.
"""

from __future__ import annotations

import msgspec

from sizing.catalog.offers import Offer
from sizing.law import Fixed, Law, Lognormal


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What is started. The defaults are a small web application."""

    image_bytes: float = 50e6
    cached: bool = False
    """The image is in the provider's cache, where it has one."""
    read_fraction: float = 1.0
    """Part of the image that is read before the program is ready, when it is loaded lazily."""
    serial_seconds: float = 0.1
    work_vcpu_seconds: float = 0.3
    parallelism: float = 2.0
    """vCPUs that the start can use."""


def start_law(offer: Offer, program: Program) -> Law:
    """A lognormal around the median above; its width is the provider's."""
    median = sum(stages(offer, program).values())
    return Lognormal(median, offer.start.sigma) if offer.start.sigma > 0 else Fixed(median)


def stages(offer: Offer, program: Program) -> dict[str, float]:
    """Medians in seconds, by stage."""
    start = offer.start
    image = 0.0
    if not (program.cached and start.image_cache):
        image = start.pull_seconds
        if offer.net_gbps:
            image += program.image_bytes * program.read_fraction * 8 / (offer.net_gbps * 1e9)
    init = program.serial_seconds + program.work_vcpu_seconds / min(offer.shape.vcpu, program.parallelism)
    return {"schedule": start.schedule_seconds, "sandbox": start.sandbox_seconds, "image": image, "init": init}
