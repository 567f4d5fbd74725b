"""Sets of field paths, in the form in which `fieldsV1` holds them.

A set is a tree of dicts. Names are path elements: `f:name` a field, `k:{"name":"c"}` an item of a list by its
keys, `v:1` an item of a set. Below a name, `{}` means that the path itself is in the set, `{".": {}, ...}` that it
is and others below it too, and anything else that only others below it are. Trees are never changed once they are
made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

Tree = dict[str, Any]
Path = tuple[str, ...]

LEAF: Final[Tree] = {}
EMPTY: Final[Tree] = {}
SELF: Final = "."


def is_member(node: Tree) -> bool:
    """Whether the path of this (not the root) node is in the set."""
    return not node or SELF in node


def union(first: Tree, second: Tree) -> Tree:
    if not first or first is second:
        return second
    if not second:
        return first
    result = dict(first)
    for name, node in second.items():
        have = result.get(name)
        result[name] = node if have is None else _union_node(have, node)
    return result


def _union_node(first: Tree, second: Tree) -> Tree:
    if not first:
        return {SELF: LEAF, **second} if second else LEAF
    if not second:
        return {SELF: LEAF, **first}
    return union(first, second)


def _node(member: bool, children: Tree) -> Tree | None:
    if member:
        return {SELF: LEAF, **children} if children else LEAF
    return children or None


def _children(node: Tree) -> Tree:
    return {name: inner for name, inner in node.items() if name != SELF} if SELF in node else node


def difference(first: Tree, second: Tree) -> Tree:
    """What is in `first` and not in `second`; fields below a path of `second` stay."""
    if not second:
        return first
    result: Tree = {}
    for name, node in first.items():
        other = second.get(name)
        if other is None:
            result[name] = node
            continue
        left = _node(is_member(node) and not is_member(other), difference(_children(node), _children(other)))
        if left is not None:
            result[name] = left
    return result


def intersection(first: Tree, second: Tree) -> Tree:
    if not first or not second:
        return EMPTY
    result: Tree = {}
    for name, node in first.items():
        other = second.get(name)
        if other is None:
            continue
        left = _node(is_member(node) and is_member(other), intersection(_children(node), _children(other)))
        if left is not None:
            result[name] = left
    return result


def without(tree: Tree, *paths: Path) -> Tree:
    """The set without these paths (what is below them stays)."""
    for path in paths:
        tree = difference(tree, made_of(path))
    return tree


def made_of(*paths: Path) -> Tree:
    """The set of these paths."""
    result: Tree = EMPTY
    for path in paths:
        node: Tree = LEAF
        for name in reversed(path):
            node = {name: node}
        result = union(result, node)
    return result


def paths(tree: Tree) -> Iterator[Path]:
    """Every path in the set, parents before what is below them."""
    for name, node in tree.items():
        if name == SELF:
            continue
        if is_member(node):
            yield (name,)
        for inner in paths(node):
            yield (name, *inner)


def has(tree: Tree, path: Path) -> bool:
    for name in path:
        node = tree.get(name)
        if node is None:
            return False
        tree = node
    return is_member(tree)


def is_valid(tree: object) -> bool:
    """Whether something that was read is such a tree."""
    return isinstance(tree, dict) and all(
        (name == SELF or name[:2] in ("f:", "k:", "v:", "i:")) and is_valid(node) for name, node in tree.items()
    )


def show(path: Path) -> str:
    """As conflicts name it: `.spec.containers[name="c"].image`."""
    return "".join(map(_show_element, path))


def _show_element(name: str) -> str:
    kind, text = name[:2], name[2:]
    if kind == "f:":
        return "." + text
    if kind == "v:":
        return f"[={text}]"
    if kind == "i:":
        return f"[{text}]"
    keys = msgspec.json.decode(text)
    return "[" + ",".join(f"{key}={msgspec.json.encode(keys[key]).decode()}" for key in sorted(keys)) + "]"
