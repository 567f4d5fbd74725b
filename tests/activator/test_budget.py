from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from serving.telemetry.budget import BudgetRecorder

STAGES = {"queue": 0.001, "app": 0.05}


def test_histograms_and_log_line(caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    recorder = BudgetRecorder(registry=registry)
    recorder.held(0.06, cold=True)
    recorder.held(0.001, cold=False)
    with caplog.at_level(logging.INFO, logger="serving.telemetry.budget"):
        recorder.woken(revision="ns/r", pod="p", started=10.0, stages=STAGES)
    assert caplog.messages == ["cold start revision=ns/r pod=p total=51.0ms queue=1.0 app=50.0"]
    assert registry.get_sample_value("nodeless_hold_seconds_sum", {"start": "cold"}) == 0.06
    assert registry.get_sample_value("nodeless_cold_start_stage_seconds_sum", {"stage": "app"}) == 0.05


def test_spans_lie_end_to_end_in_the_requests_own_trace() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    recorder = BudgetRecorder(registry=CollectorRegistry(), tracer=provider.get_tracer("test"))
    recorder.woken(
        revision="ns/r",
        pod="p",
        started=10.0,
        stages=STAGES,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    queue, app, whole = exporter.get_finished_spans()
    assert whole.context is not None
    assert format(whole.context.trace_id, "032x") == "0af7651916cd43dd8448eb211c80319c"
    assert (whole.name, queue.name, app.name) == ("cold start", "queue", "app")
    assert queue.parent == app.parent
    assert (queue.start_time, queue.end_time) == (10_000_000_000, 10_001_000_000)
    assert (app.start_time, app.end_time) == (10_001_000_000, 10_051_000_000)
    assert whole.end_time == app.end_time
    provider.shutdown()
