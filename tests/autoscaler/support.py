"""Parameters as in the reference tables: target is `total` times 0.7 unless given."""

from __future__ import annotations

from serving.api.config.autoscaler import KPA_CLASS
from serving.autoscaler.parameters import Aggregation, Metric, ScalingParameters


def parameters(
    *,
    total: float = 100.0,
    target: float | None = None,
    metric: Metric = "concurrency",
    burst: float = 211.0,
    up: float = 1000.0,
    down: float = 2.0,
    window: float = 60.0,
    panic: float | None = None,
    activation: int = 0,
    delay: float = 0.0,
    low: int = 0,
    high: int = 0,
    initial: int = 1,
    retention: float = 0.0,
    grace: float = 30.0,
    to_zero: bool = True,
    deadline: float = 600.0,
    aggregation: Aggregation = "linear",
) -> ScalingParameters:
    return ScalingParameters(
        autoscaler_class=KPA_CLASS,
        metric=metric,
        total=total,
        target=total * 0.7 if target is None else target,
        stable_window=window,
        panic_window=max(1.0, window / 10) if panic is None else panic,
        target_burst_capacity=burst,
        max_scale_up_rate=up,
        max_scale_down_rate=down,
        activation_scale=activation,
        scale_down_delay=delay,
        min_scale=low,
        max_scale=high,
        initial_scale=initial,
        pod_retention=retention,
        grace_period=grace,
        enable_scale_to_zero=to_zero,
        progress_deadline=deadline,
        aggregation=aggregation,
    )
