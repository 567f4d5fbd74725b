"""The way from ext_authz and the access log to the agent: through an internal listener that waits for it.

Envoy's gRPC retries back off exponentially, each held request for itself, so after the agent was away for some
seconds some requests would be asked again only as long after its return. A TCP proxy in between tries its socket
every few milliseconds instead, and every Check goes out in the moment the agent is back. xDS and load reports do
not go this way: they have to see the connection break.
"""

from __future__ import annotations

from typing import Final

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, EnvoyInternalAddress
from envoy.config.core.v3.backoff_pb2 import BackoffStrategy
from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from envoy.extensions.transport_sockets.internal_upstream.v3.internal_upstream_pb2 import InternalUpstreamTransport
from envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2 import RawBuffer

from serving.gateway.translate import names
from serving.gateway.translate.clusters import (
    CONNECT_TIMEOUT_SECONDS,
    UPSTREAM_OPTIONS,
    breakers,
    upstream_options,
)
from serving.gateway.translate.proto import duration, pack, uint32

_ATTEMPTS: Final = 4_000_000_000


def bridge_listener() -> Listener:
    proxy = TcpProxy(
        stat_prefix=names.AGENT_BRIDGE,
        cluster=names.AGENT_CLUSTER,
        idle_timeout=duration(0),
        max_connect_attempts=uint32(_ATTEMPTS),
        backoff_options=BackoffStrategy(base_interval=duration(0.01), max_interval=duration(0.05)),
    )
    return Listener(
        name=names.AGENT_BRIDGE,
        internal_listener=Listener.InternalListenerConfig(),
        ignore_global_conn_limit=True,
        filter_chains=[
            FilterChain(filters=[Filter(name="envoy.filters.network.tcp_proxy", typed_config=pack(proxy))])
        ],
    )


def bridge_cluster() -> Cluster:
    address = EnvoyInternalAddress(server_listener_name=names.AGENT_BRIDGE)
    endpoint = LbEndpoint(endpoint=Endpoint(address=Address(envoy_internal_address=address)))
    raw = TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=pack(RawBuffer()))
    internal = InternalUpstreamTransport(transport_socket=raw)
    return Cluster(
        name=names.AGENT_BRIDGE,
        type=Cluster.STATIC,
        connect_timeout=duration(CONNECT_TIMEOUT_SECONDS),
        circuit_breakers=breakers(),
        transport_socket=TransportSocket(
            name="envoy.transport_sockets.internal_upstream", typed_config=pack(internal)
        ),
        load_assignment=ClusterLoadAssignment(
            cluster_name=names.AGENT_BRIDGE, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
        typed_extension_protocol_options={UPSTREAM_OPTIONS: upstream_options(h2c=True)},
    )
