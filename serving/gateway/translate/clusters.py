"""Clusters: one EDS cluster per revision, and the two ORIGINAL_DST clusters through which requests are released.

Limits that Envoy would enforce by default (1024 connections and requests, 3 retries) are raised out of reach:
holding is the activator's business, and a retry refused by a breaker is a lost request.
"""

from __future__ import annotations

from typing import Final

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import Metadata, TransportSocket
from envoy.config.core.v3.config_source_pb2 import AggregatedConfigSource, ApiVersion, ConfigSource
from envoy.config.core.v3.protocol_pb2 import Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions
from envoy.extensions.transport_sockets.internal_upstream.v3.internal_upstream_pb2 import InternalUpstreamTransport
from envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2 import RawBuffer
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import (
    HttpProtocolOptions as UpstreamHttpOptions,
)
from envoy.type.metadata.v3.metadata_pb2 import MetadataKey, MetadataKind
from envoy.type.v3.percent_pb2 import Percent
from google.protobuf.struct_pb2 import Struct

from serving.gateway.ir import DEFAULT_UPSTREAM_IDLE_SECONDS, RevisionCluster
from serving.gateway.translate import names
from serving.gateway.translate.proto import UNLIMITED, duration, pack, uint32

CONNECT_TIMEOUT_SECONDS: Final = 1.0
"""Dead virtual machines swallow SYNs."""

BUFFER_BYTES: Final = 128 * 1024
"""Per upstream connection. Small, so that the body of a held request stays with the client or in the router's
retry buffer (1 MiB) as a whole, and a release that did not connect can be asked again."""

CONCURRENT_STREAMS: Final = 2**31 - 1
UPSTREAM_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def revision_cluster(cluster: RevisionCluster) -> Cluster:
    """The cluster of one revision; its pods come by EDS."""
    return Cluster(
        name=cluster.key,
        type=Cluster.EDS,
        metadata=_labels(cluster),
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=ads()),
        lb_policy=Cluster.LEAST_REQUEST,
        least_request_lb_config=Cluster.LeastRequestLbConfig(choice_count=uint32(2)),
        connect_timeout=duration(CONNECT_TIMEOUT_SECONDS),
        per_connection_buffer_limit_bytes=uint32(BUFFER_BYTES),
        circuit_breakers=breakers(per_host=cluster.per_host_connections),
        common_lb_config=Cluster.CommonLbConfig(healthy_panic_threshold=Percent(value=0)),
        ignore_health_on_host_removal=True,
        transport_socket_matches=_transport_sockets(),
        typed_extension_protocol_options={
            UPSTREAM_OPTIONS: upstream_options(h2c=cluster.config.h2c, idle_seconds=cluster.upstream_idle_seconds)
        },
    )


def _labels(cluster: RevisionCluster) -> Metadata:
    """What the request log may say of a revision."""
    namespace, _, name = cluster.key.partition("/")
    metadata = Metadata()
    metadata.filter_metadata[names.METADATA].update(
        {
            "name": name,
            "namespace": namespace,
            "service": cluster.service,
            "configuration": cluster.configuration,
        }
    )
    return metadata


def release_cluster(*, h2c: bool) -> Cluster:
    """Connects to exactly the pod that the activator named in its answer."""
    return Cluster(
        name=names.activator_name(h2c=h2c),
        type=Cluster.ORIGINAL_DST,
        lb_policy=Cluster.CLUSTER_PROVIDED,
        original_dst_lb_config=Cluster.OriginalDstLbConfig(
            metadata_key=MetadataKey(key=names.EXT_AUTHZ, path=[MetadataKey.PathSegment(key=names.POD)])
        ),
        connect_timeout=duration(CONNECT_TIMEOUT_SECONDS),
        per_connection_buffer_limit_bytes=uint32(BUFFER_BYTES),
        circuit_breakers=breakers(),
        typed_extension_protocol_options={
            UPSTREAM_OPTIONS: upstream_options(h2c=h2c, idle_seconds=DEFAULT_UPSTREAM_IDLE_SECONDS)
        },
    )


def ads() -> ConfigSource:
    return ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)


def breakers(*, per_host: int | None = None) -> CircuitBreakers:
    """All limits out of reach, but connections per host where that is how concurrency is limited."""
    limits = CircuitBreakers(
        thresholds=[
            CircuitBreakers.Thresholds(
                max_connections=uint32(UNLIMITED),
                max_pending_requests=uint32(UNLIMITED),
                max_requests=uint32(UNLIMITED),
                max_retries=uint32(UNLIMITED),
            )
        ]
    )
    if per_host is not None:
        limits.per_host_thresholds.add(max_connections=uint32(per_host))
    return limits


def upstream_options(*, h2c: bool, idle_seconds: float | None = None) -> object:
    """Protocol towards pods, in an Any."""
    options = UpstreamHttpOptions()
    if h2c:
        options.explicit_http_config.http2_protocol_options.CopyFrom(
            Http2ProtocolOptions(
                max_concurrent_streams=uint32(CONCURRENT_STREAMS),
                initial_stream_window_size=uint32(256 * 1024),
                initial_connection_window_size=uint32(1024 * 1024),
            )
        )
    else:
        options.explicit_http_config.http_protocol_options.CopyFrom(Http1ProtocolOptions())
    if idle_seconds is not None:
        options.common_http_protocol_options.CopyFrom(HttpProtocolOptions(idle_timeout=duration(idle_seconds)))
    return pack(options)


def _transport_sockets() -> list[Cluster.TransportSocketMatch]:
    match = Struct()
    match.update({names.TRANSPORT_ACTIVATOR: True})
    raw = TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=pack(RawBuffer()))
    host_metadata = InternalUpstreamTransport.MetadataValueSource(
        kind=MetadataKind(host=MetadataKind.Host()), name=names.METADATA
    )
    internal = TransportSocket(
        name="envoy.transport_sockets.internal_upstream",
        typed_config=pack(InternalUpstreamTransport(passthrough_metadata=[host_metadata], transport_socket=raw)),
    )
    return [
        Cluster.TransportSocketMatch(name="activator", match=match, transport_socket=internal),
        Cluster.TransportSocketMatch(name="pod", match=Struct(), transport_socket=raw),
    ]
