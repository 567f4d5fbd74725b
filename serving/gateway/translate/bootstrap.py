"""Envoy's bootstrap: the way to the agent, and nothing that changes while Envoy lives."""

from __future__ import annotations

from typing import Final

import msgspec
from envoy.config.bootstrap.v3.bootstrap_pb2 import Admin, Bootstrap, ClusterManager
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, Pipe
from envoy.config.core.v3.backoff_pb2 import BackoffStrategy
from envoy.config.core.v3.base_pb2 import Node, RetryPolicy
from envoy.config.core.v3.config_source_pb2 import (
    AggregatedConfigSource,
    ApiConfigSource,
    ApiVersion,
    ConfigSource,
)
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.core.v3.grpc_service_pb2 import GrpcService
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.metrics.v3.stats_pb2 import StatsConfig, StatsMatcher
from envoy.config.overload.v3.overload_pb2 import OverloadManager, ResourceMonitor
from envoy.extensions.bootstrap.internal_listener.v3.internal_listener_pb2 import InternalListener
from envoy.extensions.resource_monitors.downstream_connections.v3.downstream_connections_pb2 import (
    DownstreamConnectionsConfig,
)
from envoy.type.matcher.v3.string_pb2 import ListStringMatcher, StringMatcher

from serving.gateway.translate import names
from serving.gateway.translate.agent_bridge import bridge_cluster, bridge_listener
from serving.gateway.translate.clusters import (
    CONNECT_TIMEOUT_SECONDS,
    UPSTREAM_OPTIONS,
    breakers,
    upstream_options,
)
from serving.gateway.translate.proto import duration, pack

_STATS: Final = (
    "server.",
    "listener_manager.",
    "cluster_manager.",
    f"http.{names.PUBLIC}.",
    f"http.{names.LOCAL}.",
    f"cluster.{names.AGENT_CLUSTER}.",
)


class BootstrapConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`node_id`: name of the gateway. Paths are Unix sockets. `max_connections` of clients, 0 = no limit."""

    node_id: str
    agent_socket: str
    admin_socket: str
    max_connections: int = 0


def bootstrap(config: BootstrapConfig) -> Bootstrap:
    message = Bootstrap(
        node=Node(id=config.node_id, cluster="nodeless"),
        admin=Admin(address=Address(pipe=Pipe(path=config.admin_socket, mode=0o600))),
        cluster_manager=ClusterManager(enable_deferred_cluster_creation=True),
        bootstrap_extensions=[
            TypedExtensionConfig(name="envoy.bootstrap.internal_listener", typed_config=pack(InternalListener()))
        ],
        stats_config=StatsConfig(
            stats_matcher=StatsMatcher(
                inclusion_list=ListStringMatcher(patterns=[StringMatcher(prefix=prefix) for prefix in _STATS])
            )
        ),
    )
    message.deferred_stat_options.enable_deferred_creation_stats = True
    message.static_resources.clusters.extend([_agent_cluster(config.agent_socket), bridge_cluster()])
    message.static_resources.listeners.append(bridge_listener())
    resources = message.dynamic_resources
    resources.ads_config.CopyFrom(
        ApiConfigSource(
            api_type=ApiConfigSource.DELTA_GRPC,
            transport_api_version=ApiVersion.V3,
            set_node_on_first_message_only=True,
            grpc_services=[_agent()],
        )
    )
    for source in (resources.cds_config, resources.lds_config):
        source.CopyFrom(ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3))
    loads = message.cluster_manager.load_stats_config
    loads.api_type = ApiConfigSource.GRPC
    loads.transport_api_version = ApiVersion.V3
    loads.grpc_services.append(_agent())
    if config.max_connections:
        message.overload_manager.CopyFrom(_connection_limit(config.max_connections))
    return message


def _agent() -> GrpcService:
    """A restarted agent is found again within a second, not within Envoy's default of up to 30 s."""
    back_off = BackoffStrategy(base_interval=duration(0.1), max_interval=duration(1.0))
    return GrpcService(
        envoy_grpc=GrpcService.EnvoyGrpc(
            cluster_name=names.AGENT_CLUSTER, retry_policy=RetryPolicy(retry_back_off=back_off)
        )
    )


def _agent_cluster(socket: str) -> Cluster:
    endpoint = LbEndpoint(endpoint=Endpoint(address=Address(pipe=Pipe(path=socket))))
    return Cluster(
        name=names.AGENT_CLUSTER,
        type=Cluster.STATIC,
        connect_timeout=duration(CONNECT_TIMEOUT_SECONDS),
        circuit_breakers=breakers(),
        load_assignment=ClusterLoadAssignment(
            cluster_name=names.AGENT_CLUSTER, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
        typed_extension_protocol_options={UPSTREAM_OPTIONS: upstream_options(h2c=True)},
    )


def _connection_limit(limit: int) -> OverloadManager:
    config = DownstreamConnectionsConfig(max_active_downstream_connections=limit)
    monitor = ResourceMonitor(
        name="envoy.resource_monitors.global_downstream_max_connections", typed_config=pack(config)
    )
    return OverloadManager(resource_monitors=[monitor])
