"""The node agent's own metrics, in a registry of its own so that several agents fit into one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_START_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class NodeMetrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.pods = Gauge("nodeless_node_pods", "Pods that this node runs.", registry=self.registry)
        self.start_seconds = Histogram(
            "nodeless_node_pod_start_seconds",
            "From seeing a pod to the end of each stage of its first start.",
            ["stage"],
            buckets=_START_BUCKETS,
            registry=self.registry,
        )
        self.restarts = Counter(
            "nodeless_node_container_restarts", "Containers started again.", registry=self.registry
        )
        self.events_dropped = Counter(
            "nodeless_node_events_dropped", "Events not sent: over budget or refused.", registry=self.registry
        )
        self.probes = Counter(
            "nodeless_node_probe_changes",
            "Probe verdicts that changed, by kind and result.",
            ["kind", "result"],
            registry=self.registry,
        )
