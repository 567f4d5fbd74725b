"""What the HTTP connection managers of all listeners have in common."""

from __future__ import annotations

from typing import Any, Final

from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
)
from google.protobuf.wrappers_pb2 import BoolValue

from serving.gateway.translate.proto import duration, pack, uint32

HEADERS_KB: Final = 96
STREAM_WINDOW_BYTES: Final = 256 * 1024
CONNECTION_WINDOW_BYTES: Final = 1024 * 1024


def manager(**fields: Any) -> HttpConnectionManager:
    """Headers pass unchanged, streams have no idle limit but their route's, WebSockets may pass."""
    hcm = HttpConnectionManager(
        codec_type=HttpConnectionManager.AUTO,
        server_header_transformation=HttpConnectionManager.PASS_THROUGH,
        preserve_external_request_id=True,
        stream_idle_timeout=duration(0),
        delayed_close_timeout=duration(0.1),
        max_request_headers_kb=uint32(HEADERS_KB),
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        **fields,
    )
    hcm.http2_protocol_options.initial_stream_window_size.value = STREAM_WINDOW_BYTES
    hcm.http2_protocol_options.initial_connection_window_size.value = CONNECTION_WINDOW_BYTES
    return hcm


def router() -> HttpFilter:
    """Last filter. Adds no x-envoy-* headers, and keeps no counter per cluster and status code: nobody reads
    them (demand comes from load reports), and they cost every request (`loadtests.warm_path`)."""
    config = Router(suppress_envoy_headers=True, dynamic_stats=BoolValue(value=False))
    return HttpFilter(name="envoy.filters.http.router", typed_config=pack(config))


def chain(hcm: HttpConnectionManager) -> FilterChain:
    network = Filter(name="envoy.filters.network.http_connection_manager", typed_config=pack(hcm))
    return FilterChain(filters=[network])
