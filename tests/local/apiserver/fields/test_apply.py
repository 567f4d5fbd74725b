"""Apply and update: who owns what afterwards, and what is left of the object."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.meta import JsonObject
from serving.local.apiserver.fields import apply as rules
from serving.local.apiserver.fields import managers
from serving.local.apiserver.fields.apply import Applied, Conflicts, applier, updater
from serving.local.apiserver.fields.compare import compare, field_set
from serving.local.apiserver.fields.fieldset import difference, intersection, made_of, paths, union
from serving.local.apiserver.fields.managers import Managed, Manager, Owned
from serving.local.apiserver.fields.merging import merge, problems, remove
from serving.local.apiserver.fields.types import Type, type_of
from tests.local.apiserver.objects import CONFIG_MAP, POD, WIDGET, builtin

ALICE, BOB = applier("alice", ""), applier("bob", "")
SERVICE = builtin("v1", "Service")
CM: Type = type_of(CONFIG_MAP)

KEYS = st.sampled_from("abcd")
DATA = st.dictionaries(KEYS, st.sampled_from("123"), max_size=4)
LABELS = st.dictionaries(KEYS, st.sampled_from("xy"), max_size=3)
ENTRIES: st.SearchStrategy[JsonObject] = st.fixed_dictionaries(
    {"name": st.sampled_from("MN")}, optional={"value": st.sampled_from("01")}
)
CONTAINERS: st.SearchStrategy[list[JsonObject]] = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("pqr")},
        optional={
            "image": st.sampled_from(["i1", "i2"]),
            "args": st.lists(st.sampled_from("uv"), max_size=2),
            "env": st.lists(
                ENTRIES,
                unique_by=lambda item: str(item["name"]),
                max_size=2,
            ),
        },
    ),
    unique_by=lambda item: str(item["name"]),
    max_size=3,
)


def config_map(data: JsonObject, labels: JsonObject | None = None) -> JsonObject:
    metadata: JsonObject = {"name": "n"}
    if labels:
        metadata["labels"] = labels
    body: JsonObject = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    return {**body, "data": data} if data else body


def pod(containers: list[JsonObject]) -> JsonObject:
    body: JsonObject = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n"}}
    return {**body, "spec": {"containers": containers}} if containers else body


CONFIGS = st.builds(config_map, DATA, LABELS)
PODS = st.builds(pod, CONTAINERS)


def applied(
    live: JsonObject | None,
    config: JsonObject,
    managed: Managed,
    who: Manager = ALICE,
    *,
    type_: Type = CM,
    force: bool = False,
) -> Applied:
    return rules.apply(live, config, managed, who, type_, api_version="v1", force=force, now="t")


def owned(managed: Managed, who: Manager) -> list[str]:
    found = managed.get(who)
    return sorted("/".join(path) for path in paths(found.fields)) if found else []


@given(CONFIGS)
def test_apply_is_idempotent(config: JsonObject) -> None:
    once = applied(None, config, {})
    assert applied(once.obj, config, once.managed) == once


@given(PODS, PODS)
def test_apply_is_idempotent_on_lists_that_others_wrote(first: JsonObject, second: JsonObject) -> None:
    type_ = type_of(POD)
    base = applied(None, first, {}, BOB, type_=type_)
    once = applied(base.obj, second, base.managed, type_=type_, force=True)
    assert applied(once.obj, second, once.managed, type_=type_) == once


@given(DATA, DATA)
def test_managers_of_different_fields_never_conflict(first: JsonObject, second: JsonObject) -> None:
    other = {name + name: value for name, value in second.items()}
    base = applied(None, config_map(first), {})
    both = applied(base.obj, config_map(other), base.managed, BOB)
    assert both.obj.get("data", {}) == {**first, **other}
    assert applied(both.obj, config_map(first), both.managed) == both


@given(DATA, DATA)
def test_what_is_no_longer_applied_goes(first: JsonObject, second: JsonObject) -> None:
    base = applied(None, config_map(first), {})
    assert applied(base.obj, config_map(second), base.managed).obj.get("data", {}) == second


@given(DATA, DATA, DATA)
def test_what_somebody_else_owns_stays(mine: JsonObject, theirs: JsonObject, later: JsonObject) -> None:
    base = applied(None, config_map(mine), {})
    both = applied(base.obj, config_map(theirs), base.managed, BOB, force=True)
    left = applied(both.obj, config_map(later), both.managed, force=True)
    assert left.obj.get("data", {}) == {**theirs, **later}


@given(DATA, DATA)
def test_a_conflict_is_a_field_with_two_values(first: JsonObject, second: JsonObject) -> None:
    base = applied(None, config_map(first), {})
    different = {name for name in first if name in second and first[name] != second[name]}
    if not different:
        applied(base.obj, config_map(second), base.managed, BOB)
        return
    with pytest.raises(Conflicts) as refused:
        applied(base.obj, config_map(second), base.managed, BOB)
    assert {conflict.field for conflict in refused.value.conflicts} == {f".data.{name}" for name in different}


@given(CONFIGS, CONFIGS)
def test_the_difference_of_two_objects(first: JsonObject, second: JsonObject) -> None:
    found = compare(rules.ownable(first), rules.ownable(second), CM)
    assert compare(rules.ownable(first), rules.ownable(first), CM) == ({}, {}, {})
    assert intersection(found.added, found.removed) == {}
    backwards = compare(rules.ownable(second), rules.ownable(first), CM)
    assert (found.added, found.modified, found.removed) == (
        backwards.removed,
        backwards.modified,
        backwards.added,
    )


@given(PODS, PODS)
def test_an_update_owns_what_it_changed_and_nobody_else_does(old: JsonObject, new: JsonObject) -> None:
    type_ = type_of(POD)
    curl = updater("curl", "v1", "")
    old = {**old, "metadata": {"name": "n", "labels": {"made": "by"}}}
    made = rules.update(None, old, {}, updater("maker", "v1", ""), type_, now="1")
    after = rules.update(old, new, made, curl, type_, now="2")
    changed = compare(rules.ownable(old), rules.ownable(new), type_)
    mine = after[curl].fields if curl in after else {}
    assert set(paths(mine)) == set(paths(changed.changed))
    for other, entry in after.items():
        if other != curl:
            assert intersection(entry.fields, union(changed.changed, changed.removed)) == {}


@given(PODS, PODS)
def test_merge_twice_is_merge_once(live: JsonObject, config: JsonObject) -> None:
    type_ = type_of(POD)
    once = merge(live, config, type_)
    assert merge(once, config, type_) == once
    assert merge(live, live, type_) == live
    assert difference(field_set(config, type_), field_set(once, type_)) == {}


def test_conflicts_in_kubernetes_words() -> None:
    base = applied(None, config_map({"a": "1", "b": "1"}), {})
    with pytest.raises(Conflicts) as refused:
        applied(base.obj, config_map({"a": "2"}), base.managed, BOB)
    assert refused.value.message() == 'Apply failed with 1 conflict: conflict with "alice": .data.a'
    with pytest.raises(Conflicts) as refused:
        applied(base.obj, config_map({"a": "2", "b": "2"}), base.managed, BOB)
    assert (
        refused.value.message() == 'Apply failed with 2 conflicts: conflicts with "alice":\n- .data.a\n- .data.b'
    )
    changed = {**base.obj, "data": {"a": "9", "b": "1"}}
    updated = rules.update(base.obj, changed, base.managed, updater("curl", "v1", ""), CM, now="t")
    with pytest.raises(Conflicts) as refused:
        applied(changed, config_map({"a": "1", "b": "1"}), updated)
    assert refused.value.message() == 'Apply failed with 1 conflict: conflict with "curl" using v1: .data.a'
    taken = applied(changed, config_map({"a": "1", "b": "1"}), updated, force=True)
    assert owned(taken.managed, ALICE) == ["f:data/f:a", "f:data/f:b"]
    assert len(taken.managed) == 1


def test_the_same_value_is_owned_together() -> None:
    base = applied(None, config_map({"a": "1"}), {})
    both = applied(base.obj, config_map({"a": "1"}), base.managed, BOB)
    assert owned(both.managed, ALICE) == owned(both.managed, BOB) == ["f:data/f:a"]
    one = applied(both.obj, config_map({}), both.managed, BOB)
    assert (one.obj["data"], owned(one.managed, BOB)) == ({"a": "1"}, [])


def test_lists_by_key() -> None:
    type_ = type_of(SERVICE)
    port = {"port": 80, "name": "http"}
    body: JsonObject = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    base = applied(None, {**body, "spec": {"ports": [port]}}, {}, type_=type_)
    assert owned(base.managed, ALICE) == [
        'f:spec/f:ports/k:{"port":80,"protocol":"TCP"}',
        'f:spec/f:ports/k:{"port":80,"protocol":"TCP"}/f:name',
        'f:spec/f:ports/k:{"port":80,"protocol":"TCP"}/f:port',
    ]
    other = {"port": 80, "protocol": "UDP", "name": "quic"}
    both = applied(base.obj, {**body, "spec": {"ports": [other]}}, base.managed, BOB, type_=type_)
    assert both.obj["spec"]["ports"] == [port, other]
    less = applied(both.obj, {**body, "spec": {"ports": []}}, both.managed, type_=type_)
    assert less.obj["spec"]["ports"] == [other]


def test_items_keep_the_order_of_the_configuration() -> None:
    type_ = type_of(POD)

    def names(*listed: str) -> list[JsonObject]:
        return [{"name": name} for name in listed]

    containers = type_.child("spec").child("containers")
    for live, config, expected in [
        ("ab", "ba", "ba"),
        ("abc", "cb", "acb"),
        ("axb", "ab", "axb"),
        ("xa", "ab", "xab"),
        ("", "ab", "ab"),
        ("abc", "", "abc"),
        ("abcd", "db", "adcb"),
    ]:
        merged = merge(names(*live), names(*config), containers)
        assert "".join(item["name"] for item in merged) in (expected, _upstream(live, config)), (live, config)


def _upstream(live: str, config: str) -> str:
    """All of `config` in its order, and everything of `live` once."""
    return "".join(dict.fromkeys([*[c for c in live if c not in config], *config]))


def test_an_object_without_owners_is_taken_over_with_them() -> None:
    live = config_map({"a": "1", "b": "2"})
    first = Manager(rules.BEFORE_FIRST_APPLY, managers.UPDATE, "v1")
    with pytest.raises(Conflicts) as refused:
        applied(live, config_map({"a": "9"}), {})
    assert refused.value.conflicts[0].manager == first
    after = applied(live, config_map({"a": "1"}), {})
    assert owned(after.managed, first) == ["f:data", "f:data/f:a", "f:data/f:b"]
    assert rules.update(live, config_map({"a": "2"}), {}, updater("curl", "v1", ""), CM, now="t") == {}


def test_items_that_cannot_be_told_apart() -> None:
    items: JsonObject = {"type": "object", "properties": {"id": {"type": "string"}}}
    listed = {
        "type": "array",
        "items": items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["id"],
    }
    schema = {"type": "object", "properties": {"parts": listed}}
    custom = type_of(msgspec.structs.replace(WIDGET, schema=schema))
    (text,) = problems({"parts": [{"id": "1"}, {"x": "y"}]}, custom)
    assert text == (
        ".parts: element 1: associative list with keys has an element that omits all key fields "
        '["id"] (and doesn\'t have default values for any key fields)'
    )
    type_ = type_of(POD)
    assert list(problems(pod([{"name": "x"}, {"name": "x"}]), type_)) == [
        '.spec.containers: duplicate entries for key [name="x"]'
    ]


def test_removing_all_of_something_removes_it() -> None:
    obj = config_map({"a": "1"}, {"x": "y"})
    left = remove(obj, made_of(("f:data", "f:a"), ("f:metadata", "f:labels", "f:x")), CM)
    assert left == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n"}}


def test_many_updaters_become_one() -> None:
    managed: Managed = {
        updater(f"m{number:02}", "v1", ""): Owned(made_of(("f:data", f"f:{number}")), "v1", f"{number:02}")
        for number in range(15)
    }
    capped = managers.cap(managed)
    assert len(capped) == managers.MAX_UPDATERS
    ancient = capped[Manager("ancient-changes", managers.UPDATE, "v1")]
    assert len(list(paths(ancient.fields))) == 6
    everything: dict[str, Any] = {}
    for entry in capped.values():
        everything = union(everything, entry.fields)
    assert len(list(paths(everything))) == 15


@given(CONFIGS, CONFIGS)
def test_owners_survive_being_written_down(first: JsonObject, second: JsonObject) -> None:
    base = applied(None, first, {})
    both = applied(base.obj, second, base.managed, BOB, force=True)
    assert managers.decode(managers.encode(both.managed)) == both.managed


@pytest.mark.parametrize(
    "entries",
    [
        None,
        {},
        [1],
        [{}],
        [{"operation": "Apply", "apiVersion": "v1"}],
        [{"operation": "Other", "apiVersion": "v1", "fieldsType": "FieldsV1"}],
        [{"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"x": {}}}],
    ],
)
def test_unreadable_owners_are_none(entries: object) -> None:
    assert managers.decode(entries) is None
