"""The gRPC services of Envoy that the activator implements, and what their server needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import grpc
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

SERVER_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_concurrent_streams", 1_000_000),
    ("grpc.server.max_pending_requests", 1_000_000),
    ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
    ("grpc.server_max_unrequested_time_in_server", 86_400),
    ("grpc.so_reuseport", 0),
)
"""For the `grpc.aio.server` that carries the activator: gRPC's defaults refuse Checks beyond a thousand."""


def handlers(*, check: Callable[..., Any], access_logs: Callable[..., Any]) -> tuple[grpc.GenericRpcHandler, ...]:
    """Handlers of envoy.service.auth.v3.Authorization and envoy.service.accesslog.v3.AccessLogService."""
    authorization = grpc.unary_unary_rpc_method_handler(
        check,
        request_deserializer=CheckRequest.FromString,
        response_serializer=CheckResponse.SerializeToString,
    )
    access_log = grpc.stream_unary_rpc_method_handler(
        access_logs,
        request_deserializer=StreamAccessLogsMessage.FromString,
        response_serializer=StreamAccessLogsResponse.SerializeToString,
    )
    return (
        grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": authorization}),
        grpc.method_handlers_generic_handler(
            "envoy.service.accesslog.v3.AccessLogService", {"StreamAccessLogs": access_log}
        ),
    )
