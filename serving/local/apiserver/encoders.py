"""The forms in which watches send objects: whole, or metadata only."""

from __future__ import annotations

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.lists import item_bytes
from serving.local.apiserver.state import Entry, Event

_encode = msgspec.json.Encoder().encode
INITIAL_END = "k8s.io/initial-events-end"


def line(type_: str, data: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (type_.encode(), data)


def bookmark_object(api_version: str, kind: str, revision: int, *, initial_end: bool) -> JsonObject:
    metadata: JsonObject = {"resourceVersion": str(revision)}
    if initial_end:
        metadata["annotations"] = {INITIAL_END: "true"}
    return {"kind": kind, "apiVersion": api_version, "metadata": metadata}


class WholeObjects:
    """The usual form. All watchers of one kind share the bytes of an event."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def event(self, type_: str, entry: Entry, event: Event | None) -> bytes:
        if event is None:
            return line(type_, item_bytes(entry, self._kind))
        name = f"{type_} {self._kind.api_version}"
        found = event.cache.get(name)
        if found is None:
            found = event.cache[name] = line(type_, item_bytes(entry, self._kind))
        return found

    def bookmark(self, revision: int, *, initial_end: bool) -> bytes:
        body = bookmark_object(self._kind.api_version, self._kind.kind, revision, initial_end=initial_end)
        return line("BOOKMARK", _encode(body))


PARTIAL = "PartialObjectMetadata"


def partial(obj: JsonObject) -> JsonObject:
    return {"kind": PARTIAL, "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


class MetadataOnly:
    """PartialObjectMetadata, for clients that need no more."""

    def event(self, type_: str, entry: Entry, event: Event | None) -> bytes:
        return line(type_, _encode(partial(entry.obj)))

    def bookmark(self, revision: int, *, initial_end: bool) -> bytes:
        return line(
            "BOOKMARK", _encode(bookmark_object("meta.k8s.io/v1", PARTIAL, revision, initial_end=initial_end))
        )
