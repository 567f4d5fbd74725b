"""Intermediate representation: everything that one gateway's Envoy and activator need to know, as plain values.

Kubernetes objects become an `Ir` (build.py), an `Ir` becomes Envoy resources (translate/). It is immutable,
comparable and stored on disk, so that a gateway can serve its last one while the API server is away. Nothing
here is Envoy's or Kubernetes' vocabulary beyond names. Times are seconds.

Invariants, checked by `validate`: a host appears in one virtual host of one listener; percentages of a virtual
host sum to 100; every target is a known revision.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from serving.activator.model import PodEndpoint, RevisionConfig
from serving.api.podnetwork import PodNetworkFacts

SLOTS_LIMIT: Final = 10
"""Largest containerConcurrency that is kept by the activator's slots rather than by Envoy's per-host limit."""

DEFAULT_UPSTREAM_IDLE_SECONDS: Final = 4.0
"""Idle connections to pods are closed before common servers close theirs (5 s), which would race a request."""


class Mode(Enum):
    """How a revision's containerConcurrency is kept. Fixed by its spec, never flipped by load."""

    DIRECT = "direct"
    """No limit: Envoy balances over ready pods."""
    SLOTS = "slots"
    """The activator stays in the path and gives out slots."""
    LIMITED = "limited"
    """Envoy's per-host connection limit."""


class RequestLog(msgspec.Struct, frozen=True, kw_only=True):
    """Requests are logged: as `template` says, to the file `path`; also those of probes."""

    template: str
    probes: bool = False
    path: str = "/dev/stdout"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go. `response_start_seconds` bounds the time to the first byte of a response, the hold
    included; `idle_seconds` the time without any byte (0 = unbounded)."""

    revision: str
    response_start_seconds: float
    idle_seconds: float = 0.0


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """`percent` of a virtual host's requests, 1..100."""

    target: Target
    percent: int


class VirtualHost(msgspec.Struct, frozen=True, kw_only=True):
    """Hosts that are served alike. `by_tag`: targets chosen by the request header Knative-Serving-Tag, when
    that feature is on. `tag` is the tag whose hosts these are, empty for the Route's own. `redirect`: whoever
    did not come by https is sent there. `mapped`: a DomainMapping's, whose host applications find in the header
    K-Original-Host. `rewrite`: the host that they see instead, empty = as it was sent."""

    name: str
    route: str
    tag: str
    domains: tuple[str, ...]
    shares: tuple[Share, ...]
    by_tag: tuple[tuple[str, tuple[Share, ...]], ...] = ()
    tag_headers: bool = False
    redirect: bool = False
    mapped: bool = False
    rewrite: str = ""

    def targets(self) -> tuple[Target, ...]:
        tagged = (share for _tag, shares in self.by_tag for share in shares)
        return tuple(share.target for share in (*self.shares, *tagged))


class RevisionCluster(msgspec.Struct, frozen=True, kw_only=True):
    """One revision. `config` is what the activator needs of it and holds its key."""

    config: RevisionConfig
    mode: Mode
    upstream_idle_seconds: float = DEFAULT_UPSTREAM_IDLE_SECONDS
    idle_seconds: float = 0.0
    """Revision's idleTimeoutSeconds: longest silence between bytes of a response; 0 = unbounded."""
    service: str = ""
    configuration: str = ""

    @property
    def key(self) -> str:
        return self.config.key

    @property
    def per_host_connections(self) -> int | None:
        return self.config.container_concurrency if self.mode is Mode.LIMITED else None


class Endpoint(msgspec.Struct, frozen=True):
    """A pod as Envoy lists it."""

    uid: str
    address: str


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Pods of one revision in Envoy. `draining` keep their row in load reports but get no new request. The
    activator is always there as the last resort, and gets everything while `healthy` is empty."""

    revision: str
    h2c: bool
    healthy: tuple[Endpoint, ...] = ()
    draining: tuple[Endpoint, ...] = ()

    @property
    def cold(self) -> bool:
        return not self.healthy


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was left out, and whose fault it is. `object` is `Kind namespace/name`."""

    object: str
    reason: str
    message: str


class Ir(msgspec.Struct, frozen=True, kw_only=True):
    """`routes`: programmed hash by Route key, of Routes that have something to serve."""

    public: dict[str, VirtualHost] = {}
    local: dict[str, VirtualHost] = {}
    revisions: dict[str, RevisionCluster] = {}
    routes: dict[str, str] = {}


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What survives a restart of the gateway: its last IR with the pods it knew and listed."""

    ir: Ir
    pods: dict[str, tuple[PodEndpoint, ...]] = {}
    endpoints: dict[str, Endpoints] = {}
    pod_network: PodNetworkFacts | None = None


def validate(ir: Ir) -> list[str]:
    """Every breach of the invariants, in words; empty when there is none."""
    problems: list[str] = []
    owners: dict[str, str] = {}
    for listener, hosts in (("public", ir.public), ("local", ir.local)):
        for name, host in hosts.items():
            where = f"{listener} virtual host {name!r}"
            if host.name != name:
                problems.append(f"{where}: is filed under another name than its own, {host.name!r}")
            if not host.domains:
                problems.append(f"{where}: has no domain")
            total = sum(share.percent for share in host.shares)
            if total != 100:
                problems.append(f"{where}: percentages sum to {total}, want 100")
            problems += [
                f"{where}: unknown revision {target.revision!r}"
                for target in host.targets()
                if target.revision not in ir.revisions
            ]
            for domain in host.domains:
                owner = owners.setdefault(domain, where)
                if owner != where:
                    problems.append(f"{where}: domain {domain!r} already belongs to {owner}")
    problems += [
        f"revision {cluster.key!r}: is filed under {key!r}"
        for key, cluster in ir.revisions.items()
        if key != cluster.key
    ]
    return problems
