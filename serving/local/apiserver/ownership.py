"""Who owns whom, and what the garbage collector should do about one object. Pure: decisions on published state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.deletion import FOREGROUND, ORPHAN
from serving.local.apiserver.state import DELETED, Entry, Event, Key


class Delete(msgspec.Struct, frozen=True):
    """Delete the object `key`, if it is still the one with this uid."""

    key: Key
    uid: str
    propagation: str


class DropOwners(msgspec.Struct, frozen=True):
    """Remove the owner references with these uids."""

    key: Key
    uids: frozenset[str]


class DropFinalizer(msgspec.Struct, frozen=True):
    key: Key
    finalizer: str


Step = Delete | DropOwners | DropFinalizer
_DELETING: Final = "deletionTimestamp"


class Graph:
    """Owner references of all objects, kept by their events."""

    def __init__(self, entries: list[Entry], get: Callable[[Key], Entry | None]) -> None:
        self._get = get
        self._by_uid: dict[str, Key] = {}
        self._dependents: dict[str, set[Key]] = {}
        for entry in entries:
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        self._by_uid[entry.uid] = entry.key
        for uid in _owner_uids(entry.obj):
            self._dependents.setdefault(uid, set()).add(entry.key)

    def _remove(self, entry: Entry) -> None:
        self._by_uid.pop(entry.uid, None)
        for uid in _owner_uids(entry.obj):
            keys = self._dependents.get(uid, set())
            keys.discard(entry.key)
            if not keys:
                self._dependents.pop(uid, None)

    def observe(self, event: Event) -> list[Key]:
        """Take in a change; the objects that have to be looked at because of it."""
        if event.previous is not None:
            self._remove(event.previous)
        affected: list[Key] = []
        if event.type == DELETED:
            affected += sorted(self._dependents.get(event.entry.uid, ()))
            affected += [self._by_uid[uid] for uid in _owner_uids(event.entry.obj) if uid in self._by_uid]
            return affected
        self._add(event.entry)
        if self.is_interesting(event.entry):
            affected.append(event.entry.key)
        return affected

    def is_interesting(self, entry: Entry) -> bool:
        """Whether the collector may have something to do about an object as it is."""
        metadata = entry.obj["metadata"]
        return bool(metadata.get("ownerReferences")) or _DELETING in metadata

    def dependents(self, uid: str) -> list[Entry]:
        found = (self._get(key) for key in sorted(self._dependents.get(uid, ())))
        return [entry for entry in found if entry is not None]

    def steps(self, entry: Entry) -> list[Step]:
        """What is to be done about one object now; empty = nothing, or nothing yet."""
        metadata = entry.obj["metadata"]
        if _DELETING in metadata:
            finalizers = metadata.get("finalizers") or ()
            if ORPHAN in finalizers:
                return self._orphan(entry)
            if FOREGROUND in finalizers:
                return self._foreground(entry)
            return []
        return self._owned(entry) if metadata.get("ownerReferences") else []

    def _orphan(self, entry: Entry) -> list[Step]:
        steps: list[Step] = [
            DropOwners(dependent.key, frozenset((entry.uid,))) for dependent in self.dependents(entry.uid)
        ]
        return [*steps, DropFinalizer(entry.key, ORPHAN)]

    def _foreground(self, entry: Entry) -> list[Step]:
        steps: list[Step] = []
        blocked = False
        for dependent in self.dependents(entry.uid):
            reference = next(
                ref for ref in dependent.obj["metadata"]["ownerReferences"] if ref["uid"] == entry.uid
            )
            blocked = blocked or bool(reference.get("blockOwnerDeletion"))
            if _DELETING not in dependent.obj["metadata"]:
                steps += self._owned(dependent)
        return steps if blocked else [*steps, DropFinalizer(entry.key, FOREGROUND)]

    def _owned(self, entry: Entry) -> list[Step]:
        """An object lives while one of its owners does."""
        lost: set[str] = set()
        waiting = False
        solid = False
        for reference in entry.obj["metadata"]["ownerReferences"]:
            owner = self._owner(entry, reference)
            if owner is None:
                lost.add(reference["uid"])
            elif _waits_for_dependents(owner):
                waiting = True
                lost.add(reference["uid"])
            else:
                solid = True
        if not lost:
            return []
        if solid:
            return [DropOwners(entry.key, frozenset(lost))]
        foreground = waiting and self._blocks_somebody(entry.uid)
        return [Delete(entry.key, entry.uid, "Foreground" if foreground else "Background")]

    def _blocks_somebody(self, uid: str) -> bool:
        return any(
            ref["uid"] == uid and ref.get("blockOwnerDeletion")
            for dependent in self.dependents(uid)
            for ref in dependent.obj["metadata"]["ownerReferences"]
        )

    def _owner(self, entry: Entry, reference: JsonObject) -> Entry | None:
        key = self._by_uid.get(reference["uid"])
        if key is None or key.namespace not in ("", entry.key.namespace):
            return None
        return self._get(key)


def _waits_for_dependents(owner: Entry) -> bool:
    metadata = owner.obj["metadata"]
    return _DELETING in metadata and FOREGROUND in (metadata.get("finalizers") or ())


def _owner_uids(obj: JsonObject) -> list[str]:
    return [reference["uid"] for reference in obj["metadata"].get("ownerReferences") or ()]
