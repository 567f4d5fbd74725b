from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.config.autoscaler import HPA_CLASS, KPA_CLASS, AutoscalerConfig, parse
from serving.api.config.errors import ConfigError


def test_defaults_are_upstreams() -> None:
    config = parse({})
    assert config == AutoscalerConfig()
    assert config.concurrency_target_fraction == 0.7
    assert config.concurrency_target_default == 100
    assert config.rps_target_default == 200
    assert config.target_burst_capacity == 211
    assert (config.stable_window, config.panic_window_percentage, config.panic_threshold_percentage) == (
        60,
        10,
        200,
    )
    assert (config.max_scale_up_rate, config.max_scale_down_rate) == (1000, 2)
    assert config.enable_scale_to_zero
    assert (config.scale_to_zero_grace_period, config.scale_to_zero_pod_retention_period) == (30, 0)
    assert config.pod_autoscaler_class == KPA_CLASS
    assert config.activator_capacity == 100
    assert (config.initial_scale, config.min_scale, config.max_scale, config.max_scale_limit) == (1, 0, 0, 0)
    assert not config.allow_zero_initial_scale
    assert config.scale_down_delay == 0


def test_every_key_is_read() -> None:
    config = parse(
        {
            "_example": "ignored",
            "unknown": "ignored",
            "container-concurrency-target-percentage": "80",
            "container-concurrency-target-default": "50.5",
            "requests-per-second-target-default": "150",
            "target-burst-capacity": "-1",
            "stable-window": "2m30s",
            "panic-window-percentage": "20",
            "panic-threshold-percentage": "150",
            "max-scale-up-rate": "10",
            "max-scale-down-rate": "1.5",
            "enable-scale-to-zero": "False",
            "scale-to-zero-grace-period": "1500ms",
            "scale-to-zero-pod-retention-period": "1m",
            "pod-autoscaler-class": HPA_CLASS,
            "activator-capacity": "1",
            "initial-scale": "0",
            "allow-zero-initial-scale": "true",
            "min-scale": "2",
            "max-scale": "9",
            "max-scale-limit": "10",
            "scale-down-delay": "1h",
        }
    )
    assert config == AutoscalerConfig(
        concurrency_target_fraction=0.8,
        concurrency_target_default=50.5,
        rps_target_default=150.0,
        target_burst_capacity=-1.0,
        stable_window=150.0,
        panic_window_percentage=20.0,
        panic_threshold_percentage=150.0,
        max_scale_up_rate=10.0,
        max_scale_down_rate=1.5,
        enable_scale_to_zero=False,
        scale_to_zero_grace_period=1.5,
        scale_to_zero_pod_retention_period=60.0,
        pod_autoscaler_class=HPA_CLASS,
        activator_capacity=1.0,
        initial_scale=0,
        allow_zero_initial_scale=True,
        min_scale=2,
        max_scale=9,
        max_scale_limit=10,
        scale_down_delay=3600.0,
    )


@pytest.mark.parametrize(("text", "fraction"), [("0.5", 0.5), ("1.0", 1.0), ("1.5", 0.015), ("100", 1.0)])
def test_percentage_up_to_one_is_a_fraction(text: str, fraction: float) -> None:
    assert parse({"container-concurrency-target-percentage": text}).concurrency_target_fraction == fraction


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"max-scale-up-rate": "fast"},
            (
                'failed to parse data: failed to parse "max-scale-up-rate": '
                'strconv.ParseFloat: parsing "fast": invalid syntax'
            ),
        ),
        (
            {"initial-scale": "1.5"},
            (
                'failed to parse data: failed to parse "initial-scale": '
                'strconv.ParseInt: parsing "1.5": invalid syntax'
            ),
        ),
        (
            {"max-scale": "2147483648"},
            (
                'failed to parse data: failed to parse "max-scale": '
                'strconv.ParseInt: parsing "2147483648": value out of range'
            ),
        ),
        (
            {"enable-scale-to-zero": "yes"},
            (
                'failed to parse data: failed to parse "enable-scale-to-zero": '
                'strconv.ParseBool: parsing "yes": invalid syntax'
            ),
        ),
        (
            {"stable-window": "60"},
            'failed to parse data: failed to parse "stable-window": time: missing unit in duration "60"',
        ),
        (
            {"activator-capacity": "1e999"},
            (
                'failed to parse data: failed to parse "activator-capacity": '
                'strconv.ParseFloat: parsing "1e999": value out of range'
            ),
        ),
        ({"scale-to-zero-grace-period": "0s"}, "scale-to-zero-grace-period must be positive, was: 0s"),
        ({"scale-down-delay": "-1s"}, "scale-down-delay cannot be negative, was: -1s"),
        (
            {"scale-down-delay": "1500ms"},
            "scale-down-delay = 1.5s, must be specified with at most second precision",
        ),
        (
            {"scale-to-zero-pod-retention-period": "-4s"},
            "scale-to-zero-pod-retention-period cannot be negative, was: -4s",
        ),
        (
            {"scale-to-zero-pod-retention-period": "61m"},
            "scale-to-zero-pod-retention-period = 1h1m0s, must be in [0s; 1h0m0s] range",
        ),
        ({"scale-down-delay": "2h"}, "scale-down-delay = 2h0m0s, must be in [0s; 1h0m0s] range"),
        (
            {"target-burst-capacity": "-2"},
            "target-burst-capacity must be either non-negative or -1 (for unlimited), was: -2.000000",
        ),
        (
            {"container-concurrency-target-percentage": "0"},
            "container-concurrency-target-percentage = 0.000000 is outside of valid range of (0, 100]",
        ),
        (
            {"container-concurrency-target-percentage": "200"},
            "container-concurrency-target-percentage = 2.000000 is outside of valid range of (0, 100]",
        ),
        (
            {"container-concurrency-target-default": "0.001"},
            (
                "container-concurrency-target-percentage and container-concurrency-target-default yield "
                "target concurrency of 0.0007, can't be less than 0.01"
            ),
        ),
        (
            {"requests-per-second-target-default": "0"},
            "requests-per-second-target-default must be at least 0.01, was: 0",
        ),
        ({"activator-capacity": "0.5"}, "activator-capacity = 0.5, must be at least 1"),
        ({"max-scale-up-rate": "1"}, "max-scale-up-rate = 1, must be greater than 1.0"),
        ({"max-scale-down-rate": "0.9"}, "max-scale-down-rate = 0.9, must be greater than 1.0"),
        ({"stable-window": "5s"}, "stable-window = 5s, must be in [6s; 1h0m0s] range"),
        ({"stable-window": "2h"}, "stable-window = 2h0m0s, must be in [6s; 1h0m0s] range"),
        ({"stable-window": "6500ms"}, "stable-window = 6.5s, must be specified with at most second precision"),
        ({"panic-window-percentage": "0"}, "panic-window-percentage = 0, must be in [1, 100] interval"),
        (
            {"panic-threshold-percentage": "105"},
            "panic-threshold-percentage = 105, must be in [110, 1000] interval",
        ),
        (
            {"initial-scale": "0"},
            "initial-scale = 0, must be at least 0 (or at least 1 when allow-zero-initial-scale is false)",
        ),
        (
            {"initial-scale": "-1", "allow-zero-initial-scale": "true"},
            "initial-scale = -1, must be at least 0 (or at least 1 when allow-zero-initial-scale is false)",
        ),
        ({"max-scale": "-1"}, "max-scale = -1, must be in [0, max-scale-limit(0)] range"),
        ({"max-scale-limit": "5"}, "max-scale = 0, must be in [1, max-scale-limit(5)] range"),
        ({"max-scale-limit": "5", "max-scale": "6"}, "max-scale = 6, must be in [1, max-scale-limit(5)] range"),
        ({"max-scale-limit": "-5"}, "max-scale-limit = -5, must be at least 0"),
        ({"min-scale": "3", "max-scale": "2"}, "min-scale = 3, must be in [0, max-scale(2)] range"),
    ],
)
def test_what_is_refused(data: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data)
    assert str(caught.value) == message
    assert caught.value.key in message
    assert caught.value.allowed


KEYS = [
    "container-concurrency-target-percentage", "target-burst-capacity", "stable-window", "max-scale-up-rate",
    "panic-window-percentage", "panic-threshold-percentage", "initial-scale", "max-scale", "max-scale-limit",
    "scale-down-delay", "enable-scale-to-zero", "activator-capacity", "scale-to-zero-grace-period",
]  # fmt: skip
values = st.one_of(
    st.text("0123456789smhe.-+_ ", max_size=8),
    st.integers(-5, 5000).map(str),
    st.floats().map(str),
    st.integers(0, 90).map("{}s".format),
)


@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
def test_any_input_is_read_or_refused(data: dict[str, str]) -> None:
    try:
        config = parse(data)
    except ConfigError as error:
        assert error.allowed  # noqa: PT017 - both outcomes are right
        return
    assert 6 <= config.stable_window <= 3600
    assert 0 < config.concurrency_target_fraction <= 1
    assert config.max_scale_up_rate > 1
