"""JSON patch, merge patch and strategic merge patch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.apiserver import strategic
from serving.local.apiserver.bootstrap import difference
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.patch import apply_json_patch, apply_merge_patch, merge
from tests.local.apiserver.objects import CONFIG_MAP, POD, builtin

SCALARS = st.one_of(st.integers(), st.text(max_size=3), st.booleans())
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner))
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), VALUES)


@pytest.mark.parametrize(
    ("target", "change", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, change: Any, expected: Any) -> None:
    """The examples of RFC 7386."""
    assert apply_merge_patch(target, change) == expected


@given(OBJECTS, OBJECTS)
def test_difference_is_the_merge_patch_between_two(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert merge(before, difference(before, after)) == after


@given(OBJECTS, OBJECTS)
def test_merge_twice_is_merge_once_and_leaves_its_arguments(
    target: dict[str, Any], change: dict[str, Any]
) -> None:
    kept = (repr(target), repr(change))
    once = merge(target, change)
    assert merge(once, change) == once
    assert (repr(target), repr(change)) == kept


def test_json_patch() -> None:
    obj = {"metadata": {"labels": {"a": "b"}}, "list": [1, 2]}
    operations = [
        {"op": "test", "path": "/metadata/labels/a", "value": "b"},
        {"op": "replace", "path": "/metadata/labels/a", "value": "c"},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "remove", "path": "/list/0"},
    ]
    assert apply_json_patch(obj, operations) == {"metadata": {"labels": {"a": "c"}}, "list": [2, 3]}
    assert obj["list"] == [1, 2]


@pytest.mark.parametrize(
    ("operations", "code"),
    [
        ({"a": 1}, 400),
        ([{"op": "what", "path": "/a"}], 422),
        ([1], 400),
        ([{"op": "test", "path": "/a", "value": 1}], 422),
        ([{"op": "remove", "path": "/nope"}], 422),
        ([{"op": "remove", "path": "/a/b/c"}], 422),
        ([{"op": "replace", "path": "", "value": 3}], 400),
        ([{"op": "add", "path": "/x", "value": 1}] * 10_001, 413),
    ],
)
def test_bad_json_patch(operations: Any, code: int) -> None:
    with pytest.raises(StatusError) as caught:
        apply_json_patch({"a": {}}, operations)
    assert caught.value.code == code


CONTAINERS: list[dict[str, Any]] = [
    {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
    {"name": "b", "image": "2"},
]
LIVE = {"metadata": {"labels": {"l": "1"}, "finalizers": ["f1", "f2"]}, "spec": {"containers": CONTAINERS}}


@pytest.mark.parametrize(
    ("change", "containers"),
    [
        (
            {"spec": {"containers": [{"name": "a", "image": "9"}]}},
            [{**CONTAINERS[0], "image": "9"}, CONTAINERS[1]],
        ),
        ({"spec": {"containers": [{"name": "b", "$patch": "delete"}]}}, [CONTAINERS[0]]),
        ({"spec": {"containers": [{"name": "c", "image": "3"}]}}, [{"name": "c", "image": "3"}, *CONTAINERS]),
        (
            {
                "spec": {
                    "containers": [{"name": "c", "image": "3"}],
                    "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
                }
            },
            [{"name": "c", "image": "3"}, *CONTAINERS],
        ),
        (
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            [CONTAINERS[1], CONTAINERS[0]],
        ),
        (
            {"spec": {"containers": [{"name": "a", "env": [{"name": "X", "$patch": "delete"}]}]}},
            [{**CONTAINERS[0], "env": [{"name": "Y", "value": "2"}]}, CONTAINERS[1]],
        ),
        (
            {"spec": {"containers": [{"$patch": "replace"}, {"name": "z", "image": "0"}]}},
            [{"name": "z", "image": "0"}],
        ),
    ],
)
def test_strategic_lists_of_a_pod(change: Any, containers: Any) -> None:
    assert strategic.apply(LIVE, change, POD)["spec"]["containers"] == containers


def test_strategic_sets_and_maps() -> None:
    added = strategic.apply(LIVE, {"metadata": {"finalizers": ["f3"]}}, POD)
    assert added["metadata"]["finalizers"] == ["f3", "f1", "f2"]
    removed = strategic.apply(LIVE, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["f1"]}}, POD)
    assert removed["metadata"]["finalizers"] == ["f2"]
    live: dict[str, Any] = {"data": {"a": "1", "b": "2"}}
    assert strategic.apply(live, {"data": {"a": None, "c": "3"}}, CONFIG_MAP)["data"] == {"b": "2", "c": "3"}
    assert strategic.apply(live, {"data": {"$patch": "replace", "z": "1"}}, CONFIG_MAP)["data"] == {"z": "1"}
    assert strategic.apply(live, {"data": {"$patch": "delete"}}, CONFIG_MAP)["data"] == {}
    kept = strategic.apply(live, {"data": {"$retainKeys": ["a", "c"], "c": "3"}}, CONFIG_MAP)
    assert kept["data"] == {"a": "1", "c": "3"}


def test_strategic_conditions_and_replaced_lists() -> None:
    live: dict[str, Any] = {"status": {"conditions": [{"type": "Ready", "status": "False"}], "addresses": []}}
    change: dict[str, Any] = {
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "New", "status": "True"}]}
    }
    patched = strategic.apply(live, change, builtin("v1", "Node"))
    assert [c["status"] for c in patched["status"]["conditions"]] == ["True", "True"]
    live = {"spec": {"containers": [{"name": "a", "args": ["1", "2"]}]}}
    change = {"spec": {"containers": [{"name": "a", "args": ["3"]}]}}
    assert strategic.apply(live, change, POD)["spec"]["containers"][0]["args"] == ["3"]


@pytest.mark.parametrize("change", [[], {"spec": {"containers": [{"image": "x"}]}}, {"spec": {"$patch": "what"}}])
def test_bad_strategic_patch(change: Any) -> None:
    with pytest.raises(StatusError) as caught:
        strategic.apply(LIVE, change, POD)
    assert caught.value.code in (400, 500)


@given(OBJECTS, OBJECTS)
def test_strategic_is_merge_where_no_list_has_a_key(target: dict[str, Any], change: dict[str, Any]) -> None:
    assert strategic.apply({"data": target}, {"data": change}, CONFIG_MAP) == merge(
        {"data": target}, {"data": change}
    )
