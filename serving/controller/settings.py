"""Settings of the controller process."""

from __future__ import annotations

from typing import Final

import msgspec

CLUSTER_GATEWAY: Final = "gateway-local.knative-serving.svc.cluster.local"
"""DNS name of the gateway's entrance for the cluster, where placeholder Services lead."""


class ControllerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`listen` is where gateways connect (`unix:/path` or `host:port`), `advertise` what the Lease tells them;
    `token` is the bearer token that they must send. `identity` names this replica: a restarted process that
    keeps it takes its own Lease over at once."""

    identity: str
    listen: str
    advertise: str
    token: str
    report_interval_seconds: float = 1.0
    cluster_gateway: str = CLUSTER_GATEWAY
