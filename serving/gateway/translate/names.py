"""Names of Envoy resources and of the keys that Envoy, the agent and the activator share."""

from __future__ import annotations

from typing import Final

AGENT_CLUSTER: Final = "agent"
"""The agent's Unix socket: xDS and load reports."""
AGENT_BRIDGE: Final = "agent-bridge"
"""Internal listener, and the cluster that leads to it: ext_authz and access log (agent_bridge.py)."""

PUBLIC: Final = "public"
LOCAL: Final = "cluster-local"
"""Listener and route configuration of each entrance."""
POD_HTTP: Final = "cluster-local-pods"
"""Listener inside the pods' network; its routes are those of `LOCAL`."""
KUBERNETES: Final = "kubernetes"
"""Listener inside the pods' network, and the cluster of the API server behind it."""

ACTIVATOR_H1: Final = "activator-h1"
ACTIVATOR_H2C: Final = "activator-h2c"
"""Internal listeners, and the ORIGINAL_DST clusters behind them."""

METADATA: Final = "nodeless"
"""Metadata namespace of activator endpoints; ext_authz sees it as metadata of the connection."""
METADATA_REVISION: Final = "rev"
TRANSPORT_MATCH: Final = "envoy.transport_socket_match"
TRANSPORT_ACTIVATOR: Final = "activator"

EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"
POD: Final = "pod"
"""Dynamic metadata of an OK answer of the activator: `{pod: "ip:port"}`, where the request is sent."""

POD_HEADER: Final = "x-nodeless-pod-ip"
"""Response header between our own listeners while requests are logged: the pod that answered a held request."""

UNCONNECTED_HEADER: Final = "x-nodeless-unconnected"
"""Response header between our own listeners: the release never connected, ask again. Its value is secret."""

COPY_SEPARATOR: Final = "#"
"""Separates the revision key from a number in `endpoint_id` where the activator is listed more than once."""


def activator_name(*, h2c: bool) -> str:
    return ACTIVATOR_H2C if h2c else ACTIVATOR_H1
