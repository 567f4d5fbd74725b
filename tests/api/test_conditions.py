"""The condition algebra: hand-made cases, and properties over any sequence of marks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.conditions import FALSE, INFO, TRUE, UNKNOWN, Conditions, ConditionSet
from serving.api.meta import Condition, find_condition
from serving.api.timestamps import format_seconds

ROUTE = ConditionSet(dependents=("AllTrafficAssigned", "IngressReady"))
T0, T1, T2 = (format_seconds(1_700_000_000 + i) for i in range(3))


def status(conditions: Conditions, kind: str) -> str:
    found = find_condition(conditions, kind)
    assert found is not None
    return found.status


def ready(conditions: Conditions) -> Condition:
    found = find_condition(conditions, "Ready")
    assert found is not None
    return found


def test_initialise_sets_everything_unknown_and_sorted() -> None:
    conditions = ROUTE.initialise((), now=T0)
    assert [c.type for c in conditions] == ["AllTrafficAssigned", "IngressReady", "Ready"]
    assert {c.status for c in conditions} == {UNKNOWN}
    assert ROUTE.initialise(conditions, now=T1) == conditions


def test_initialise_of_a_happy_object_adds_true() -> None:
    conditions = ROUTE.initialise((Condition(type="Ready", status=TRUE, last_transition_time=T0),), now=T1)
    assert status(conditions, "IngressReady") == TRUE


def test_all_true_makes_ready_without_reason() -> None:
    conditions = ROUTE.initialise((), now=T0)
    conditions = ROUTE.mark_true(conditions, "AllTrafficAssigned", now=T1)
    assert not ROUTE.is_happy(conditions)
    conditions = ROUTE.mark_true(conditions, "IngressReady", now=T1, reason="Fine", message="m")
    assert ready(conditions) == Condition(type="Ready", status=TRUE, last_transition_time=T1)


def test_false_beats_unknown_and_the_latest_false_wins() -> None:
    conditions = ROUTE.initialise((), now=T0)
    conditions = ROUTE.mark_false(conditions, "AllTrafficAssigned", now=T1, reason="A", message="a")
    conditions = ROUTE.mark_unknown(conditions, "IngressReady", now=T2, reason="U", message="u")
    assert (ready(conditions).status, ready(conditions).reason) == (FALSE, "A")
    conditions = ROUTE.mark_false(conditions, "IngressReady", now=T2, reason="I", message="i")
    assert ready(conditions).reason == "I"
    conditions = ROUTE.mark_true(conditions, "AllTrafficAssigned", now=T2)
    assert (ready(conditions).reason, ready(conditions).message) == ("I", "i")


def test_mark_true_copies_the_most_recent_false() -> None:
    three = ConditionSet(dependents=("A", "B", "C"))
    conditions = three.mark_false((), "A", now=T0, reason="a", message="")
    conditions = three.mark_false(conditions, "B", now=T1, reason="b", message="")
    conditions = three.mark_true(conditions, "C", now=T2)
    assert ready(conditions).reason == "b"


def test_an_informational_condition_has_severity_and_does_not_decide() -> None:
    revision = ConditionSet(dependents=("ContainerHealthy", "ResourcesAvailable"))
    conditions = revision.initialise((), now=T0)
    for kind in revision.dependents:
        conditions = revision.mark_true(conditions, kind, now=T0)
    conditions = revision.mark_false(conditions, "Active", now=T1, reason="NoTraffic", message="idle")
    active = find_condition(conditions, "Active")
    assert active is not None
    assert active.severity == INFO
    assert revision.is_happy(conditions)
    assert find_condition(revision.clear(conditions, "Active"), "Active") is None
    with pytest.raises(ValueError, match="cannot be cleared"):
        revision.clear(conditions, "Ready")


def test_mark_copies_another_objects_condition() -> None:
    source = Condition(type="Ready", status=FALSE, reason="R", message="M")
    conditions = ROUTE.mark(ROUTE.initialise((), now=T0), "IngressReady", source, now=T1)
    assert ready(conditions).message == "M"
    assert status(ROUTE.mark(conditions, "IngressReady", None, now=T1), "IngressReady") == UNKNOWN


KINDS = st.sampled_from(["AllTrafficAssigned", "IngressReady", "CertificateProvisioned"])
MARKS = st.lists(st.tuples(KINDS, st.sampled_from([TRUE, FALSE, UNKNOWN]), st.sampled_from(["", "R", "S"])))


def apply(marks: list[tuple[str, str, str]]) -> Conditions:
    conditions = ROUTE.initialise((), now=format_seconds(0))
    for second, (kind, value, reason) in enumerate(marks, start=1):
        source = Condition(type="x", status=value, reason=reason)
        conditions = ROUTE.mark(conditions, kind, source, now=format_seconds(second))
    return conditions


@given(MARKS)
def test_ready_is_the_conjunction_of_the_dependents(marks: list[tuple[str, str, str]]) -> None:
    conditions = apply(marks)
    assert [c.type for c in conditions] == sorted(c.type for c in conditions)
    dependents = [status(conditions, kind) for kind in ROUTE.dependents]
    expected = FALSE if FALSE in dependents else UNKNOWN if UNKNOWN in dependents else TRUE
    last_failed = FALSE in dependents or ready(conditions).status == expected
    assert last_failed
    assert ROUTE.is_happy(conditions) == (expected == TRUE)


@given(MARKS, KINDS, st.sampled_from([TRUE, FALSE, UNKNOWN]))
def test_marking_what_holds_writes_nothing(marks: list[tuple[str, str, str]], kind: str, value: str) -> None:
    source = Condition(type="x", status=value, reason="R", message="m")
    once = ROUTE.mark(apply(marks), kind, source, now=format_seconds(10_000))
    twice = ROUTE.mark(once, kind, source, now=format_seconds(20_000))
    again = ROUTE.mark(twice, kind, source, now=format_seconds(30_000))
    assert again == twice
    assert [(c.type, c.status) for c in once if c.type != "Ready"] == [
        (c.type, c.status) for c in twice if c.type != "Ready"
    ]
