"""Where pods of this machine come in: cluster-local hosts at port 80, the API server at port 443.

The listeners are inside the pods' network, so that nothing of the host is in the way, and nobody else can reach
them. Listeners of the same namespace keep their names; a namespace that was made anew is another listener.
"""

from __future__ import annotations

from typing import Final

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from google.protobuf.wrappers_pb2 import BoolValue

from serving.api.podnetwork import HTTP_PORT, HTTPS_PORT, PodNetworkFacts
from serving.gateway.ir import RequestLog
from serving.gateway.translate import names
from serving.gateway.translate.clusters import BUFFER_BYTES, breakers
from serving.gateway.translate.listeners import Entrance, entrance
from serving.gateway.translate.proto import duration, pack, uint32

_CONNECT_SECONDS: Final = 5.0


def pod_entrances(network: PodNetworkFacts, *, api: bool, request_log: RequestLog | None = None) -> list[Listener]:
    """`api`: whether there is a cluster for the API server."""
    http = Entrance(
        name=_name(names.POD_HTTP, network),
        routes=names.LOCAL,
        address=network.gateway,
        port=HTTP_PORT,
        namespace=network.namespace,
        request_log=request_log,
    )
    return [entrance(http), *([_kubernetes(network)] if api else [])]


def api_cluster(address: str, port: int) -> Cluster:
    """The API server, where the gateway reaches it."""
    where = Address(socket_address=SocketAddress(address=address, port_value=port))
    endpoint = LbEndpoint(endpoint=Endpoint(address=where))
    return Cluster(
        name=names.KUBERNETES,
        type=Cluster.STATIC,
        connect_timeout=duration(_CONNECT_SECONDS),
        per_connection_buffer_limit_bytes=uint32(BUFFER_BYTES),
        circuit_breakers=breakers(),
        load_assignment=ClusterLoadAssignment(
            cluster_name=names.KUBERNETES, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
    )


def _kubernetes(network: PodNetworkFacts) -> Listener:
    proxy = TcpProxy(stat_prefix=names.KUBERNETES, cluster=names.KUBERNETES, idle_timeout=duration(0))
    where = SocketAddress(
        address=network.kubernetes, port_value=HTTPS_PORT, network_namespace_filepath=network.namespace
    )
    return Listener(
        name=_name(names.KUBERNETES, network),
        address=Address(socket_address=where),
        enable_reuse_port=BoolValue(value=True),
        per_connection_buffer_limit_bytes=uint32(BUFFER_BYTES),
        filter_chains=[
            FilterChain(filters=[Filter(name="envoy.filters.network.tcp_proxy", typed_config=pack(proxy))])
        ],
    )


def _name(kind: str, network: PodNetworkFacts) -> str:
    return f"{kind}/{network.identity}" if network.identity else kind
