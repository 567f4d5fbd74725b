"""Which fields an object has, and which differ between two versions of it."""

from __future__ import annotations

from typing import Any, NamedTuple

from serving.local.apiserver.fields.fieldset import EMPTY, LEAF, SELF, Tree, union
from serving.local.apiserver.fields.types import DEDUCED, Type

_MISSING: Any = object()


class Comparison(NamedTuple):
    added: Tree
    modified: Tree
    removed: Tree

    @property
    def changed(self) -> Tree:
        return union(self.added, self.modified)


def field_set(value: Any, type_: Type) -> Tree:
    """The fields of a configuration as it was written: leaves, items of lists, and keys of maps."""
    tree: Tree = {}
    for name, inner in value.items():
        node = _written(inner, type_.child(name))
        if name not in type_.fields and node and SELF not in node:
            node = {SELF: LEAF, **node}
        if node is not None:
            tree["f:" + name] = node
    return tree


def _written(value: Any, type_: Type) -> Tree | None:
    """The node of a field; None = nothing of it is in the set."""
    if type_.atomic or not value:
        return LEAF if type_.atomic or value != [] or type_.item is None else None
    if isinstance(value, dict):
        return field_set(value, type_)
    if isinstance(value, list) and type_.item is not None:
        tree: Tree = {}
        names = type_.names(value)
        for name, item in zip(names, value, strict=True):
            if name in tree:
                tree[name] = LEAF
                continue
            node = _written(item, type_.item)
            tree[name] = {SELF: LEAF, **node} if node and SELF not in node else node or LEAF
        return tree
    return LEAF


def compare(old: Any, new: Any, type_: Type) -> Comparison:
    """What changed between two objects. Both may leave out the empty objects that the typed form always has."""
    added: Tree = {}
    modified: Tree = {}
    removed: Tree = {}
    for name, value in new.items():
        before = old.get(name, _MISSING)
        if before is _MISSING:
            inner = type_.child(name)
            if name in type_.present and not inner.atomic and isinstance(value, dict):
                before = EMPTY
            elif name in type_.listed and inner.item is not None and value:
                before = []
            else:
                added["f:" + name] = whole(value, inner)
                continue
        if before != value:
            _differ("f:" + name, before, value, type_.child(name), added, modified, removed)
    for name, value in old.items():
        if name in new:
            continue
        inner = type_.child(name)
        if name in type_.present and not inner.atomic and isinstance(value, dict):
            _differ("f:" + name, value, EMPTY, inner, added, modified, removed)
        else:
            removed["f:" + name] = whole(value, inner)
    return Comparison(added, modified, removed)


def _differ(name: str, old: Any, new: Any, type_: Type, added: Tree, modified: Tree, removed: Tree) -> None:
    """Note the differences of two unequal values under `name`."""
    if not type_.atomic and isinstance(old, dict) and isinstance(new, dict):
        inner = compare(old, new, type_)
    elif type_.item is not None and isinstance(old, list) and isinstance(new, list):
        inner = _compare_lists(old, new, type_)
    elif type(old) is type(new) or type_.atomic or not isinstance(old, (dict, list)) or not old:
        modified[name] = LEAF
        if isinstance(new, (dict, list)) and not type_.atomic and type(old) is not type(new):
            added[name] = whole(new, type_)
        return
    else:
        # Another form altogether, such as an object in place of a list.
        removed[name] = whole(old, type_)
        modified[name] = LEAF
        return
    if inner.added:
        added[name] = inner.added
    if inner.modified:
        modified[name] = inner.modified
    if inner.removed:
        removed[name] = inner.removed


def _compare_lists(old: list[Any], new: list[Any], type_: Type) -> Comparison:
    item = type_.item or DEDUCED
    added: Tree = {}
    modified: Tree = {}
    removed: Tree = {}
    before = _grouped(old, type_)
    after = _grouped(new, type_)
    for name, values in after.items():
        have = before.get(name)
        if have is None:
            added[name] = whole(values[0], item) if len(values) == 1 else LEAF
        elif have != values:
            if len(have) == len(values) == 1:
                _differ(name, have[0], values[0], item, added, modified, removed)
            else:
                modified[name] = LEAF
    for name, values in before.items():
        if name not in after:
            removed[name] = whole(values[0], item) if len(values) == 1 else LEAF
    return Comparison(added, modified, removed)


def _grouped(items: list[Any], type_: Type) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, item in zip(type_.names(items), items, strict=True):
        found.setdefault(name, []).append(item)
    return found


def whole(value: Any, type_: Type) -> Tree:
    """The node of a value that appeared or vanished with all that is in it."""
    if not value or type_.atomic:
        return LEAF
    if isinstance(value, dict):
        tree: Tree = {SELF: LEAF}
        fields, element = type_.fields, type_.element
        for name, inner in value.items():
            if inner and isinstance(inner, (dict, list)):
                tree["f:" + name] = whole(inner, fields.get(name) or element or type_)
            else:
                tree["f:" + name] = LEAF
        for name in type_.present:
            if name not in value and name != "metadata":
                tree["f:" + name] = LEAF
        return tree
    if type_.item is not None and isinstance(value, list):
        listed: Tree = {SELF: LEAF}
        for name, item in zip(type_.names(value), value, strict=True):
            listed[name] = whole(item, type_.item) if name not in listed else LEAF
        return listed
    return LEAF
