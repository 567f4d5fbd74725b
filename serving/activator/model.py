"""What the gateway tells the activator: one revision and its pods, as plain immutable values.

Both are level, not edge: `Activator.update` always gets the whole truth about one revision. Times are Unix
seconds. Addresses are `ip:port` as Envoy's ORIGINAL_DST cluster takes them (IPv6 in brackets).
"""

from __future__ import annotations

import msgspec

from serving.api.pod import Probe

DEFAULT_QUEUE_DEPTH = 10_000
"""Requests of one revision that may wait at once; Knative's depth of its activator."""

DEFAULT_MAX_IN_FLIGHT_PER_POD = 100
"""Pace of releases to one pod of a revision without a hard limit; Knative's default concurrency target."""


class RevisionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One revision as far as holding its requests is concerned.

    `container_concurrency` 0 is soft: releases are only paced, to `max_in_flight_per_pod` at a time for each
    pod. Above 0 it is a hard limit of requests in flight on one pod. `timeout_seconds` and
    `response_start_timeout_seconds` (None = no such limit) bound the hold, counted from its start.
    `readiness` None means a TCP connect to `port`. `port` is the revision's container port; a pod's own
    address may name another (the `process` sandbox), which then stands for it in probes too.
    """

    key: str
    uid: str
    container_concurrency: int
    timeout_seconds: float
    response_start_timeout_seconds: float | None
    h2c: bool
    readiness: Probe | None
    port: int
    queue_depth: int = DEFAULT_QUEUE_DEPTH
    max_in_flight_per_pod: int = DEFAULT_MAX_IN_FLIGHT_PER_POD
    server_timing: bool = False

    @property
    def hold_seconds(self) -> float:
        """How long a request may be held: the smaller of the two time-outs that count the hold."""
        if self.response_start_timeout_seconds is None:
            return self.timeout_seconds
        return min(self.timeout_seconds, self.response_start_timeout_seconds)

    @property
    def slots_per_pod(self) -> int:
        """Requests that may be in flight on one pod by way of the activator."""
        return self.container_concurrency or self.max_in_flight_per_pod


class PodEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One pod of a revision. `address` is `ip:port`, empty while unknown. `stages` are Unix times by name of
    `serving.api.keys.STAGES` (seen, network, image, started), for the budget of a cold start."""

    uid: str
    name: str
    address: str
    draining: bool
    terminating: bool
    kube_ready: bool
    created_at: float
    stages: dict[str, float]

    @property
    def eligible(self) -> bool:
        """May be given a new request once it has answered a probe."""
        return bool(self.address) and not self.draining and not self.terminating
