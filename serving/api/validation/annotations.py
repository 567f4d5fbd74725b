"""Annotations of a Revision template: autoscaling, networking, deadlines, sidecar resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from serving.api.config.autoscaler import HPA_CLASS, KPA_CLASS, AutoscalerConfig
from serving.api.duration import HOUR, SECOND, format_duration, is_whole_seconds, parse_duration
from serving.api.errors import (
    CURRENT,
    WARNING,
    FieldError,
    invalid_key_name,
    invalid_value,
    out_of_bounds,
    under,
)
from serving.api.keys import AUTOSCALING_GROUP, NETWORKING_GROUP, PROGRESS_DEADLINE
from serving.api.quantity import QuantityError, parse_quantity
from serving.api.validation.numbers import (
    MAX_INT32,
    NotANumber,
    OutOfRange,
    format_float,
    parse_float,
    parse_int32,
    parse_int64,
)

Annotations = Mapping[str, str]

_WINDOW_MIN: Final = 6 * SECOND
_WINDOW_MAX: Final = HOUR
_PRECISION: Final = "must be specified with at most second precision"


def _aliases(*names: str) -> tuple[str, ...]:
    return tuple(f"{AUTOSCALING_GROUP}/{name}" for name in names)


CLASS: Final = _aliases("class")
METRIC: Final = _aliases("metric")
MIN_SCALE: Final = _aliases("min-scale", "minScale")
MAX_SCALE: Final = _aliases("max-scale", "maxScale")
INITIAL_SCALE: Final = _aliases("initial-scale", "initialScale")
ACTIVATION_SCALE: Final = _aliases("activation-scale")
SCALE_DOWN_DELAY: Final = _aliases("scale-down-delay", "scaleDownDelay")
RETENTION: Final = _aliases("scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod")
WINDOW: Final = _aliases("window")
TARGET: Final = _aliases("target")
TARGET_UTILIZATION: Final = _aliases("target-utilization-percentage", "targetUtilizationPercentage")
TARGET_BURST: Final = _aliases("target-burst-capacity", "targetBurstCapacity")
PANIC_WINDOW: Final = _aliases("panic-window-percentage", "panicWindowPercentage")
PANIC_THRESHOLD: Final = _aliases("panic-threshold-percentage", "panicThresholdPercentage")
ALGORITHM: Final = _aliases("metric-aggregation-algorithm", "metricAggregationAlgorithm")

_ALLOWED_NETWORKING: Final = frozenset(
    f"{NETWORKING_GROUP}/{name}"
    for name in (
        "ingress.class",
        "ingress-class",
        "certificate.class",
        "certificate-class",
        "disableAutoTLS",
        "disable-auto-tls",
        "disable-external-domain-tls",
        "httpOption",
        "http-protocol",
    )
)
_SIDECAR: Final = "queue.sidecar.serving.knative.dev"
_SIDECAR_PERCENTAGE: Final = (f"{_SIDECAR}/resource-percentage", f"{_SIDECAR}/resourcePercentage")
_SIDECAR_QUANTITIES: Final = tuple(
    f"{_SIDECAR}/{resource}-resource-{kind}"
    for resource in ("cpu", "memory", "ephemeral-storage")
    for kind in ("request", "limit")
)


def lookup(annotations: Annotations, keys: tuple[str, ...]) -> tuple[str, str] | None:
    """(key, value) of the first of `keys` that is present."""
    return next(((key, annotations[key]) for key in keys if key in annotations), None)


def validate_template_annotations(annotations: Annotations, config: AutoscalerConfig) -> list[FieldError]:
    """All rules for `spec.template.metadata.annotations`; paths are keys."""
    return [
        *validate_autoscaling(annotations, config),
        *_validate_networking(annotations),
        *_validate_sidecar(annotations),
        *_validate_whole_seconds(annotations, (PROGRESS_DEADLINE,), "progress-deadline"),
    ]


def validate_rollout_duration(annotations: Annotations) -> list[FieldError]:
    keys = ("serving.knative.dev/rollout-duration", "serving.knative.dev/rolloutDuration")
    return _validate_whole_seconds(annotations, keys, "rollout-duration")


def validate_no_autoscaling(annotations: Annotations) -> list[FieldError]:
    """A Service, Configuration or Route must not carry what only works on the template."""
    details = 'autoscaling annotations must be put under "spec.template.metadata.annotations" to work'
    return [invalid_key_name(key, CURRENT, details) for key in annotations if key.startswith(AUTOSCALING_GROUP)]


def validate_autoscaling(annotations: Annotations, config: AutoscalerConfig) -> list[FieldError]:
    return [
        *_validate_class(annotations),
        *_validate_scales(annotations, config),
        *_validate_numbers(annotations),
        *_validate_window(annotations),
        *_validate_delay(annotations, SCALE_DOWN_DELAY, whole=True),
        *_validate_delay(annotations, RETENTION, whole=False),
        *_validate_metric(annotations, config),
        *_validate_algorithm(annotations),
        *_validate_initial_scale(annotations, config),
    ]


def _validate_class(annotations: Annotations) -> list[FieldError]:
    found = lookup(annotations, CLASS)
    if found and found[1].endswith(".knative.dev") and found[1] not in (KPA_CLASS, HPA_CLASS):
        return [invalid_value(found[1], found[0])]
    return []


def _validate_scales(annotations: Annotations, config: AutoscalerConfig) -> list[FieldError]:
    low, errors = _count(annotations, MIN_SCALE)
    high, more = _count(annotations, MAX_SCALE)
    errors += more
    if high != 0 and high < low:
        message = f"max-scale={high} is less than min-scale={low}"
        errors.append(FieldError(message, (MAX_SCALE[0], MIN_SCALE[0])))
    found, limit = lookup(annotations, MAX_SCALE), config.max_scale_limit
    if found and limit:
        if high > limit:
            errors.append(out_of_bounds(high, 1, limit, found[0]))
        if high == 0:
            errors.append(FieldError(f"max-scale=0 (unlimited), must be less than {limit}", (found[0],)))
    return errors + _validate_activation_scale(annotations, low, high)


def _validate_activation_scale(annotations: Annotations, low: int, high: int) -> list[FieldError]:
    found = lookup(annotations, ACTIVATION_SCALE)
    if found is None:
        return []
    key, text = found
    try:
        value = parse_int32(text)
    except (NotANumber, OutOfRange):
        return [invalid_value(text, key)]
    if low > value:
        return [FieldError(f"min-scale={low} is greater than activation-scale={value}", (key,))]
    if high < value and high != 0:
        return [FieldError(f"max-scale={high} is less than activation-scale={value}", (key,))]
    if value < 2:
        return [FieldError(f"activation-scale={value} must be greater than 1", (key,))]
    return []


def _count(annotations: Annotations, keys: tuple[str, ...]) -> tuple[int, list[FieldError]]:
    """A count >= 0, 0 when absent or wrong, and what is wrong."""
    found = lookup(annotations, keys)
    if found is None:
        return 0, []
    key, text = found
    try:
        value = parse_int32(text)
    except NotANumber:
        return 0, [invalid_value(text, key)]
    except OutOfRange:
        return 0, [out_of_bounds(text, 0, MAX_INT32, key)]
    return (value, []) if value >= 0 else (0, [out_of_bounds(text, 0, MAX_INT32, key)])


def _validate_numbers(annotations: Annotations) -> list[FieldError]:
    errors: list[FieldError] = []
    ranges = ((PANIC_WINDOW, 1, 100), (PANIC_THRESHOLD, 110, 1000), (TARGET_UTILIZATION, 1, 100))
    for keys, low, high in ranges:
        key, value, text = _number(annotations, keys, errors)
        if value is not None and not low <= value <= high:
            errors.append(out_of_bounds(text, low, high, key))
    key, value, text = _number(annotations, TARGET, errors)
    if value is not None and value < 0.01:
        errors.append(FieldError(f"target {text} should be at least 0.01", (key,)))
    key, value, text = _number(annotations, TARGET_BURST, errors)
    if value is not None and value < 0 and value != -1:
        errors.append(invalid_value(text, key))
    return errors


def _number(
    annotations: Annotations, keys: tuple[str, ...], errors: list[FieldError]
) -> tuple[str, float | None, str]:
    found = lookup(annotations, keys)
    if found is None:
        return "", None, ""
    key, text = found
    try:
        return key, parse_float(text), text
    except NotANumber:
        errors.append(invalid_value(text, key))
        return key, None, text


def _validate_window(annotations: Annotations) -> list[FieldError]:
    found = lookup(annotations, WINDOW)
    if found is None:
        return []
    key, text = found
    try:
        value = parse_duration(text)
    except ValueError:
        return [invalid_value(text, key)]
    if not _WINDOW_MIN <= value <= _WINDOW_MAX:
        return [out_of_bounds(text, format_duration(_WINDOW_MIN), format_duration(_WINDOW_MAX), key)]
    return [] if is_whole_seconds(value) else [FieldError(_PRECISION, (key,))]


def _validate_delay(annotations: Annotations, keys: tuple[str, ...], *, whole: bool) -> list[FieldError]:
    found = lookup(annotations, keys)
    if found is None:
        return []
    key, text = found
    try:
        value = parse_duration(text)
    except ValueError:
        return [invalid_value(text, key)]
    if not 0 <= value <= _WINDOW_MAX:
        return [out_of_bounds(text, "0s", format_duration(_WINDOW_MAX), key)]
    return [FieldError(_PRECISION, (key,))] if whole and not is_whole_seconds(value) else []


def _validate_metric(annotations: Annotations, config: AutoscalerConfig) -> list[FieldError]:
    found = lookup(annotations, METRIC)
    if found is None:
        return []
    chosen = lookup(annotations, CLASS)
    autoscaler, metric = chosen[1] if chosen else config.pod_autoscaler_class, found[1]
    bad = (autoscaler == KPA_CLASS and metric not in ("concurrency", "rps")) or (
        autoscaler == HPA_CLASS and not metric
    )
    return [invalid_value(metric, METRIC[0])] if bad else []


def _validate_algorithm(annotations: Annotations) -> list[FieldError]:
    found, chosen = lookup(annotations, ALGORITHM), lookup(annotations, CLASS)
    if found is None or chosen is None or chosen[1] != KPA_CLASS or not found[1]:
        return []
    if found[1] in ("linear", "weighted-exponential", "weightedExponential"):
        return []
    return [invalid_value(found[1], found[0])]


def _validate_initial_scale(annotations: Annotations, config: AutoscalerConfig) -> list[FieldError]:
    found = lookup(annotations, INITIAL_SCALE)
    if found is None:
        return []
    key, text = found
    try:
        value = parse_int64(text)
    except (NotANumber, OutOfRange):
        return [invalid_value(text, key)]
    if value < 0:
        return [invalid_value(text, f"{key} must be greater than 0")]
    if value == 0 and not config.allow_zero_initial_scale:
        return [invalid_value(text, f"{key}=0 not allowed by cluster")]
    return []


def _validate_networking(annotations: Annotations) -> list[FieldError]:
    return [
        invalid_key_name(key, CURRENT)
        for key in annotations
        if key.startswith(NETWORKING_GROUP) and key not in _ALLOWED_NETWORKING
    ]


def _validate_sidecar(annotations: Annotations) -> list[FieldError]:
    errors: list[FieldError] = []
    found = lookup(annotations, _SIDECAR_PERCENTAGE)
    if found:
        key, text = found
        deprecated = (
            "Queue proxy resource percentage annotation is deprecated. "
            "Please use the available annotations to explicitly set resource values per service"
        )
        errors.append(FieldError(deprecated, level=WARNING))
        try:
            value = parse_float(text)
        except NotANumber:
            errors += under(f"[{key}]", [invalid_value(text, CURRENT)])
        else:
            if not 0.1 <= value <= 100:
                errors += under(f"[{key}]", [out_of_bounds(format_float(value), "0.1", "100", CURRENT)])
    for key in _SIDECAR_QUANTITIES:
        if key in annotations:
            try:
                parse_quantity(annotations[key])
            except QuantityError:
                errors += under(f"[{key}]", [invalid_value(annotations[key], CURRENT)])
    return errors


def _validate_whole_seconds(annotations: Annotations, keys: tuple[str, ...], name: str) -> list[FieldError]:
    found = lookup(annotations, keys)
    if found is None or not found[1]:
        return []
    key, text = found
    try:
        value = parse_duration(text)
    except ValueError:
        return [invalid_value(text, key)]
    if not is_whole_seconds(value):
        return [FieldError(f"{name}={text} is not at second precision", (key,))]
    return [FieldError(f"{name}={text} must be positive", (key,))] if value < 0 else []
