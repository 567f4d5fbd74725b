"""`config-observability`: request logs, metrics, traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from serving.api.config.reader import Reader
from serving.api.config.request_log import TemplateError, parse_log
from serving.api.duration import SECOND, format_duration
from serving.api.names import quote

CONFIG_NAME: Final = "config-observability"
DEFAULT_REQUEST_LOG_TEMPLATE: Final = (
    '{"httpRequest": {"requestMethod": "{{.Request.Method}}", '
    '"requestUrl": "{{js .Request.RequestURI}}", '
    '"requestSize": "{{.Request.ContentLength}}", '
    '"status": {{.Response.Code}}, '
    '"responseSize": "{{.Response.Size}}", '
    '"userAgent": "{{js .Request.UserAgent}}", '
    '"remoteIp": "{{js .Request.RemoteAddr}}", '
    '"serverIp": "{{.Revision.PodIP}}", '
    '"referer": "{{js .Request.Referer}}", '
    '"latency": "{{.Response.Latency}}s", '
    '"protocol": "{{.Request.Proto}}"}, '
    '"traceId": "{{.TraceID}}"}'
)
_EXPORTERS: Final = ("grpc", "http/protobuf")


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True):
    protocol: str = "none"
    """none, prometheus, grpc or http/protobuf."""
    endpoint: str = ""
    """Required by grpc and http/protobuf."""
    export_interval: float = 0.0
    """Seconds; 0 = the exporter's own default."""


class TracingConfig(msgspec.Struct, frozen=True, kw_only=True):
    protocol: str = "none"
    """none, stdout, grpc or http/protobuf."""
    endpoint: str = ""
    sampling_rate: float = 0.0
    """[0, 1]."""


class ObservabilityConfig(msgspec.Struct, frozen=True, kw_only=True):
    enable_var_log_collection: bool = False
    revision_url_template: str = ""
    """`${REVISION_UID}` becomes the Revision's uid; the result is its status.logUrl."""
    request_log_template: str = DEFAULT_REQUEST_LOG_TEMPLATE
    enable_request_log: bool = False
    enable_probe_request_log: bool = False
    metrics: MetricsConfig = MetricsConfig()
    request_metrics: MetricsConfig = MetricsConfig()
    tracing: TracingConfig = TracingConfig()
    runtime_profiling: bool = False


def parse(data: Mapping[str, str]) -> ObservabilityConfig:
    """The configuration of a ConfigMap's `data`. Raises ConfigError for the first value that is not allowed."""
    default = ObservabilityConfig()
    read = Reader(data)
    tracing = _tracing(read)
    metrics = _metrics(read, "")
    profiling = read.text("runtime-profiling", "disabled")
    if profiling not in ("enabled", "disabled"):
        message = f"unsupported profile setting {quote(profiling)}"
        raise read.refused(message, "runtime-profiling", "enabled or disabled")
    request_metrics = _metrics(read, "request-")
    config = ObservabilityConfig(
        enable_var_log_collection=read.flag("logging.enable-var-log-collection", False),
        revision_url_template=read.text("logging.revision-url-template", default.revision_url_template),
        request_log_template=read.text("logging.request-log-template", default.request_log_template),
        enable_request_log=read.flag("logging.enable-request-log", False),
        enable_probe_request_log=read.flag("logging.enable-probe-request-log", False),
        metrics=metrics,
        request_metrics=request_metrics,
        tracing=tracing,
        runtime_profiling=profiling == "enabled",
    )
    if config.enable_request_log and not config.request_log_template:
        key, template = "logging.enable-request-log", "logging.request-log-template"
        message = f"{quote(key)} was set to true, but no {quote(template)} was specified"
        raise read.refused(message, template, "a Go template")
    opened = config.request_log_template.rpartition("{{")
    if opened[1] and "}}" not in opened[2]:
        message = "template: requestLog:1: unclosed action"
        raise read.refused(message, "logging.request-log-template", "a Go template")
    if config.enable_request_log:
        try:
            parse_log(config.request_log_template)
        except TemplateError as error:
            message = f"template: requestLog:1: {error}"
            raise read.refused(message, "logging.request-log-template", "a text with fields in it") from error
    return config


def _metrics(read: Reader, prefix: str) -> MetricsConfig:
    protocol = read.text(f"{prefix}metrics-protocol", "none")
    endpoint = read.text(f"{prefix}metrics-endpoint", "")
    interval = read.nanoseconds(f"{prefix}metrics-export-interval", 0)
    if protocol in _EXPORTERS and not endpoint:
        message = f"endpoint should be set when protocol is {quote(protocol)}"
        raise read.refused(message, f"{prefix}metrics-endpoint", "a URL")
    if protocol == "none" and endpoint:
        message = f"endpoint should not be set when protocol is {quote(protocol)}"
        raise read.refused(message, f"{prefix}metrics-endpoint", "nothing, or another protocol")
    if protocol not in (*_EXPORTERS, "none", "prometheus"):
        message = f"unsupported protocol {quote(protocol)}"
        raise read.refused(message, f"{prefix}metrics-protocol", "none, prometheus, grpc or http/protobuf")
    if interval < 0:
        message = f"export interval {quote(format_duration(interval))} should be greater than zero"
        raise read.refused(message, f"{prefix}metrics-export-interval", "0s or more")
    return MetricsConfig(protocol=protocol, endpoint=endpoint, export_interval=interval / SECOND)


def _tracing(read: Reader) -> TracingConfig:
    protocol = read.text("tracing-protocol", "none")
    endpoint = read.text("tracing-endpoint", "")
    rate = read.number("tracing-sampling-rate", 0.0)
    if protocol in _EXPORTERS and not endpoint:
        message = f"endpoint should be set for protocol {quote(protocol)}"
        raise read.refused(message, "tracing-endpoint", "a URL")
    if protocol in ("none", "stdout") and endpoint:
        message = "endpoint should not be set when protocol is 'none'"
        raise read.refused(message, "tracing-endpoint", "nothing, or another protocol")
    if protocol not in (*_EXPORTERS, "none", "stdout"):
        message = f"unsupported protocol {quote(protocol)}"
        raise read.refused(message, "tracing-protocol", "none, stdout, grpc or http/protobuf")
    if rate < 0:
        message = f"sampling rate {rate:f} should be greater or equal to zero"
        raise read.refused(message, "tracing-sampling-rate", "0 to 1")
    if rate > 1:
        message = f"sampling rate {rate:f} should be less than or equal to one"
        raise read.refused(message, "tracing-sampling-rate", "0 to 1")
    return TracingConfig(protocol=protocol, endpoint=endpoint, sampling_rate=rate)
