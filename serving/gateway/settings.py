"""Settings of one gateway process."""

from __future__ import annotations

from pathlib import Path

import msgspec

from serving.api.routing import DEFAULT_CLUSTER_DOMAIN


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is unique among the gateways of a cluster. Unix sockets lie in `run_dir`, whose path must be short
    (a socket's path has at most 107 bytes). Port 0 = a free one, kept over restarts while it stays free.

    `token` authenticates us to the controller; `controller` overrides the address from its Lease. `concurrency`
    is the number of Envoy's workers; above 1, hard limits are kept by slots. `max_connections` of clients,
    0 = no limit. `drain_seconds`: how long requests may run on at an orderly stop.
    """

    name: str
    data_dir: Path
    run_dir: Path
    token: str
    address: str = "127.0.0.1"
    port: int = 8080
    local_address: str = ""
    """Where the cluster-local listener binds; empty = as `address`."""
    local_port: int = 8081
    trusted_hops: int = 0
    concurrency: int = 1
    max_connections: int = 0
    cluster_domain: str = DEFAULT_CLUSTER_DOMAIN
    controller: str = ""
    node: str = ""
    """The Node of this machine, whose pods come in by listeners of their own; empty = there is none."""
    api: tuple[str, int] | None = None
    """Where those pods' `kubernetes.default.svc` leads to."""
    request_log: Path | None = None
    """Where requests are logged if config-observability wants it; None = `requests.log` in the data directory."""
    drain_seconds: float = 5.0
    stored_after_seconds: float = 3.0
    """How long to wait for the API server at the start before the stored snapshot is served."""

    @property
    def request_log_file(self) -> Path:
        return self.request_log or self.data_dir / "requests.log"

    @property
    def agent_socket(self) -> Path:
        return self.run_dir / "gateway.sock"

    @property
    def admin_socket(self) -> Path:
        return self.run_dir / "envoy-admin.sock"
