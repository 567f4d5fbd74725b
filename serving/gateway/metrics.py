"""What this gateway knows of each revision's load, as Prometheus metrics (see docs/operations.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from serving.api.reports import Demand, RevisionDemand

_LABELS = ("namespace_name", "revision_name")


class DemandMetrics:
    """A collector, registered until `close`. `held(key)` is asked at the time of the scrape, the rest is of
    Envoy's last load report. Revisions that are gone are forgotten: `revisions()` names those that exist.
    """

    def __init__(
        self,
        *,
        revisions: Callable[[], Iterable[str]],
        held: Callable[[str], int],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._revisions = revisions
        self._held = held
        self._last: Mapping[str, RevisionDemand] = {}
        self._requests: dict[str, int] = {}
        self._registry = registry
        registry.register(self)

    def close(self) -> None:
        self._registry.unregister(self)

    def describe(self) -> list[Metric]:
        """Nothing fixed: one process may hold several gateways in tests."""
        return []

    def record(self, demand: Demand) -> None:
        """Add one report interval."""
        self._last = demand.revisions
        for key, row in demand.revisions.items():
            if row.issued:
                self._requests[key] = self._requests.get(key, 0) + row.issued

    def collect(self) -> Iterator[Metric]:
        held = GaugeMetricFamily(
            "nodeless_revision_held_requests", "Requests that wait for a pod in the activator", labels=_LABELS
        )
        running = GaugeMetricFamily(
            "nodeless_revision_in_progress_requests",
            "Requests in progress at the last load report, held ones included",
            labels=_LABELS,
        )
        requests = CounterMetricFamily(
            "nodeless_revision_requests", "Requests that Envoy sent to the revision", labels=_LABELS
        )
        present = set(self._revisions())
        self._requests = {key: count for key, count in self._requests.items() if key in present}
        for key in sorted(present):
            row, labels = self._last.get(key), key.split("/", 1)
            held.add_metric(labels, self._held(key))
            running.add_metric(labels, row.in_progress if row is not None else 0)
            requests.add_metric(labels, self._requests.get(key, 0))
        yield from (held, running, requests)
