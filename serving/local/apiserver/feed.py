"""One watch as a pure value: which events a watcher gets, in what order, and when it has fallen too far behind.

A watcher is a cursor into the state's history, not a queue: a slow reader holds no memory, and one that is
overtaken by the history gets 410.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.selectors import Matcher
from serving.local.apiserver.state import ADDED, DELETED, MODIFIED, Entry, Event, State, make_entry
from serving.local.apiserver.versions import from_storage


class Encoder(Protocol):
    """Turns an object into the bytes of one watch event; may share them through `event.cache`."""

    def event(self, type_: str, entry: Entry, event: Event | None) -> bytes: ...

    def bookmark(self, revision: int, *, initial_end: bool) -> bytes: ...


class FeedOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`revision` None or 0 starts with a synthetic ADDED per object; `initial` overrides that."""

    namespace: str = ""
    matches: Matcher | None = None
    revision: int | None = None
    initial: bool | None = None
    bookmarks: bool = False


class Feed:
    def __init__(self, state: State, kind: Kind, options: FeedOptions, encoder: Encoder) -> None:
        """Raises StatusError 504 for a revision that was not reached yet."""
        self._state = state
        self._kind = kind
        self._options = options
        self._encoder = encoder
        revision = options.revision or 0
        state.check_reached(revision)
        self._with_initial = options.initial if options.initial is not None else revision == 0
        self.cursor = state.revision if self._with_initial or revision == 0 else revision

    def initial(self) -> list[bytes]:
        """What is sent before any change; must be called in the loop turn of the constructor."""
        if not self._with_initial:
            return []
        options = self._options
        chunks = [
            self._encoder.event(ADDED, entry, None)
            for entry in self._state.select(self._kind.storage, options.namespace)
            if self._matches(entry)
        ]
        if options.initial and options.bookmarks:
            chunks.append(self._encoder.bookmark(self.cursor, initial_end=True))
        return chunks

    def advance(self) -> list[bytes]:
        """Everything since the last call. Raises StatusError 410 when part of it is forgotten."""
        events = self._state.since(self._kind.storage, self.cursor)
        self.cursor = self._state.revision
        return [chunk for event in events if (chunk := self._encode(event)) is not None]

    def bookmark(self) -> bytes:
        return self._encoder.bookmark(self.cursor, initial_end=False)

    def _matches(self, entry: Entry | None) -> bool:
        if entry is None:
            return False
        matches = self._options.matches
        return matches is None or matches(from_storage(entry.obj, self._kind))

    def _encode(self, event: Event) -> bytes | None:
        entry, previous = event.entry, event.previous
        if self._options.namespace not in ("", entry.key.namespace):
            return None
        if self._options.matches is None:
            return self._encoder.event(event.type, entry, event)
        before = self._matches(previous)
        after = event.type != DELETED and self._matches(entry)
        if before and after:
            return self._encoder.event(MODIFIED, entry, event)
        if after:
            return self._encoder.event(ADDED, entry, event)
        if before and previous is not None:
            last = entry if event.type == DELETED else make_entry(entry.key, entry.revision, previous.obj)
            # An object that left the selector is encoded for this watcher alone.
            return self._encoder.event(DELETED, last, event if event.type == DELETED else None)
        return None
