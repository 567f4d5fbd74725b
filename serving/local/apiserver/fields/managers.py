"""`metadata.managedFields`: which manager owns what, read and written."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.fields.fieldset import Tree, is_valid, union

APPLY: Final = "Apply"
UPDATE: Final = "Update"
MAX_UPDATERS: Final = 10
_ANCIENT: Final = "ancient-changes"


class Manager(NamedTuple):
    """Who: an applier is one manager in all versions (`api_version` empty), an updater one per version."""

    name: str
    operation: str
    api_version: str = ""
    subresource: str = ""

    def shown(self) -> str:
        """As conflicts name it."""
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == UPDATE else text


class Owned(NamedTuple):
    """What: the fields, and in which version their paths are written. `time` is metav1.Time."""

    fields: Tree
    api_version: str
    time: str


Managed = dict[Manager, Owned]


def decode(entries: object) -> Managed | None:
    """None = they cannot be read, as if there were none. What is stored (raw JSON) was found readable before."""
    stored = isinstance(entries, msgspec.Raw)
    if isinstance(entries, msgspec.Raw):
        entries = msgspec.json.decode(entries)
    if not isinstance(entries, list):
        return None
    managed: Managed = {}
    for entry in entries:
        if not stored and not _readable(entry):
            return None
        operation = entry["operation"]
        version = entry["apiVersion"]
        manager = Manager(
            str(entry.get("manager") or ""),
            operation,
            version if operation == UPDATE else "",
            str(entry.get("subresource") or ""),
        )
        managed[manager] = Owned(entry.get("fieldsV1") or {}, version, str(entry.get("time") or ""))
    return managed


def _readable(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.get("operation") in (APPLY, UPDATE)
        and isinstance(entry.get("apiVersion"), str)
        and entry["apiVersion"] != ""
        and entry.get("fieldsType") == "FieldsV1"
        and is_valid(entry.get("fieldsV1") or {})
    )


def is_reset(entries: object) -> bool:
    """`[]` and `[{}]` ask to forget all owners."""
    return entries in ([], [{}])


def encode(managed: Managed) -> list[JsonObject]:
    """Appliers first, then by time and name."""
    entries: list[JsonObject] = []
    for manager, owned in sorted(managed.items(), key=_order):
        entry: JsonObject = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": owned.api_version,
        }
        if owned.time:
            entry["time"] = owned.time
        entry["fieldsType"] = "FieldsV1"
        entry["fieldsV1"] = owned.fields
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    return entries


def _order(item: tuple[Manager, Owned]) -> tuple[Any, ...]:
    manager, owned = item
    return manager.operation, owned.time, manager.name, owned.api_version, manager.subresource


def cap(managed: Managed) -> Managed:
    """At most MAX_UPDATERS updaters: the oldest of each version become one."""
    updaters = [manager for manager in managed if manager.operation == UPDATE]
    surplus = len(updaters) - MAX_UPDATERS
    if surplus <= 0:
        return managed
    result = dict(managed)
    first: dict[str, Manager] = {}
    for manager in sorted(updaters, key=lambda manager: (managed[manager].time, manager)):
        if surplus <= 0:
            break
        owned = result[manager]
        version = owned.api_version
        bucket = Manager(_ANCIENT, UPDATE, version)
        if version not in first:
            first[version] = manager
            continue
        if bucket not in result:
            result[bucket] = result.pop(first[version])
        have = result[bucket]
        if manager != bucket:
            del result[manager]
        result[bucket] = Owned(union(owned.fields, have.fields), version, owned.time)
        surplus -= 1
    return result
