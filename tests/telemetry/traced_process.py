"""A process that traces one cold start and ends, for the test beside it."""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry

from serving.telemetry.budget import BudgetRecorder
from serving.telemetry.tracing import tracing


def main() -> None:
    with tracing("gateway"):
        recorder = BudgetRecorder(registry=CollectorRegistry())
        recorder.woken(revision="default/hello-00001", pod="hello-p", started=1000.0, stages={"create": 0.25})
    sys.stdout.write(str("opentelemetry.sdk" in sys.modules))


if __name__ == "__main__":
    main()
