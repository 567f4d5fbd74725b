"""Where the time of a held request went. Pure.

Marks are Unix times from four places: Envoy (start), this agent (poke, probes, release), the controller
(decided, created) and the node agent (seen, network, image, started). They follow one another; each stage is
the time between its mark and the one before. A mark that is missing lends its time to the next stage, a mark
from before the request (the pod was already on its way) or out of order (clocks differ) makes its stage zero.
So the stages always add up to the whole.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

STAGES = ("queue", "decide", "create", "schedule", "boot", "image", "app", "probe", "release")
"""In the order in which they are shown."""


class Wake(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the wake-up of a revision: times of the poke and of the controller's answer."""

    poked_at: float
    decided_at: float | None = None
    created_at: float | None = None


class PodTimes(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the pod: the node agent's stages, our last failed probe and the first answered one."""

    stages: Mapping[str, float]
    failed_at: float | None = None
    answered_at: float | None = None


def budget(*, started: float, released: float, wake: Wake | None, pod: PodTimes) -> dict[str, float]:
    """Seconds by stage of a request that came at `started` and was released at `released`.

    queue: until the poke was sent. decide, create: the controller's decision and its create call. schedule:
    until the node agent saw the pod. boot: network and start of the sandbox. image: its file system. app: the
    application's own start. probe: from the last probe that failed to the one that was answered. release:
    until the answer to Envoy, waiting for a slot included.
    """
    marks: list[tuple[str, float | None]] = [
        ("queue", wake.poked_at if wake else None),
        ("decide", wake.decided_at if wake else None),
        ("create", wake.created_at if wake else None),
        ("schedule", pod.stages.get("seen")),
        ("boot", pod.stages.get("network")),
        ("image", pod.stages.get("image")),
        ("boot", pod.stages.get("started")),
        ("app", pod.failed_at),
        ("probe", pod.answered_at),
        ("release", released),
    ]
    spent: dict[str, float] = {}
    last = started
    for stage, mark in marks:
        if mark is None:
            continue
        reached = min(max(mark, last), max(released, started))
        spent[stage] = spent.get(stage, 0.0) + reached - last
        last = reached
    return {stage: spent[stage] for stage in STAGES if stage in spent}


def server_timing(stages: Mapping[str, float]) -> str:
    """Value of a `Server-Timing` header, milliseconds: `queue;dur=0.3, …, total;dur=81.2`."""
    entries = [f"{stage};dur={seconds * 1000:.1f}" for stage, seconds in stages.items()]
    entries.append(f"total;dur={sum(stages.values()) * 1000:.1f}")
    return ", ".join(entries)
