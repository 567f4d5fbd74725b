"""Updates and applies: the object that results, and who owns its fields afterwards.

A conflict is a field that another manager owns and that the configuration gives another value. A field is removed
when the applier owned it, no longer gives it, and nobody else owns it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from serving.api.meta import JsonObject
from serving.local.apiserver.fields.compare import Comparison, compare, field_set
from serving.local.apiserver.fields.fieldset import (
    EMPTY,
    Path,
    Tree,
    difference,
    has,
    intersection,
    paths,
    show,
    union,
)
from serving.local.apiserver.fields.managers import APPLY, UPDATE, Managed, Manager, Owned, cap
from serving.local.apiserver.fields.merging import merge, remove
from serving.local.apiserver.fields.types import Type, with_named_fields

BEFORE_FIRST_APPLY: Final = "before-first-apply"
_UNOWNED_METADATA: Final = frozenset(
    {
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    }
)


class Conflict(NamedTuple):
    manager: Manager
    path: Path

    @property
    def field(self) -> str:
        return show(self.path)


class Conflicts(Exception):
    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__(f"{len(conflicts)} conflicts")
        self.conflicts = conflicts

    def message(self) -> str:
        if len(self.conflicts) == 1:
            only = self.conflicts[0]
            return f"Apply failed with 1 conflict: conflict with {only.manager.shown()}: {only.field}"
        lines: list[str] = []
        for manager in sorted({conflict.manager for conflict in self.conflicts}):
            lines.append(f"conflicts with {manager.shown()}:")
            lines += [f"- {c.field}" for c in self.conflicts if c.manager == manager]
        return f"Apply failed with {len(self.conflicts)} conflicts: " + "\n".join(lines)


def ownable(obj: JsonObject) -> JsonObject:
    """The part of an object whose fields somebody can own."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _UNOWNED_METADATA}
    return {"metadata": metadata} | {
        name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")
    }


def _with_metadata(obj: JsonObject, whole: JsonObject) -> JsonObject:
    """`obj`, which is only the ownable part, with the rest of the metadata of `whole`."""
    rest = {name: value for name, value in whole["metadata"].items() if name in _UNOWNED_METADATA}
    metadata = {**rest, **(obj.get("metadata") or {})}
    return {"apiVersion": whole["apiVersion"], "kind": whole["kind"], **obj, "metadata": metadata}


def update(
    old: JsonObject | None,
    new: JsonObject,
    managed: Managed,
    manager: Manager,
    type_: Type,
    *,
    now: str,
    comparison: Comparison | None = None,
) -> Managed:
    """The owners after `manager` changed `old` into `new` (`old` None = created it). An object without owners
    stays so: it was made before owners were kept, or they were taken off. `comparison`: `changes`, if known."""
    if old is not None and not managed:
        return managed
    comparison = comparison or changes(old, new, type_)
    changed = comparison.changed
    result = _disowned(managed, comparison)
    if changed:
        have = result.get(manager)
        fields = changed if have is None else union(have.fields, changed)
        result[manager] = Owned(fields, manager.api_version, now)
    return cap(result)


def changes(old: JsonObject | None, new: JsonObject, type_: Type) -> Comparison:
    """What an update changes of what can be owned."""
    return compare(ownable(old) if old is not None else {"metadata": {}}, ownable(new), type_)


def _disowned(managed: Managed, comparison: Comparison) -> Managed:
    """Without what was changed or removed; managers that own nothing any more are gone."""
    taken = union(comparison.changed, comparison.removed)
    if not taken:
        return dict(managed)
    result: Managed = {}
    for manager, owned in managed.items():
        fields = difference(owned.fields, taken)
        if fields:
            result[manager] = owned._replace(fields=fields)
    return result


class Applied(NamedTuple):
    obj: JsonObject
    managed: Managed


def apply(
    live: JsonObject | None,
    config: JsonObject,
    managed: Managed,
    manager: Manager,
    type_: Type,
    *,
    api_version: str,
    force: bool,
    now: str,
) -> Applied:
    """Raises Conflicts unless `force`. `config` is what the user sent, without what is not applied here (such as
    the status), and with nothing that `merging.problems` finds."""
    if live is None:
        skeleton: JsonObject = {"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}}
        live_part: JsonObject = {"metadata": {}}
    else:
        skeleton, live_part = live, ownable(live)
        if not managed:
            first = Manager(BEFORE_FIRST_APPLY, UPDATE, api_version)
            managed = update(None, live, {}, first, type_, now=now)
    wanted = ownable({**config, "metadata": config.get("metadata") or {}})
    if not wanted["metadata"]:
        del wanted["metadata"]
    merged = merge(live_part, wanted, type_)
    last = managed.get(manager)
    fields = field_set(wanted, type_)
    result = dict(managed)
    result[manager] = Owned(fields, api_version, now)
    if last is not None and last.fields:
        merged = _pruned(merged, last.fields, result, type_)
    comparison = compare(live_part, merged, type_)
    others = {other: owned for other, owned in result.items() if other != manager}
    if not force:
        _check(others, comparison, type_)
    result = {**_disowned(others, comparison), manager: result[manager]}
    if not fields:
        del result[manager]
    elif last is not None and last.fields == fields and merged == live_part:
        result[manager] = last
    if "metadata" not in merged:
        merged = {"metadata": {}, **merged}
    return Applied(_with_metadata(merged, skeleton), result)


def _check(others: Managed, comparison: Comparison, type_: Type) -> None:
    changed = comparison.changed
    found = [
        Conflict(manager, path)
        for manager, owned in others.items()
        for path in sorted(paths(intersection(owned.fields, changed)))
    ]
    if found:
        raise Conflicts(found)


def _pruned(merged: Any, last: Tree, managed: Managed, type_: Type) -> Any:
    """Without what the applier gave last time and nobody owns now."""
    last = with_named_fields(last, type_)
    everything = with_named_fields(field_set(merged, type_), type_)
    pruned = remove(merged, last, type_) or {}
    owned: Tree = EMPTY
    for entry in managed.values():
        owned = union(owned, entry.fields)
    left = with_named_fields(field_set(pruned, type_), type_)
    gone = difference(everything, union(left, with_named_fields(owned, type_)))
    pruned = remove(merged, gone, type_) or {}
    left = with_named_fields(field_set(pruned, type_), type_)
    return remove(merged, intersection(difference(everything, left), last), type_) or {}


def allowed_by_last_applied(
    conflicts: list[Conflict], last_applied: JsonObject, live: JsonObject, type_: Type
) -> bool:
    """Whether all conflicts are about fields that client-side apply set and nobody changed since."""
    wanted = ownable({**last_applied, "metadata": last_applied.get("metadata") or {}})
    comparison = compare(wanted, ownable(live), type_)
    fields = difference(field_set(wanted, type_), union(comparison.changed, comparison.removed))
    return all(has(fields, conflict.path) for conflict in conflicts)


def applier(name: str, subresource: str) -> Manager:
    return Manager(name, APPLY, "", subresource)


def updater(name: str, api_version: str, subresource: str) -> Manager:
    return Manager(name, UPDATE, api_version, subresource)
