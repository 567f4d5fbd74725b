"""Traces of a server process, sent over OTLP/HTTP when the environment names a collector.

Nothing of the OpenTelemetry SDK is imported otherwise: without a provider the API's spans do nothing. Export runs
in a thread of the SDK with bounded memory: a collector that is away costs spans, never requests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

_GENERAL: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def traces_url(environment: Mapping[str, str]) -> str | None:
    """Where spans go: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT as it is, else `/v1/traces` below
    OTEL_EXPORTER_OTLP_ENDPOINT. None = nowhere, also with OTEL_SDK_DISABLED or another OTEL_TRACES_EXPORTER."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    if url := environment.get(_TRACES):
        return url
    base = environment.get(_GENERAL)
    return base.rstrip("/") + "/v1/traces" if base else None


@contextmanager
def tracing(component: str) -> Iterator[None]:
    """Export the spans of this process as service `nodeless-<component>` while inside; the last ones on leaving.

    The SDK reads the rest of its own variables: sampler, OTEL_RESOURCE_ATTRIBUTES and so on; OTEL_SERVICE_NAME
    wins over our name. May be entered once in a process. Raises ValueError for an endpoint that is no URL.
    """
    url = traces_url(os.environ)
    if url is None:
        yield
        return
    from opentelemetry import trace
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from serving.telemetry.otlp import OtlpJsonExporter, parse_headers

    general = os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    headers = parse_headers(os.environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS", general))
    resource = Resource({SERVICE_NAME: f"nodeless-{component}"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OtlpJsonExporter(url, headers=headers)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
