"""Merging a configuration into an object, and taking fields out of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from serving.local.apiserver.fields.fieldset import Tree, is_member, show
from serving.local.apiserver.fields.types import DEDUCED, Type

_MISSING: Any = object()


def problems(value: Any, type_: Type, path: str = "") -> Iterator[str]:
    """Lists of a configuration whose items cannot be told apart."""
    if type_.atomic:
        return
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from problems(inner, type_.child(name), f"{path}.{name}")
    elif isinstance(value, list) and type_.item is not None:
        try:
            names = type_.names(value)
        except KeyError as error:
            yield f"{path}: {error.args[0]}"
            return
        seen: set[str] = set()
        for name, item in zip(names, value, strict=True):
            if name in seen:
                yield f"{path}: duplicate entries for key {show((name,))}"
            seen.add(name)
            yield from problems(item, type_.item, path + show((name,)))


def merge(live: Any, applied: Any, type_: Type) -> Any:
    """`applied`, which `problems` found nothing wrong with, over `live`; both are left as they are."""
    if type_.atomic or applied is None:
        return applied
    if isinstance(applied, dict) and isinstance(live, dict):
        merged = dict(live)
        for name, value in applied.items():
            before = merged.get(name, _MISSING)
            inner = type_.child(name)
            merged[name] = value if before is _MISSING else merge(before, value, inner)
        return merged
    if type_.item is not None and isinstance(applied, list):
        return _merge_list(live if isinstance(live, list) else [], applied, type_)
    return applied


def _merge_list(live: list[Any], applied: list[Any], type_: Type) -> list[Any]:
    """Items of `applied` in their order, each merged; items only in `live` keep their place before the next shared
    one."""
    item = type_.item or DEDUCED
    names = type_.names(applied)
    have = type_.names(live)
    old = dict(zip(have, live, strict=True))
    new = dict(zip(names, applied, strict=True))
    shared = iter([name for name in names if name in old])
    following = next(shared, None)
    result: list[Any] = []
    done: set[str] = set()
    left = right = 0

    def merged(name: str) -> Any:
        done.add(name)
        return merge(old[name], new[name], item) if name in old else new[name]

    while left < len(have) or right < len(names):
        if left < len(have) and right < len(names):
            if have[left] == names[right]:
                result.append(merged(have[left]))
                left, right = left + 1, right + 1
                following = next(shared, None)
                continue
            if have[left] in new and following is not None and following != have[left]:
                left += 1
                continue
        if left < len(have):
            if have[left] not in new:
                result.append(live[left])
                left += 1
                continue
            if have[left] in done:
                left += 1
        if right < len(names):
            result.append(merged(names[right]))
            if names[right] == following:
                following = next(shared, None)
            right += 1
    return result


def remove(value: Any, fields: Tree, type_: Type) -> Any:
    """The value without these fields; None when nothing but empty forms would be left of a non-empty one."""
    if not fields or type_.atomic or not value:
        return value
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for name, inner in value.items():
            node = fields.get("f:" + name)
            if node is None:
                kept[name] = inner
            elif not is_member(node):
                left = remove(inner, node, type_.child(name))
                if left is not None or inner is None:
                    kept[name] = left
        return kept or None
    if isinstance(value, list) and type_.item is not None:
        items: list[Any] = []
        for name, item in zip(type_.names(value), value, strict=True):
            node = fields.get(name)
            if node is None:
                items.append(item)
            elif not is_member(node):
                items.append(remove(item, node, type_.item))
        return items or None
    return value
