"""What a revision asks of its autoscaler: annotations over `config-autoscaler`.

Admission has refused bad annotations already. One that is bad all the same (written before the rule existed, or
with admission off) is ignored in favour of the default, as upstream does, and named in `problems`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec

from serving.api import keys
from serving.api.config.autoscaler import (
    DELAY_MAX,
    MAX_INT32,
    TARGET_MIN,
    WINDOW_MAX,
    WINDOW_MIN,
    AutoscalerConfig,
)
from serving.api.duration import parse_duration, parse_seconds

Metric: TypeAlias = Literal["concurrency", "rps"]
Aggregation: TypeAlias = Literal["linear", "weighted-exponential"]

PREFIX: Final = f"{keys.AUTOSCALING_GROUP}/"
PROGRESS_DEADLINE_DEFAULT: Final = 600.0
_AGGREGATIONS: Final[dict[str, Aggregation]] = {
    "linear": "linear",
    "weighted-exponential": "weighted-exponential",
    "weightedExponential": "weighted-exponential",
}
_T = TypeVar("_T")


class ScalingParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the decision needs that a user can set. Durations are seconds."""

    autoscaler_class: str
    metric: Metric = "concurrency"
    total: float = 100.0
    """Requests (or requests a second) that one pod takes at most."""
    target: float = 70.0
    """What one pod should have: total times the wanted utilisation, at least 0.01."""
    stable_window: float = 60.0
    panic_window: float = 6.0
    panic_threshold: float = 2.0
    """Panic when the panic average needs this many times the ready pods."""
    target_burst_capacity: float = 211.0
    """-1 = unlimited: the activator always stays in path; 0 = only at zero."""
    aggregation: Aggregation = "linear"
    initial_scale: int = 1
    min_scale: int = 0
    max_scale: int = 0
    """0 = unlimited."""
    activation_scale: int = 0
    """Fewest pods when there is any load; 0 and 1 = none."""
    scale_down_delay: float = 0.0
    pod_retention: float = 0.0
    grace_period: float = 30.0
    enable_scale_to_zero: bool = True
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    progress_deadline: float = PROGRESS_DEADLINE_DEFAULT
    problems: tuple[str, ...] = ()
    """Annotations that were ignored, each with what is allowed."""


def parameters_of(
    annotations: Mapping[str, str],
    *,
    container_concurrency: int,
    config: AutoscalerConfig,
    progress_deadline: float = PROGRESS_DEADLINE_DEFAULT,
) -> ScalingParameters:
    """Parameters of a revision with these annotations.

    `container_concurrency` is the revision's (0 = unlimited); `progress_deadline` is the cluster's in seconds,
    which `serving.knative.dev/progress-deadline` overrides.
    """
    read = _Annotations(annotations)
    metric: Metric = "rps" if annotations.get(f"{PREFIX}metric") == "rps" else "concurrency"
    total, target = _target(read, metric=metric, container_concurrency=container_concurrency, config=config)
    window = read.get("window", config.stable_window, _window, "6s to 1h, whole seconds")
    panic_percentage = read.get(
        "panic-window-percentage", config.panic_window_percentage, _within(1, 100), "1 to 100"
    )
    threshold = read.get(
        "panic-threshold-percentage", config.panic_threshold_percentage, _within(110, 1000), "110 to 1000"
    )
    initial = read.get("initial-scale", config.initial_scale, _count, "an integer, 0 or more")
    if initial == 0 and not config.allow_zero_initial_scale:
        initial = config.initial_scale
    scale = f"an integer in [0, {MAX_INT32}]"
    minimum = read.get("min-scale", config.min_scale, _count, scale)
    maximum = read.get("max-scale", config.max_scale, _count, scale)
    burst = read.get("target-burst-capacity", config.target_burst_capacity, _burst, "0 or more, or -1")
    aggregation = read.get("metric-aggregation-algorithm", "linear", _aggregation, ", ".join(_AGGREGATIONS))
    delay = read.get("scale-down-delay", config.scale_down_delay, _delay, "0s to 1h, whole seconds")
    retention_default = config.scale_to_zero_pod_retention_period
    retention = read.get("scale-to-zero-pod-retention-period", retention_default, _retention, "0s to 1h")
    deadline = read.get_key(keys.PROGRESS_DEADLINE, progress_deadline, _deadline, "0s or more, whole seconds")
    activation = read.get("activation-scale", 0, _count, "an integer, 2 or more")
    return ScalingParameters(
        autoscaler_class=annotations.get(f"{PREFIX}class", config.pod_autoscaler_class),
        metric=metric,
        total=total,
        target=target,
        stable_window=window,
        panic_window=panic_window(window, panic_percentage),
        panic_threshold=threshold / 100,
        target_burst_capacity=burst,
        aggregation=_AGGREGATIONS[aggregation],
        initial_scale=initial,
        min_scale=minimum,
        max_scale=maximum,
        activation_scale=activation,
        scale_down_delay=delay,
        pod_retention=retention,
        grace_period=config.scale_to_zero_grace_period,
        enable_scale_to_zero=config.enable_scale_to_zero,
        max_scale_up_rate=config.max_scale_up_rate,
        max_scale_down_rate=config.max_scale_down_rate,
        progress_deadline=deadline,
        problems=tuple(read.problems),
    )


def panic_window(stable_window: float, percentage: float) -> float:
    """Seconds: the percentage of the stable window, rounded half up to a second, at least one."""
    return max(1.0, math.floor(stable_window * percentage / 100 + 0.5))


def _target(
    read: _Annotations, *, metric: Metric, container_concurrency: int, config: AutoscalerConfig
) -> tuple[float, float]:
    """(total, target) of one pod."""
    if metric == "rps":
        total, utilisation = config.rps_target_default, config.rps_target_fraction
    else:
        total = float(container_concurrency) or config.concurrency_target_default
        utilisation = config.concurrency_target_fraction
    wanted = read.get("target", None, _at_least(TARGET_MIN), f"{TARGET_MIN} or more")
    if wanted is not None:
        total = wanted
        if metric == "concurrency" and container_concurrency:
            total = min(wanted, float(container_concurrency))
    percentage = read.get("target-utilization-percentage", None, _within(1, 100), "1 to 100")
    if percentage is not None:
        utilisation = percentage / 100
    return total, max(TARGET_MIN, total * utilisation)


class _Annotations:
    """Reads `autoscaling.knative.dev/*`; the kebab-case key wins over its camelCase alias."""

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations
        self.problems: list[str] = []

    def get(self, name: str, default: _T, parse: Callable[[str], _T], allowed: str) -> _T:
        key = f"{PREFIX}{name}"
        if key not in self._annotations and name in _ALIASED:
            key = f"{PREFIX}{_camel(name)}"
        return self.get_key(key, default, parse, allowed)

    def get_key(self, key: str, default: _T, parse: Callable[[str], _T], allowed: str) -> _T:
        text = self._annotations.get(key)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError:
            self.problems.append(f"metadata.annotations[{key}]: {text[:80]!r} is ignored, allowed is {allowed}")
            return default


_ALIASED: Final = frozenset(
    {
        "target-utilization-percentage",
        "target-burst-capacity",
        "min-scale",
        "max-scale",
        "initial-scale",
        "scale-down-delay",
        "scale-to-zero-pod-retention-period",
        "panic-window-percentage",
        "panic-threshold-percentage",
        "metric-aggregation-algorithm",
    }
)


def _camel(name: str) -> str:
    head, *rest = name.split("-")
    return head + "".join(part.title() for part in rest)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _at_least(low: float) -> Callable[[str], float]:
    return _within(low, math.inf)


def _within(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = _number(text)
        if not low <= value <= high:
            raise ValueError(f"{text} is outside [{low}, {high}]")
        return value

    return parse


def _burst(text: str) -> float:
    value = _number(text)
    if value < 0 and value != -1:
        raise ValueError(f"{text} is negative")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 0 <= value <= MAX_INT32:
        raise ValueError(f"{text} is outside [0, {MAX_INT32}]")
    return value


def _window(text: str) -> float:
    return _whole_seconds(text, low=WINDOW_MIN, high=WINDOW_MAX)


def _delay(text: str) -> float:
    return _whole_seconds(text, low=0, high=DELAY_MAX)


def _deadline(text: str) -> float:
    return _whole_seconds(text, low=0, high=math.inf)


def _retention(text: str) -> float:
    seconds = parse_seconds(text)
    if not 0 <= seconds <= DELAY_MAX:
        raise ValueError(f"{text} is outside 0s to 1h")
    return seconds


def _whole_seconds(text: str, *, low: float, high: float) -> float:
    seconds, rest = divmod(parse_duration(text), 1_000_000_000)
    if rest or not low <= seconds <= high:
        raise ValueError(f"{text} is not a whole number of seconds in [{low}, {high}]")
    return float(seconds)


def _aggregation(text: str) -> str:
    if text not in _AGGREGATIONS:
        raise ValueError(f"{text} is no aggregation algorithm")
    return text
