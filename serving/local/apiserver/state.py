"""All objects by revision, in memory: what is durable, what is on its way to the disk, and the recent history.

One counter numbers every change of every object. A change is first *staged*: writers see it at once (`head`), so
two writers never build on the same version. When it is durable it is *published*: now readers and watchers see
it. Stages are published in the order in which they were made, or all of them are dropped together.

Objects are never mutated; `Entry.obj` must be treated as read-only and `Entry.copy()` used to derive a new
version. In `Entry.obj`, `metadata.managedFields` is raw JSON.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import from_the_future, too_old

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
DELETED: Final = "DELETED"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Key(NamedTuple):
    """`storage` is Kind.storage; `namespace` is empty for cluster-scoped objects."""

    storage: str
    namespace: str
    name: str


class Entry:
    """One version of one object: decoded, and encoded once for every reader."""

    __slots__ = ("data", "key", "obj", "revision")

    def __init__(self, key: Key, revision: int, obj: JsonObject, data: bytes) -> None:
        self.key = key
        self.revision = revision
        self.obj = obj
        self.data = data

    def copy(self) -> JsonObject:
        """A deep copy that may be changed. Its `metadata.managedFields` are raw JSON too."""
        owners = self.obj["metadata"].get("managedFields")
        if owners is None:
            copied: JsonObject = _decode(self.data)
            return copied
        copied = _decode(self.data.replace(_OWNERS + owners, b"", 1))
        copied["metadata"]["managedFields"] = owners
        return copied

    @property
    def uid(self) -> str:
        return str(self.obj["metadata"]["uid"])


_OWNERS: Final = b',"managedFields":'
"""They are written last in the metadata, so something is before them."""


def make_entry(key: Key, revision: int, obj: JsonObject) -> Entry:
    """Stamp the revision and encode. apiVersion and kind come first in the encoding."""
    metadata = {**obj["metadata"], "resourceVersion": str(revision)}
    _pack(metadata)
    rest = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "metadata")}
    ordered = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata, **rest}
    return Entry(key, revision, ordered, _encode(ordered))


def _pack(metadata: JsonObject) -> None:
    """Keep the owners of the fields encoded: only writers look at them, in a copy."""
    owners = metadata.pop("managedFields", None)
    if owners:
        metadata["managedFields"] = owners if isinstance(owners, msgspec.Raw) else msgspec.Raw(_encode(owners))


def load_entry(key: Key, revision: int, data: bytes) -> Entry:
    obj = _decode(data)
    if "managedFields" in obj["metadata"]:
        _pack(obj["metadata"])
        data = _encode(obj)
    return Entry(key, revision, obj, data)


class Event:
    """A published change. `previous` is the version before it, None when added.

    `cache` holds encodings that watchers share; the state does not look at it.
    """

    __slots__ = ("cache", "entry", "previous", "type")

    def __init__(self, type_: str, entry: Entry, previous: Entry | None) -> None:
        self.type = type_
        self.entry = entry
        self.previous = previous
        self.cache: dict[str, bytes] = {}

    @property
    def revision(self) -> int:
        return self.entry.revision


class Stale(Exception):
    """The object changed since the writer read it."""


class Staged(NamedTuple):
    """A change that is not durable yet. `data` is None for a deletion."""

    event: Event
    data: bytes | None


class _Log:
    """Recent events of one storage. `floor` is the newest revision whose successors may be missing."""

    __slots__ = ("events", "floor")

    def __init__(self, floor: int) -> None:
        self.events: list[Event] = []
        self.floor = floor

    def append(self, event: Event, limit: int) -> None:
        self.events.append(event)
        if len(self.events) >= 2 * limit:
            self.floor = self.events[-limit - 1].revision
            del self.events[:-limit]


Listener = Callable[[Event], None]


class State:
    def __init__(self, entries: Iterable[Entry] = (), *, revision: int = 1, history: int = 1024) -> None:
        """`revision` is the newest revision that was ever given; `history` how many events each storage keeps."""
        self._published: dict[str, dict[tuple[str, str], Entry]] = {}
        self._pending: dict[Key, tuple[int, Entry | None]] = {}
        self._stages: list[Staged] = []
        self._logs: dict[str, _Log] = {}
        self._listeners: list[Listener] = []
        self._history = history
        for entry in entries:
            self._published.setdefault(entry.key.storage, {})[entry.key[1:]] = entry
        self._revision = self._head_revision = self._start = revision

    @property
    def revision(self) -> int:
        """Newest published revision."""
        return self._revision

    # Reading.

    def get(self, key: Key) -> Entry | None:
        return self._published.get(key.storage, {}).get(key[1:])

    def head(self, key: Key) -> Entry | None:
        """The newest version, durable or not: what a writer must build on."""
        pending = self._pending.get(key)
        return self.get(key) if pending is None else pending[1]

    def select(self, storage: str, namespace: str = "") -> list[Entry]:
        """Published objects in order of namespace and name; `namespace` empty = all."""
        table = self._published.get(storage, {})
        names = sorted(table) if not namespace else sorted(key for key in table if key[0] == namespace)
        return [table[name] for name in names]

    def select_at(self, storage: str, namespace: str, revision: int) -> list[Entry]:
        """`select` as it was at a revision. Raises StatusError 410 when that is too long ago."""
        table = dict(self._published.get(storage, {}))
        for event in reversed(self.since(storage, revision)):
            if event.previous is None:
                table.pop(event.entry.key[1:], None)
            else:
                table[event.entry.key[1:]] = event.previous
        return [table[name] for name in sorted(table) if namespace in ("", name[0])]

    def all(self) -> Iterator[Entry]:
        for table in list(self._published.values()):
            yield from list(table.values())

    def storages(self) -> tuple[str, ...]:
        return tuple(storage for storage, table in self._published.items() if table)

    def heads(self, storage: str, namespace: str = "") -> list[Entry]:
        """Like `select`, with changes that are not durable yet."""
        merged: dict[Key, Entry | None] = {
            Key(storage, *name): entry for name, entry in self._published.get(storage, {}).items()
        }
        merged.update({key: entry for key, (_, entry) in self._pending.items() if key.storage == storage})
        return [e for k, e in sorted(merged.items()) if e is not None and namespace in ("", k.namespace)]

    def since(self, storage: str, revision: int) -> list[Event]:
        """Events after `revision`, oldest first. Raises StatusError 410 when some are no longer known."""
        log = self._log(storage)
        if revision < log.floor:
            raise too_old(revision, log.floor)
        if not log.events or log.events[-1].revision <= revision:
            return []
        return log.events[bisect_right(log.events, revision, key=lambda event: event.revision) :]

    def check_reached(self, revision: int) -> None:
        """Raises StatusError 504 for a revision that was never given."""
        if revision > self._revision:
            raise from_the_future(revision, self._revision)

    def compact(self) -> None:
        """Forget the history, as if the server had been restarted: older watches get 410."""
        for log in self._logs.values():
            log.events.clear()
            log.floor = self._revision
        self._start = self._revision

    def _log(self, storage: str) -> _Log:
        log = self._logs.get(storage)
        if log is None:
            log = self._logs[storage] = _Log(self._start)
        return log

    # Writing.

    def stage(self, key: Key, obj: JsonObject | None, *, expected: Entry | None) -> Staged:
        """Give the change its revision. `obj` None = delete. Raises Stale unless `expected` is the head."""
        head = self.head(key)
        if head is not expected:
            raise Stale
        revision = self._head_revision + 1
        if obj is not None:
            entry = make_entry(key, revision, obj)
            staged = Staged(Event(MODIFIED if head else ADDED, entry, head), entry.data)
            self._pending[key] = (revision, entry)
        elif head is None:
            raise Stale
        else:
            staged = Staged(Event(DELETED, make_entry(key, revision, head.obj), head), None)
            self._pending[key] = (revision, None)
        self._head_revision = revision
        self._stages.append(staged)
        return staged

    def publish(self, count: int) -> None:
        """Make the oldest `count` staged changes visible."""
        done, self._stages = self._stages[:count], self._stages[count:]
        for staged in done:
            event = staged.event
            key = event.entry.key
            table = self._published.setdefault(key.storage, {})
            if staged.data is None:
                del table[key[1:]]
            else:
                table[key[1:]] = event.entry
            self._log(key.storage).append(event, self._history)
            self._revision = event.revision
            pending = self._pending.get(key)
            if pending is not None and pending[0] == event.revision:
                del self._pending[key]
        for staged in done:
            for listener in self._listeners:
                listener(staged.event)

    def discard(self) -> None:
        """Drop every staged change: the disk refused one, and later ones may build on it."""
        self._stages.clear()
        self._pending.clear()
        self._head_revision = self._revision

    def listen(self, listener: Listener) -> None:
        """`listener` is called with each event, in order, after all of its batch can be read. It must not
        raise."""
        self._listeners.append(listener)
