"""The activator's internal listeners, one for HTTP/1.1 and one for h2c pods.

Every request through them asks the agent (ext_authz) and waits for its answer, which names the pod. The end of
each request is reported by the gRPC access log, one entry at a time. If the named pod cannot be connected to,
the 503 carries the marker on which the outer route asks again (routes.py).
"""

from __future__ import annotations

from typing import Final

from envoy.config.accesslog.v3.accesslog_pb2 import AccessLog, AccessLogFilter, ResponseFlagFilter
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.config.core.v3.base_pb2 import RetryPolicy as GrpcRetryPolicy
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.core.v3.grpc_service_pb2 import GrpcService
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, RouteAction, RouteMatch, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.access_loggers.grpc.v3.als_pb2 import CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthz
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpFilter,
    LocalReplyConfig,
    ResponseMapper,
)
from envoy.type.matcher.v3.string_pb2 import ListStringMatcher, StringMatcher
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.protobuf.wrappers_pb2 import BoolValue

from serving.api.keys import HEADER_BUDGET
from serving.gateway.translate import names
from serving.gateway.translate.clusters import BUFFER_BYTES, CONCURRENT_STREAMS
from serving.gateway.translate.hcm import chain, manager, router
from serving.gateway.translate.proto import duration, pack, uint32
from serving.gateway.translate.request_log import pod_header

HOLD_CAP_SECONDS: Final = 3900.0
"""Only a cap: the agent answers every held request at its own deadline, and the outer route has its own too."""

_RETRIES: Final = 1000
_RETRY_ON: Final = "unavailable,cancelled,internal,connect-failure,refused-stream,reset"
_LOG_FLUSH_SECONDS: Final = 0.01
_ASKED_HEADERS: Final = ("x-request-id", "user-agent", "traceparent", HEADER_BUDGET)


def activator_listener(*, h2c: bool, nonce: str, tell_pod: bool = False) -> Listener:
    """`nonce`: secret value of the marker header, new for each boot of Envoy. `tell_pod`: answers say which pod
    they are from (request_log.py)."""
    name = names.activator_name(h2c=h2c)
    hcm = manager(
        stat_prefix=name,
        route_config=_routes(name, tell_pod=tell_pod),
        http_filters=[
            HttpFilter(name=names.EXT_AUTHZ, typed_config=pack(_ext_authz())),
            router(),
        ],
        generate_request_id=BoolValue(value=False),
        skip_xff_append=True,
        local_reply_config=_marker(nonce),
        access_log=[AccessLog(name="envoy.access_loggers.http_grpc", typed_config=pack(_access_log(name)))],
    )
    hcm.http_protocol_options.accept_http_10 = True
    hcm.http2_protocol_options.max_concurrent_streams.value = CONCURRENT_STREAMS
    return Listener(
        name=name,
        internal_listener=Listener.InternalListenerConfig(),
        per_connection_buffer_limit_bytes=uint32(BUFFER_BYTES),
        ignore_global_conn_limit=True,
        filter_chains=[chain(hcm)],
    )


def _ext_authz() -> ExtAuthz:
    """A lost agent is bridged by asking its successor again; the request itself is never sent twice."""
    service = _agent(timeout_seconds=HOLD_CAP_SECONDS)
    service.retry_policy.CopyFrom(GrpcRetryPolicy(retry_on=_RETRY_ON, num_retries=uint32(_RETRIES)))
    # Envoy takes max_interval for the time-out of each try as well: below the hold it would ask again and again.
    service.retry_policy.retry_back_off.base_interval.CopyFrom(duration(0.025))
    service.retry_policy.retry_back_off.max_interval.CopyFrom(duration(HOLD_CAP_SECONDS))
    return ExtAuthz(
        grpc_service=service,
        transport_api_version=ApiVersion.V3,
        metadata_context_namespaces=[names.METADATA],
        allowed_headers=ListStringMatcher(patterns=[StringMatcher(exact=name) for name in _ASKED_HEADERS]),
        status_on_error=HttpStatus(code=503),
    )


def _access_log(name: str) -> HttpGrpcAccessLogConfig:
    return HttpGrpcAccessLogConfig(
        common_config=CommonGrpcAccessLogConfig(
            log_name=name,
            grpc_service=_agent(timeout_seconds=0.0),
            transport_api_version=ApiVersion.V3,
            buffer_size_bytes=uint32(1),
            buffer_flush_interval=duration(_LOG_FLUSH_SECONDS),
        ),
        additional_request_headers_to_log=["x-request-id"],
    )


def _agent(*, timeout_seconds: float) -> GrpcService:
    service = GrpcService(envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=names.AGENT_BRIDGE))
    if timeout_seconds:
        service.timeout.CopyFrom(duration(timeout_seconds))
    return service


def _routes(name: str, *, tell_pod: bool) -> RouteConfiguration:
    route = Route(
        match=RouteMatch(prefix="/"),
        route=RouteAction(cluster=name, timeout=duration(0), idle_timeout=duration(0)),
    )
    if tell_pod:
        route.response_headers_to_add.append(pod_header())
    return RouteConfiguration(name=name, virtual_hosts=[VirtualHost(name=name, domains=["*"], routes=[route])])


def _marker(nonce: str) -> LocalReplyConfig:
    unconnected = AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=["UF"]))
    header = HeaderValueOption(
        header=HeaderValue(key=names.UNCONNECTED_HEADER, value=nonce),
        append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    return LocalReplyConfig(mappers=[ResponseMapper(filter=unconnected, headers_to_add=[header])])
