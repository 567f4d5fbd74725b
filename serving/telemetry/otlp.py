"""Export of spans as OTLP/HTTP with JSON bodies.

Our own, because the exporters of OpenTelemetry need its protobuf messages, and `xds-protos`, which we need for
Envoy, installs old ones over them. JSON is the other encoding that every OTLP receiver must accept.
Imported only where tracing is on: it loads the SDK.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id, format_trace_id

from serving.api.meta import JsonObject

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS: Final = 3.0
"""Of one export. It also bounds how long the last one can delay the end of a process."""


class OtlpJsonExporter(SpanExporter):
    """Posts batches to `url`, in the caller's thread (the SDK's own). A batch that fails is lost and logged."""

    def __init__(self, url: str, *, headers: Mapping[str, str]) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"OTLP endpoint {url!r}: must be an http or https URL")
        self._url = url
        self._headers = {**headers, "Content-Type": "application/json"}

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        body = msgspec.json.encode(trace_request(spans))
        request = urllib.request.Request(self._url, data=body, headers=self._headers)  # noqa: S310 - checked above
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):  # noqa: S310 - checked above
                return SpanExportResult.SUCCESS
        except (OSError, urllib.error.URLError) as error:
            log.warning("%d spans were lost: %s: %s", len(spans), self._url, error)
            return SpanExportResult.FAILURE


def parse_headers(text: str) -> dict[str, str]:
    """`name=value,name=value`, URL-encoded, as in OTEL_EXPORTER_OTLP_HEADERS. Parts without a name are ignored."""
    pairs = (part.partition("=") for part in text.split(","))
    return {unquote(name).strip(): unquote(value).strip() for name, _, value in pairs if name.strip()}


def trace_request(spans: Sequence[ReadableSpan]) -> JsonObject:
    """An `ExportTraceServiceRequest` in OTLP's JSON. All spans have one resource: they are of one process."""
    if not spans:
        return {"resourceSpans": []}
    by_scope = sorted(spans, key=_scope_name)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(spans[0].resource.attributes)},
                "scopeSpans": [
                    {"scope": {"name": name}, "spans": [_span(span) for span in group]}
                    for name, group in groupby(by_scope, key=_scope_name)
                ],
            }
        ]
    }


def _scope_name(span: ReadableSpan) -> str:
    return span.instrumentation_scope.name if span.instrumentation_scope is not None else ""


def _span(span: ReadableSpan) -> JsonObject:
    context = span.get_span_context()
    if context is None:
        raise ValueError(f"span {span.name!r} has no context")
    body: JsonObject = {
        "traceId": format_trace_id(context.trace_id),
        "spanId": format_span_id(context.span_id),
        "name": span.name,
        "kind": span.kind.value + 1,  # OTLP's enumeration begins with "unspecified"
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}),
        "status": {"code": span.status.status_code.value, "message": span.status.description or ""},
    }
    if span.parent is not None:
        body["parentSpanId"] = format_span_id(span.parent.span_id)
    return body


def _attributes(attributes: Mapping[str, object]) -> list[JsonObject]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: object) -> JsonObject:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list() | tuple():
            return {"arrayValue": {"values": [_value(item) for item in value]}}
        case _:
            return {"stringValue": str(value)}
