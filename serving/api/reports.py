"""Messages on the stream from a gateway agent to the controller, encoded as msgpack over one gRPC stream.

All of them are level, not edge: a gateway that reconnects sends `Hello` and then everything it knows, and
sending a message twice changes nothing. Times are Unix seconds. Revisions and routes are `namespace/name`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """First message of a stream. `incarnation` differs for each start of the agent."""

    gateway: str
    incarnation: str


class Poke(msgspec.Struct, frozen=True, tag="poke"):
    """A request is held and no pod may answer it. Sent in the loop turn of the first held request and again
    with every later `Demand`, which carries `held` too."""

    revision: str
    held: int
    at: float


class RevisionDemand(msgspec.Struct, frozen=True, array_like=True):
    """Load of one revision at one gateway over one report interval, from Envoy's load reports.

    `in_progress` is a sample at the end of the interval and already contains held requests; `issued` counts
    requests that began in it; `held` is how many of the in-progress ones wait in the activator now;
    `busy_seconds` is request time finished in the interval as far as it is known, else 0.
    """

    in_progress: int
    issued: int
    held: int
    busy_seconds: float = 0.0


class Demand(msgspec.Struct, frozen=True, tag="demand"):
    """Load of every revision with any, over [start, end). A revision that is absent had none."""

    start: float
    end: float
    revisions: dict[str, RevisionDemand]


class PodDrain(msgspec.Struct, frozen=True, array_like=True):
    """What this gateway knows of one draining pod. `acked`: Envoy acknowledged that no new request may go to
    it, and a load report began after that. `in_flight`: requests of ours still on it, load-report row and
    ledger of releases together."""

    acked: bool
    in_flight: int


class Drains(msgspec.Struct, frozen=True, tag="drains"):
    """All pods that this gateway sees as draining, by pod uid."""

    pods: dict[str, PodDrain]


class Programmed(msgspec.Struct, frozen=True, tag="programmed"):
    """Routes whose configuration Envoy acknowledged: route key to the `traffic_hash` of what is served."""

    routes: dict[str, str]


class ColdRevisions(msgspec.Struct, frozen=True, tag="cold"):
    """Revisions for which Envoy acknowledged that new requests go to the activator."""

    revisions: frozenset[str]


class Budget(msgspec.Struct, frozen=True, tag="budget"):
    """Time spent by one held request, seconds by stage (queue, decide, create, schedule, boot, image, app,
    probe, release)."""

    revision: str
    pod: str
    stages: dict[str, float]


GatewayMessage: TypeAlias = Hello | Poke | Demand | Drains | Programmed | ColdRevisions | Budget


class Settings(msgspec.Struct, frozen=True, tag="settings"):
    """Controller to gateway, at connect and on change: how often to send `Demand`."""

    report_interval_seconds: float


class Decided(msgspec.Struct, frozen=True, tag="decided"):
    """Controller to gateway: pods were asked for on behalf of a poke. Times complete the budget."""

    revision: str
    poke_at: float
    decided_at: float
    created_at: float
    pods: tuple[str, ...]


ControllerMessage: TypeAlias = Settings | Decided
