"""The two entrances: public, and cluster-local on a port of its own. HTTP/1.1 and HTTP/2 on the same port."""

from __future__ import annotations

from typing import Final

import msgspec
from envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter, ResponseFlagFilter
from envoy.config.core.v3.address_pb2 import Address, CidrRange, SocketAddress
from envoy.config.core.v3.base_pb2 import DataSource
from envoy.config.core.v3.protocol_pb2 import HttpProtocolOptions
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    LocalReplyConfig,
    Rds,
    ResponseMapper,
)
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from serving.gateway.ir import RequestLog
from serving.gateway.translate.clusters import BUFFER_BYTES, ads
from serving.gateway.translate.hcm import chain, manager, router
from serving.gateway.translate.proto import TRUE, duration, uint32
from serving.gateway.translate.request_log import access_logs, pod_filter

_HEADERS_SECONDS: Final = 20.0
_CONNECTION_IDLE_SECONDS: Final = 3600.0
_BACKLOG: Final = 4096
_STREAMS: Final = 2000
_HEADER_COUNT: Final = 200

_NOBODY_IS_INTERNAL: Final = HttpConnectionManager.InternalAddressConfig(
    cidr_ranges=[CidrRange(address_prefix="255.255.255.255", prefix_len=UInt32Value(value=32))]
)
"""Envoy lets internal clients set time-outs and retries by x-envoy-* headers; without a range, all private
addresses are internal."""


class Entrance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a listener listens. `trusted_hops`: proxies in front of us whose X-Forwarded-For is believed.
    `routes`: route configuration, if not that of its own name. `namespace`: path of the network namespace, empty =
    Envoy's own."""

    name: str
    address: str
    port: int
    trusted_hops: int = 0
    routes: str = ""
    namespace: str = ""
    request_log: RequestLog | None = None


def entrance(at: Entrance) -> Listener:
    """Listener whose routes come by RDS.

    The port is not shared (SO_REUSEPORT): a second gateway on the same port must fail, not steal connections. In a
    namespace of the pods only our Envoy listens, and its successor may begin before the former ends.
    """
    hcm = manager(
        stat_prefix=at.routes or at.name,
        rds=Rds(config_source=ads(), route_config_name=at.routes or at.name),
        http_filters=[*([pod_filter()] if at.request_log else []), router()],
        access_log=access_logs(at.request_log) if at.request_log else [],
        use_remote_address=TRUE,
        xff_num_trusted_hops=at.trusted_hops,
        generate_request_id=TRUE,
        normalize_path=TRUE,
        strip_trailing_host_dot=True,
        request_headers_timeout=duration(_HEADERS_SECONDS),
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=duration(_CONNECTION_IDLE_SECONDS), max_headers_count=uint32(_HEADER_COUNT)
        ),
        internal_address_config=_NOBODY_IS_INTERNAL,
        local_reply_config=_timeout_text(),
    )
    hcm.http_protocol_options.accept_http_10 = True
    hcm.http2_protocol_options.max_concurrent_streams.value = _STREAMS
    where = SocketAddress(address=at.address, port_value=at.port, network_namespace_filepath=at.namespace)
    return Listener(
        name=at.name,
        address=Address(socket_address=where),
        enable_reuse_port=BoolValue(value=bool(at.routes)),
        tcp_backlog_size=uint32(_BACKLOG),
        per_connection_buffer_limit_bytes=uint32(BUFFER_BYTES),
        filter_chains=[chain(hcm)],
    )


def _timeout_text() -> LocalReplyConfig:
    """504 with Knative's text, for a response that did not start in time or a silence that was too long."""
    flag = AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=["UT", "SI"]))
    return LocalReplyConfig(
        mappers=[ResponseMapper(filter=flag, body=DataSource(inline_string="request timeout"))]
    )
