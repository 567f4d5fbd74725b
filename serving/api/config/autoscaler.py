"""`config-autoscaler`: cluster-wide defaults of the autoscaler.

Keys, defaults, ranges and error texts are upstream's. Unknown keys and `_example` are ignored. Either the whole
map is valid or none of it is taken: the caller keeps the last good configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from serving.api.config.errors import ConfigError
from serving.api.config.reader import Reader
from serving.api.duration import SECOND, format_duration, is_whole_seconds
from serving.api.names import quote

CONFIG_NAME: Final = "config-autoscaler"
KPA_CLASS: Final = "kpa.autoscaling.knative.dev"
HPA_CLASS: Final = "hpa.autoscaling.knative.dev"

TARGET_MIN: Final = 0.01
WINDOW_MIN: Final = 6.0
WINDOW_MAX: Final = 3600.0
DELAY_MAX: Final = 3600.0
MAX_INT32: Final = 2**31 - 1

_PREFIX: Final = "failed to parse data: "


class AutoscalerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Durations are seconds, percentages stay percentages except the two marked as fractions."""

    concurrency_target_fraction: float = 0.7
    """(0, 1]: `container-concurrency-target-percentage`."""
    concurrency_target_default: float = 100.0
    rps_target_fraction: float = 0.7
    """(0, 1]: upstream has no key for it."""
    rps_target_default: float = 200.0
    target_burst_capacity: float = 211.0
    """>= 0, or -1 = unlimited."""
    stable_window: float = 60.0
    """[6, 3600], whole."""
    panic_window_percentage: float = 10.0
    """[1, 100]."""
    panic_threshold_percentage: float = 200.0
    """[110, 1000]."""
    max_scale_up_rate: float = 1000.0
    """> 1."""
    max_scale_down_rate: float = 2.0
    """> 1."""
    enable_scale_to_zero: bool = True
    scale_to_zero_grace_period: float = 30.0
    """> 0."""
    scale_to_zero_pod_retention_period: float = 0.0
    """[0, 3600]."""
    pod_autoscaler_class: str = KPA_CLASS
    activator_capacity: float = 100.0
    """>= 1."""
    initial_scale: int = 1
    allow_zero_initial_scale: bool = False
    min_scale: int = 0
    max_scale: int = 0
    """0 = unlimited."""
    max_scale_limit: int = 0
    """0 = none."""
    scale_down_delay: float = 0.0
    """[0, 3600], whole."""


def parse(data: Mapping[str, str]) -> AutoscalerConfig:
    """The configuration of a ConfigMap's `data`. Raises ConfigError for the first value that is not allowed."""
    default = AutoscalerConfig()
    read = Reader(data, prefix=_PREFIX)

    def number(key: str, value: float) -> float:
        return _number(read, data, key, value)

    fraction = number("container-concurrency-target-percentage", default.concurrency_target_fraction)
    config = AutoscalerConfig(
        concurrency_target_fraction=fraction / 100 if fraction > 1 else fraction,
        concurrency_target_default=number(
            "container-concurrency-target-default", default.concurrency_target_default
        ),
        rps_target_default=number("requests-per-second-target-default", default.rps_target_default),
        target_burst_capacity=number("target-burst-capacity", default.target_burst_capacity),
        stable_window=_seconds(read, "stable-window", default.stable_window, whole=True),
        panic_window_percentage=number("panic-window-percentage", default.panic_window_percentage),
        panic_threshold_percentage=number("panic-threshold-percentage", default.panic_threshold_percentage),
        max_scale_up_rate=number("max-scale-up-rate", default.max_scale_up_rate),
        max_scale_down_rate=number("max-scale-down-rate", default.max_scale_down_rate),
        enable_scale_to_zero=read.flag("enable-scale-to-zero", default.enable_scale_to_zero),
        scale_to_zero_grace_period=_seconds(
            read, "scale-to-zero-grace-period", default.scale_to_zero_grace_period
        ),
        scale_to_zero_pod_retention_period=_seconds(
            read, "scale-to-zero-pod-retention-period", default.scale_to_zero_pod_retention_period
        ),
        pod_autoscaler_class=data.get("pod-autoscaler-class", default.pod_autoscaler_class),
        activator_capacity=number("activator-capacity", default.activator_capacity),
        initial_scale=read.integer("initial-scale", default.initial_scale, bits=32),
        allow_zero_initial_scale=read.flag("allow-zero-initial-scale", default.allow_zero_initial_scale),
        min_scale=read.integer("min-scale", default.min_scale, bits=32),
        max_scale=read.integer("max-scale", default.max_scale, bits=32),
        max_scale_limit=read.integer("max-scale-limit", default.max_scale_limit, bits=32),
        scale_down_delay=_seconds(read, "scale-down-delay", default.scale_down_delay, whole=True),
    )
    _check_durations(config, data)
    _check_targets(config, data)
    _check_rates(config, data)
    _check_scales(config, data)
    return config


def _number(read: Reader, data: Mapping[str, str], key: str, default: float) -> float:
    value = read.number(key, default)
    if math.isinf(value):
        why = f"strconv.ParseFloat: parsing {quote(data[key])}: value out of range"
        raise read.refused(f"{_PREFIX}failed to parse {quote(key)}: {why}", key, "a decimal number")
    return value


def _seconds(read: Reader, key: str, default: float, *, whole: bool = False) -> float:
    nanoseconds = read.nanoseconds(key, round(default * SECOND))
    if whole and not is_whole_seconds(nanoseconds):
        given = format_duration(nanoseconds)
        message = f"{key} = {given}, must be specified with at most second precision"
        raise read.refused(message, key, "whole seconds")
    return nanoseconds / SECOND


def _check_durations(config: AutoscalerConfig, data: Mapping[str, str]) -> None:
    grace, delay = config.scale_to_zero_grace_period, config.scale_down_delay
    retention, window = config.scale_to_zero_pod_retention_period, config.stable_window
    if grace <= 0:
        raise _refused(
            f"scale-to-zero-grace-period must be positive, was: {_go(grace)}",
            data, "scale-to-zero-grace-period", "> 0s",
        )  # fmt: skip
    for key, value in (("scale-down-delay", delay), ("scale-to-zero-pod-retention-period", retention)):
        if value < 0:
            raise _refused(f"{key} cannot be negative, was: {_go(value)}", data, key, "0s to 1h")
        if value > DELAY_MAX:
            raise _refused(f"{key} = {_go(value)}, must be in [0s; {_go(DELAY_MAX)}] range", data, key, "0s to 1h")
    if not WINDOW_MIN <= window <= WINDOW_MAX:
        bounds = f"[{_go(WINDOW_MIN)}; {_go(WINDOW_MAX)}]"
        raise _refused(
            f"stable-window = {_go(window)}, must be in {bounds} range", data, "stable-window", "6s to 1h"
        )


def _check_targets(config: AutoscalerConfig, data: Mapping[str, str]) -> None:
    burst, fraction = config.target_burst_capacity, config.concurrency_target_fraction
    if burst < 0 and burst != -1:
        raise _refused(
            f"target-burst-capacity must be either non-negative or -1 (for unlimited), was: {burst:f}",
            data, "target-burst-capacity", "0 or more, or -1",
        )  # fmt: skip
    if not 0 < fraction <= 1:
        raise _refused(
            f"container-concurrency-target-percentage = {fraction:f} is outside of valid range of (0, 100]",
            data, "container-concurrency-target-percentage", "above 0, up to 100; up to 1.0 it is a fraction",
        )  # fmt: skip
    target = fraction * config.concurrency_target_default
    if target < TARGET_MIN:
        raise _refused(
            "container-concurrency-target-percentage and container-concurrency-target-default yield "
            f"target concurrency of {_plain(target)}, can't be less than {TARGET_MIN}",
            data, "container-concurrency-target-default", "a product of at least 0.01",
        )  # fmt: skip
    if config.rps_target_default < TARGET_MIN:
        raise _refused(
            f"requests-per-second-target-default must be at least {TARGET_MIN}, "
            f"was: {_plain(config.rps_target_default)}",
            data, "requests-per-second-target-default", "0.01 or more",
        )  # fmt: skip


def _check_rates(config: AutoscalerConfig, data: Mapping[str, str]) -> None:
    if config.activator_capacity < 1:
        given = _plain(config.activator_capacity)
        raise _refused(
            f"activator-capacity = {given}, must be at least 1", data, "activator-capacity", "1 or more"
        )
    rates = (("max-scale-up-rate", config.max_scale_up_rate), ("max-scale-down-rate", config.max_scale_down_rate))
    for key, rate in rates:
        if rate <= 1:
            raise _refused(f"{key} = {_plain(rate)}, must be greater than 1.0", data, key, "above 1.0")
    percentages = (
        ("panic-window-percentage", config.panic_window_percentage, 1, 100),
        ("panic-threshold-percentage", config.panic_threshold_percentage, 110, 1000),
    )
    for key, percentage, low, high in percentages:
        if not low <= percentage <= high:
            given = _plain(percentage)
            raise _refused(f"{key} = {given}, must be in [{low}, {high}] interval", data, key, f"{low} to {high}")


def _check_scales(config: AutoscalerConfig, data: Mapping[str, str]) -> None:
    initial, low, high, limit = config.initial_scale, config.min_scale, config.max_scale, config.max_scale_limit
    if initial < 0 or (initial == 0 and not config.allow_zero_initial_scale):
        raise _refused(
            f"initial-scale = {initial}, must be at least 0 "
            "(or at least 1 when allow-zero-initial-scale is false)",
            data, "initial-scale", "1 or more; 0 with allow-zero-initial-scale",
        )  # fmt: skip
    least = 1 if limit > 0 else 0
    if high < least or 0 < limit < high:
        raise _refused(
            f"max-scale = {high}, must be in [{least}, max-scale-limit({limit})] range",
            data, "max-scale", f"{least} to max-scale-limit",
        )  # fmt: skip
    if limit < 0:
        raise _refused(
            f"max-scale-limit = {limit}, must be at least 0", data, "max-scale-limit", "0 (none) or more"
        )
    if low < 0 or 0 < high < low:
        raise _refused(
            f"min-scale = {low}, must be in [0, max-scale({high})] range", data, "min-scale", "0 to max-scale"
        )


def _refused(message: str, data: Mapping[str, str], key: str, allowed: str) -> ConfigError:
    return ConfigError(message, key=key, value=data.get(key, ""), allowed=allowed)


def _go(seconds: float) -> str:
    return format_duration(round(seconds * SECOND))


def _plain(value: float) -> str:
    """As Go's %v prints a float64 of ordinary size."""
    return str(int(value)) if value == int(value) else repr(value)
