"""Endpoints of a revision: its pods in priority 0, the activator's internal listener below them.

Cold, with no pod at all, the activator is priority 0. Draining pods keep their row, because a pod that leaves
vanishes from load reports although requests still run on it. The overprovisioning factor makes one healthy pod
enough: nothing spills to the activator beside it.
"""

from __future__ import annotations

import math
from typing import Final

from envoy.config.core.v3.address_pb2 import Address, EnvoyInternalAddress, SocketAddress
from envoy.config.core.v3.health_check_pb2 import HealthStatus
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint as EnvoyEndpoint
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from serving.gateway.ir import Endpoints
from serving.gateway.translate import names
from serving.gateway.translate.proto import uint32

_OVERPROVISIONING: Final = 1_000_000
_HELD_CONNECTIONS: Final = 1000
_MOST_COPIES: Final = 64


def load_assignment(endpoints: Endpoints, *, per_host: int | None = None) -> ClusterLoadAssignment:
    """EDS resource of one revision. `per_host`: its per-host connection limit, which holds for the activator
    too; so the activator is listed as often as it takes to hold about a thousand requests."""
    pods = [_pod(pod.address, HealthStatus.HEALTHY) for pod in endpoints.healthy]
    pods += [_pod(pod.address, HealthStatus.DRAINING) for pod in endpoints.draining]
    copies = min(math.ceil(_HELD_CONNECTIONS / per_host), _MOST_COPIES) if per_host else 1
    activator = [_activator(endpoints, copy) for copy in range(copies)]
    groups = [group for group in (pods, activator) if group]
    return ClusterLoadAssignment(
        cluster_name=endpoints.revision,
        endpoints=[
            LocalityLbEndpoints(priority=priority, lb_endpoints=group) for priority, group in enumerate(groups)
        ],
        policy=ClusterLoadAssignment.Policy(overprovisioning_factor=uint32(_OVERPROVISIONING)),
    )


def _pod(address: str, health: int) -> LbEndpoint:
    host, _, port = address.rpartition(":")
    socket = SocketAddress(address=host.strip("[]"), port_value=int(port))
    return LbEndpoint(endpoint=EnvoyEndpoint(address=Address(socket_address=socket)), health_status=health)


def _activator(endpoints: Endpoints, copy: int) -> LbEndpoint:
    endpoint_id = f"{endpoints.revision}{names.COPY_SEPARATOR}{copy}" if copy else endpoints.revision
    address = EnvoyInternalAddress(
        server_listener_name=names.activator_name(h2c=endpoints.h2c), endpoint_id=endpoint_id
    )
    row = LbEndpoint(endpoint=EnvoyEndpoint(address=Address(envoy_internal_address=address)))
    row.metadata.filter_metadata[names.METADATA].update({names.METADATA_REVISION: endpoints.revision})
    row.metadata.filter_metadata[names.TRANSPORT_MATCH].update({names.TRANSPORT_ACTIVATOR: True})
    return row
