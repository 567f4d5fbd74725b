"""Durations, quantities, timestamps and names: vectors and round trips."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api import names, quantity, timestamps
from serving.api.duration import HOUR, MILLISECOND, SECOND, format_duration, parse_duration, parse_seconds

INT64 = st.integers(-(2**63) + 1, 2**63 - 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0s", 0),
        ("1h0m0s", HOUR),
        ("1.5h", HOUR * 3 // 2),
        ("300ms", 300 * MILLISECOND),
        ("-10s", -10 * SECOND),
        ("+5s", 5 * SECOND),
        (".5s", SECOND // 2),
        ("1µs", 1000),
        ("1h15m30.918273645s", HOUR + 15 * 60 * SECOND + 30_918_273_645),
    ],
)
def test_durations_read_as_in_go(text: str, value: int) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("3", 'time: missing unit in duration "3"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("1x", 'time: unknown unit "x" in duration "1x"'),
        ("1 s", 'time: unknown unit " s" in duration "1 s"'),
        ("99999999999h", 'time: invalid duration "99999999999h"'),
        ("9" * 100_000 + "s", f'time: invalid duration "{"9" * 100_000}s"'),
        ('"', 'time: invalid duration "\\""'),
        ("\n", 'time: invalid duration "\\x0a"'),
    ],
)
def test_bad_durations_have_gos_words(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="time: ") as caught:
        parse_duration(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0s"), (1, "1ns"), (1500, "1.5µs"), (HOUR, "1h0m0s"), (90 * SECOND, "1m30s"), (-SECOND, "-1s")],
)
def test_durations_are_written_as_in_go(value: int, text: str) -> None:
    assert format_duration(value) == text


@given(INT64)
def test_a_written_duration_reads_back(value: int) -> None:
    assert parse_duration(format_duration(value)) == value


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert parse_seconds(text) * SECOND == pytest.approx(parse_duration(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", Fraction(1)),
        ("100m", Fraction(1, 10)),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("128Mi", Fraction(128 * 2**20)),
        ("1k", Fraction(1000)),
        ("2e3", Fraction(2000)),
        ("1E", Fraction(10**18)),
        ("1E2", Fraction(100)),
        ("-5Gi", Fraction(-5 * 2**30)),
        (2, Fraction(2)),
        (1.5, Fraction(3, 2)),
    ],
)
def test_quantities(text: str | float, value: Fraction) -> None:
    assert quantity.parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "x", "1 Mi", "1MB", "--1", "1e", "Mi", "1e99999", "0x10", "١"])
def test_bad_quantities(text: str) -> None:
    with pytest.raises(quantity.QuantityError, match="quantity"):
        quantity.parse_quantity(text)


def test_quantities_round_up_to_the_unit() -> None:
    assert quantity.parse_milli("0.0001") == 1
    assert quantity.parse_int("1100m") == 2
    assert quantity.format_milli(1500) == "1500m"
    assert quantity.format_milli(2000) == "2"
    assert quantity.format_bytes(350 * 2**20) == "350Mi"
    assert quantity.format_bytes(1000) == "1000"


@given(st.integers(0, 2**50))
def test_written_quantities_read_back(value: int) -> None:
    assert quantity.parse_int(quantity.format_bytes(value)) == value
    assert quantity.parse_milli(quantity.format_milli(value)) == value


def test_timestamps() -> None:
    assert timestamps.format_seconds(1_700_000_000.9) == "2023-11-14T22:13:20Z"
    assert timestamps.format_micros(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"
    assert timestamps.format_nanos(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
    assert timestamps.parse("2023-11-14T23:13:20+01:00") == 1_700_000_000
    assert timestamps.parse("2023-11-14T22:13:20.5Z") == 1_700_000_000.5


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2023-13-01T00:00:00Z", "2023-11-14 22:13:20Z", "2023-11-14T22:13:20"]
)
def test_bad_timestamps_name_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="not an RFC 3339 time"):
        timestamps.parse(text)


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_written_timestamps_read_back(nanos: int) -> None:
    assert timestamps.parse_nanos(timestamps.format_nanos(nanos)) == nanos


@pytest.mark.parametrize(
    ("parent", "suffix", "want"),
    [
        ("asdf", "-deployment", "asdf-deployment"),
        ("f" * 63, "-deployment", "ffffffffffffffffffff105d7597f637e83cc711605ac3ea4957-deployment"),
        ("f" * 63, "-deploy", "ffffffffffffffffffffffff105d7597f637e83cc711605ac3ea4957-deploy"),
        ("f" * 63, "f" * 63, "fffffffffffffffffffffffffffffff0502661254f13c89973cb3a83e0cbec0"),
        ("a", "f" * 63, "ab5cfd486935decbc0d305799f4ce4414ffffffffffffffffffffffffffffff"),
        ("b" * 32, "f" * 32, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb329c7c81b9ab3ba71aa139066aa5625d"),
        ("aaaa", "b---a" * 20, "aaaa7a3f7966594e3f0849720eced8212c18b---ab---ab---ab---ab---ab"),
    ],
)
def test_child_names_are_upstreams(parent: str, suffix: str, want: str) -> None:
    assert names.child_name(parent, suffix) == want


LABELS = st.from_regex(r"[a-z]([-a-z0-9]{0,80}[a-z0-9])?", fullmatch=True)


@given(LABELS, LABELS)
def test_child_names_fit(parent: str, suffix: str) -> None:
    assert len(names.child_name(parent, suffix)) <= 63


def test_revision_names() -> None:
    assert names.revision_name("hello", 1) == "hello-00001"
    assert names.revision_name("hello", 123456) == "hello-123456"
    assert len(names.revision_name("h" * 63, 1)) == 63


@given(st.text(max_size=70))
def test_a_label_is_valid_or_explained(text: str) -> None:
    if not names.dns1035_label_problems(text):
        assert len(text) <= 63
        assert text[0].isalpha()
    names.dns1123_label_problems(text)
    names.dns1123_subdomain_problems(text)
    names.qualified_name_problems(text)
    names.domain_name_problems(text, field="name")


def test_explanations() -> None:
    assert names.dns1123_label_problems("a.b") == ["must not contain dots"]
    assert names.dns1035_label_problems("svc-", prefix=True) == []
    assert names.domain_name_problems("", field="name") == ["name: Required value"]
    assert names.domain_name_problems("a.b.", field="name") == []
    assert names.qualified_name_problems("/a")[0] == "prefix part must be non-empty"
    assert names.c_identifier_problems("9")[0].startswith("a valid C identifier must start")
