"""The form in which quantities are stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.quantity import QuantityError, parse_quantity
from serving.local.apiserver.podvalidation.quantities import canonical


@pytest.mark.parametrize(
    ("given_form", "stored"),
    [
        (0.5, "500m"),
        (2, "2"),
        ("1000m", "1"),
        ("0", "0"),
        ("0Mi", "0"),
        ("-1", "-1"),
        ("1024Mi", "1Gi"),
        ("1000Ki", "1000Ki"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1000k", "1M"),
        ("1e3", "1e3"),
        ("12e2", "1200"),
        ("0.1n", "1n"),
        ("1.0Mi", "1Mi"),
    ],
)
def test_canonical(given_form: str | float, stored: str) -> None:
    assert canonical(given_form) == stored


@given(st.integers(-(10**12), 10**12), st.sampled_from(["", "m", "u", "k", "M", "Ki", "Mi", "Gi", "e3"]))
def test_the_value_stays_and_once_is_enough(number: int, suffix: str) -> None:
    stored = canonical(f"{number}{suffix}")
    assert parse_quantity(stored) == parse_quantity(f"{number}{suffix}")
    assert canonical(stored) == stored


def test_unreadable() -> None:
    with pytest.raises(QuantityError):
        canonical("lots")
