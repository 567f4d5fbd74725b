"""The algebra of field sets, against Python's own sets of paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.apiserver.fields.fieldset import (
    difference,
    has,
    intersection,
    is_valid,
    made_of,
    paths,
    show,
    union,
)

ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"name":"c"}', "v:1"])
PATHS = st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple)
SETS = st.lists(PATHS, max_size=8).map(lambda listed: made_of(*listed))


@given(SETS, SETS)
def test_operations_are_those_of_sets(first: dict[str, Any], second: dict[str, Any]) -> None:
    left, right = set(paths(first)), set(paths(second))
    assert set(paths(union(first, second))) == left | right
    assert set(paths(intersection(first, second))) == left & right
    assert set(paths(difference(first, second))) == left - right


@given(SETS)
def test_a_tree_is_made_of_its_paths(tree: dict[str, Any]) -> None:
    assert made_of(*paths(tree)) == tree
    assert is_valid(tree)
    assert all(has(tree, path) for path in paths(tree))
    assert difference(tree, tree) == {}
    assert union(tree, {}) == intersection(tree, tree) == tree


@pytest.mark.parametrize("tree", [None, [], {"x": {}}, {"f:a": 1}, {"f:a": {"b": {}}}])
def test_what_is_no_tree(tree: object) -> None:
    assert not is_valid(tree)


def test_paths_as_conflicts_name_them() -> None:
    path = ("f:spec", "f:ports", 'k:{"containerPort":80,"protocol":"TCP"}', "f:name")
    assert show(path) == '.spec.ports[containerPort=80,protocol="TCP"].name'
    assert show(("f:finalizers", 'v:"x"')) == '.finalizers[="x"]'
    assert show(("i:3",)) == "[3]"
