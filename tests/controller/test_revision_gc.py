"""Which Revisions are collected, and when."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api import timestamps
from serving.api.config.gc import GcConfig
from serving.api.v1 import Configuration, Revision
from serving.controller.revision_gc import collect_revisions

HOUR = 3600.0
NOW = timestamps.parse("2026-01-10T00:00:00Z")
CONFIGURATION = msgspec.convert(
    {
        "metadata": {"name": "c"},
        "status": {"latestReadyRevisionName": "ready", "latestCreatedRevisionName": "new"},
    },
    Configuration,
)


def revision(name: str, *, created: float = 100, active: float | None = None, state: str = "reserve") -> Revision:
    """Ages in hours."""
    annotations = {}
    if active is not None:
        annotations["serving.knative.dev/routingStateModified"] = timestamps.format_seconds(NOW - active * HOUR)
    body = {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": name,
            "creationTimestamp": timestamps.format_seconds(NOW - created * HOUR),
            "labels": {"serving.knative.dev/routingState": state},
            "annotations": annotations,
        }
    }
    return msgspec.convert(body, Revision)


def collected(
    revisions: list[Revision], in_use: Collection[str] = (), /, **config: object
) -> tuple[list[str], float | None]:
    settings = GcConfig(**{"min_non_active_revisions": 0, **config})  # type: ignore[arg-type]
    deletes, again = collect_revisions(CONFIGURATION, revisions=revisions, in_use=in_use, config=settings, now=NOW)
    return [delete.name for delete in deletes], again


def test_what_a_route_names_stays_although_its_label_is_not_changed_yet() -> None:
    again, former = revision("again", active=200), revision("former", active=0)
    assert collected([again, former], {"again"}, min_non_active_revisions=1) == ([], None)
    assert collected([again, former], min_non_active_revisions=1)[0] == ["again"]


def test_both_ages_count() -> None:
    old, young = revision("old", created=60, active=20), revision("young", created=40, active=20)
    busy = revision("busy", created=60, active=10)
    assert collected([old, young, busy]) == (["old"], 5 * HOUR)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"retain_since_create_time": None}, ["a", "b"]),
        ({"retain_since_last_active_time": None}, ["a", "b"]),
        ({"retain_since_create_time": None, "retain_since_last_active_time": None}, []),
        (
            {
                "retain_since_create_time": None,
                "retain_since_last_active_time": None,
                "max_non_active_revisions": 1,
            },
            ["a"],
        ),
        ({"min_non_active_revisions": 1}, ["a"]),
        ({"min_non_active_revisions": 2}, []),
    ],
)
def test_settings(config: dict[str, object], names: list[str]) -> None:
    assert collected([revision("b", active=90), revision("a", active=99)], **config)[0] == names


def test_who_never_counts() -> None:
    kept = revision("kept")
    kept.metadata.annotations["serving.knative.dev/no-gc"] = "True"
    others = [revision("ready"), revision("new"), revision("used", state="active"), revision("p", state="pending")]
    assert collected([kept, *others]) == ([], None)


def test_the_oldest_go_beyond_the_maximum_whatever_their_age() -> None:
    rows = [revision(f"r{index}", created=1, active=index / 10) for index in range(5)]
    assert collected(rows, max_non_active_revisions=2)[0] == ["r4", "r3", "r2"]


def test_a_damaged_time_counts_from_the_creation() -> None:
    one = revision("one")
    one.metadata.annotations["serving.knative.dev/routingStateModified"] = "yesterday"
    assert collected([one])[0] == ["one"]


@given(
    ages=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=12),
    low=st.integers(0, 5),
    spread=st.integers(0, 5),
)
def test_never_fewer_than_the_minimum_nor_more_than_the_maximum(
    ages: list[tuple[int, int]], low: int, spread: int
) -> None:
    rows = [revision(f"r{index}", created=max(age), active=min(age)) for index, age in enumerate(ages)]
    names, again = collected(rows, min_non_active_revisions=low, max_non_active_revisions=low + spread)
    left = len(rows) - len(names)
    assert left >= min(low, len(rows))
    assert left <= low + spread
    assert len(set(names)) == len(names)
    assert again is None or again > 0
