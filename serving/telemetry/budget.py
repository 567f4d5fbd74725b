"""Where the time of cold requests went: histogram, span and log line.

Every held request goes into the histograms, since percentiles need all of them. The span and the log line are
for the request that woke the service: the thousands that queued behind it would say the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

logger = logging.getLogger(__name__)

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds, from a slot that was free at once to a slow image."""

_NANOSECONDS = 1_000_000_000


class BudgetRecorder:
    """Exports budgets. One per process; `registry` is where its two histograms are registered."""

    def __init__(self, *, registry: CollectorRegistry = REGISTRY, tracer: trace.Tracer | None = None) -> None:
        self._total = Histogram(
            "nodeless_hold_seconds",
            "Time a request was held before it was released to a pod, by whether it waited for a start.",
            ["start"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._stage = Histogram(
            "nodeless_cold_start_stage_seconds",
            "Time of a cold start by stage, of the request that woke the service.",
            ["stage"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._cold = self._total.labels("cold")
        self._warm = self._total.labels("warm")
        self._tracer = tracer or trace.get_tracer("nodeless.activator")
        self._propagator = TraceContextTextMapPropagator()

    def held(self, seconds: float, *, cold: bool) -> None:
        """A held request was released after `seconds`. `cold`: no pod was ready when it came."""
        (self._cold if cold else self._warm).observe(seconds)

    def woken(
        self, *, revision: str, pod: str, started: float, stages: Mapping[str, float], traceparent: str = ""
    ) -> None:
        """A service was woken by a request that came at `started` (Unix seconds); `stages` in seconds, in
        order. The span is a child of the request's own trace when it carries one."""
        for stage, seconds in stages.items():
            self._stage.labels(stage).observe(seconds)
        self._span(revision=revision, pod=pod, started=started, stages=stages, traceparent=traceparent)
        logger.info(
            "cold start revision=%s pod=%s total=%.1fms %s",
            revision,
            pod,
            sum(stages.values()) * 1000,
            " ".join(f"{stage}={seconds * 1000:.1f}" for stage, seconds in stages.items()),
        )

    def _span(
        self, *, revision: str, pod: str, started: float, stages: Mapping[str, float], traceparent: str
    ) -> None:
        context: Context | None = None
        if traceparent:
            context = self._propagator.extract({"traceparent": traceparent})
        at = int(started * _NANOSECONDS)
        span = self._tracer.start_span(
            "cold start",
            context=context,
            start_time=at,
            attributes={"nodeless.revision": revision, "k8s.pod.name": pod},
        )
        inner = trace.set_span_in_context(span)
        for stage, seconds in stages.items():
            child = self._tracer.start_span(stage, context=inner, start_time=at)
            at += int(seconds * _NANOSECONDS)
            child.end(end_time=at)
        span.end(end_time=at)
