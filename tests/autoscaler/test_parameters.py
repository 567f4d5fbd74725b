from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.config.autoscaler import HPA_CLASS, KPA_CLASS, AutoscalerConfig
from serving.autoscaler.parameters import ScalingParameters, panic_window, parameters_of


def read_with(
    annotations: dict[str, str], *, concurrency: int = 0, config: AutoscalerConfig | None = None
) -> ScalingParameters:
    """Annotations by name with underscores for dashes."""
    keyed = {f"autoscaling.knative.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    return parameters_of(keyed, container_concurrency=concurrency, config=config or AutoscalerConfig())


def read(config: AutoscalerConfig | None = None, /, **annotations: str) -> ScalingParameters:
    return read_with(annotations, config=config)


def test_defaults() -> None:
    params = read()
    assert params.autoscaler_class == KPA_CLASS
    assert (params.metric, params.total, params.target) == ("concurrency", 100, 70)
    assert (params.stable_window, params.panic_window, params.panic_threshold) == (60, 6, 2.0)
    assert (params.target_burst_capacity, params.initial_scale) == (211, 1)
    assert (params.min_scale, params.max_scale, params.activation_scale) == (0, 0, 0)
    assert (params.grace_period, params.pod_retention, params.progress_deadline) == (30, 0, 600)
    assert params.problems == ()


@pytest.mark.parametrize(
    ("concurrency", "annotations", "total", "target"),
    [
        pytest.param(0, {}, 100, 70, id="default"),
        pytest.param(10, {}, 10, 7, id="container-concurrency"),
        pytest.param(1, {}, 1, 0.7, id="one"),
        pytest.param(10, {"target": "5"}, 5, 3.5, id="target-below-concurrency"),
        pytest.param(10, {"target": "50"}, 10, 7, id="target-above-concurrency"),
        pytest.param(0, {"target": "50"}, 50, 35, id="target-alone"),
        pytest.param(0, {"target_utilization_percentage": "50"}, 100, 50, id="utilisation"),
        pytest.param(0, {"target": "0.01"}, 0.01, 0.01, id="floor"),
        pytest.param(10, {"metric": "rps"}, 200, 140, id="rps"),
        pytest.param(10, {"metric": "rps", "target": "50"}, 50, 35, id="rps-target-not-capped"),
    ],
)
def test_target(concurrency: int, annotations: dict[str, str], total: float, target: float) -> None:
    params = read_with(annotations, concurrency=concurrency)
    assert params.total == total
    assert params.target == pytest.approx(target)


def test_everything_from_annotations() -> None:
    params = read(
        window="2m",
        panic_window_percentage="20",
        panic_threshold_percentage="150",
        target_burst_capacity="-1",
        min_scale="2",
        max_scale="10",
        initial_scale="3",
        activation_scale="4",
        scale_down_delay="15m",
        scale_to_zero_pod_retention_period="1m30s",
        metric_aggregation_algorithm="weightedExponential",
    )
    assert params.problems == ()
    assert (params.stable_window, params.panic_window, params.panic_threshold) == (120, 24, 1.5)
    assert (params.min_scale, params.max_scale, params.initial_scale, params.activation_scale) == (2, 10, 3, 4)
    assert (params.target_burst_capacity, params.scale_down_delay, params.pod_retention) == (-1, 900, 90)
    assert params.aggregation == "weighted-exponential"
    assert read_with({"class": HPA_CLASS}).autoscaler_class == HPA_CLASS


def test_kebab_case_wins_over_its_alias() -> None:
    assert read(minScale="3").min_scale == 3
    assert read(minScale="3", min_scale="1").min_scale == 1
    assert read(targetUtilizationPercentage="50").target == 50
    assert read(scaleToZeroPodRetentionPeriod="7s").pod_retention == 7
    assert read(activationScale="3").activation_scale == 0, "upstream has no alias for it"


def test_config_gives_the_defaults() -> None:
    config = AutoscalerConfig(min_scale=1, max_scale=5, initial_scale=2, scale_down_delay=4.0, stable_window=30.0)
    params = read(config)
    assert (params.min_scale, params.max_scale, params.initial_scale) == (1, 5, 2)
    assert (params.scale_down_delay, params.stable_window, params.panic_window) == (4, 30, 3)


def test_zero_initial_scale_needs_permission() -> None:
    assert read(initial_scale="0").initial_scale == 1
    assert read(AutoscalerConfig(allow_zero_initial_scale=True), initial_scale="0").initial_scale == 0


def test_progress_deadline() -> None:
    annotations = {"serving.knative.dev/progress-deadline": "30s"}
    params = parameters_of(annotations, container_concurrency=0, config=AutoscalerConfig())
    assert params.progress_deadline == 30


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("target", "0", "target"),
        ("target", "nan", "target"),
        ("target_utilization_percentage", "101", "target"),
        ("target_burst_capacity", "-2", "target_burst_capacity"),
        ("min_scale", "-1", "min_scale"),
        ("max_scale", "many", "max_scale"),
        ("window", "5s", "stable_window"),
        ("window", "6500ms", "stable_window"),
        ("panic_window_percentage", "0", "panic_window"),
        ("panic_threshold_percentage", "100", "panic_threshold"),
        ("scale_down_delay", "61m", "scale_down_delay"),
        ("scale_to_zero_pod_retention_period", "-1s", "pod_retention"),
        ("metric_aggregation_algorithm", "median", "aggregation"),
    ],
)
def test_a_bad_annotation_is_ignored_and_named(name: str, value: str, field: str) -> None:
    params = read_with({name: value})
    assert getattr(params, field) == getattr(read(), field)
    assert len(params.problems) == 1
    assert name.replace("_", "-") in params.problems[0]
    assert value in params.problems[0]


@pytest.mark.parametrize(
    ("stable", "percentage", "expected"), [(60, 10, 6), (45, 10, 5), (6, 1, 1), (6, 100, 6), (3600, 10, 360)]
)
def test_panic_window(stable: float, percentage: float, expected: float) -> None:
    assert panic_window(stable, percentage) == expected


names = st.sampled_from(
    ["target", "window", "min-scale", "max-scale", "initial-scale", "scale-down-delay", "target-burst-capacity"]
)


@given(
    st.dictionaries(
        names, st.one_of(st.text("0123456789smhe.-+_ ", max_size=8), st.integers().map(str), st.floats().map(str))
    )
)
def test_any_annotations_give_usable_parameters(annotations: dict[str, str]) -> None:
    keyed: dict[str, Any] = {f"autoscaling.knative.dev/{name}": value for name, value in annotations.items()}
    params = parameters_of(keyed, container_concurrency=0, config=AutoscalerConfig())
    assert params.target >= 0.01
    assert 6 <= params.stable_window <= 3600
    assert params.initial_scale >= 1
    assert msgspec.structs.replace(params, problems=()) is not None
