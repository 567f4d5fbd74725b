"""Garbage collection: dependants without an owner, content of namespaces and of definitions that are being
deleted.

Driven by events only. What was missed while the server was down is found by one look at every object at start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver.builtin import CRD_STORAGE
from serving.local.apiserver.deletion import CRD_CLEANUP, DeleteOptions
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.ownership import Delete, DropFinalizer, DropOwners, Graph, Step
from serving.local.apiserver.request import SYSTEM, Context
from serving.local.apiserver.resources import Resources
from serving.local.apiserver.state import DELETED, Entry, Event, Key, Stale

log = logging.getLogger(__name__)

_FIRST_RETRY_SECONDS: Final = 0.1
_LONGEST_RETRY_SECONDS: Final = 30.0
_MetadataChange = Callable[[JsonObject], JsonObject]


class Collector:
    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._state = resources.state
        entries = list(self._state.all())
        self._graph = Graph(entries, self._state.get)
        self._queue: dict[Key, None] = {entry.key: None for entry in entries if self._graph.is_interesting(entry)}
        self._failures: dict[Key, int] = {}
        self._retries: dict[Key, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()
        if self._queue:
            self._filled.set()
        resources.storage.listen(self._observe)

    def _observe(self, event: Event) -> None:
        affected = self._graph.observe(event)
        key = event.entry.key
        if event.type == DELETED:
            # The last object of a namespace or definition that is being deleted lets it go.
            affected.append(Key("namespaces", "", key.namespace))
            affected.append(Key(CRD_STORAGE, "", key.storage))
        for name in affected:
            self._enqueue(name)

    def _enqueue(self, key: Key) -> None:
        self._queue[key] = None
        self._filled.set()

    async def run(self) -> None:
        """Forever; cancel to stop."""
        try:
            while True:
                await self._filled.wait()
                while self._queue:
                    key = next(iter(self._queue))
                    del self._queue[key]
                    await self._handle(key)
                self._filled.clear()
        finally:
            for timer in self._retries.values():
                timer.cancel()

    async def _handle(self, key: Key) -> None:
        entry = self._state.get(key)
        if entry is None:
            self._failures.pop(key, None)
            return
        try:
            await self._collect(entry)
        except Stale:
            self._enqueue(key)
        except StatusError as error:
            self._retry_later(key, error)
        else:
            self._failures.pop(key, None)

    def _retry_later(self, key: Key, error: StatusError) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(failures, 10))
        log.warning("collecting %s %s/%s failed, again in %.1f s: %s", *key, delay, error.message)

        def again() -> None:
            self._retries.pop(key, None)
            self._enqueue(key)

        if key not in self._retries:
            self._retries[key] = asyncio.get_running_loop().call_later(delay, again)

    async def _collect(self, entry: Entry) -> None:
        deleting = "deletionTimestamp" in entry.obj["metadata"]
        if deleting and entry.key.storage == "namespaces":
            await self._empty_namespace(entry)
        elif deleting and entry.key.storage == CRD_STORAGE:
            await self._empty_definition(entry)
        for step in self._graph.steps(entry):
            await self._do(step)

    async def _do(self, step: Step) -> None:
        match step:
            case Delete(key, uid, propagation):
                await self._delete(key, uid, propagation)
            case DropOwners(key, uids):
                await self._edit(key, lambda metadata: _without_owners(metadata, uids))
            case DropFinalizer(key, finalizer):
                await self._edit(key, lambda metadata: _without_finalizer(metadata, finalizer))

    async def _delete(self, key: Key, uid: str, propagation: str) -> None:
        kind = self._resources.registry.of_storage(key.storage)
        if kind is None:
            return
        options = DeleteOptions(propagation=propagation, uid=uid)
        try:
            await self._resources.delete(kind, key.namespace, key.name, options, Context(user=SYSTEM))
        except StatusError as error:
            if error.code == 404 or not self._is_still(key, uid):
                return
            raise

    def _is_still(self, key: Key, uid: str) -> bool:
        entry = self._state.head(key)
        return entry is not None and entry.uid == uid

    async def _edit(self, key: Key, change: _MetadataChange) -> None:
        kind = self._resources.registry.of_storage(key.storage)
        if kind is None or self._state.head(key) is None:
            return

        def apply(obj: JsonObject) -> JsonObject:
            return {**obj, "metadata": change(obj["metadata"])}

        try:
            await self._resources.patch(kind, key.namespace, key.name, apply, Context(user=SYSTEM))
        except StatusError as error:
            if error.code != 404:
                raise

    async def _empty_namespace(self, entry: Entry) -> None:
        """Delete everything in it; when nothing is left the namespace goes."""
        left = False
        for storage in self._state.storages():
            for inside in self._state.select(storage, entry.key.name):
                left = True
                if "deletionTimestamp" not in inside.obj["metadata"]:
                    await self._delete(inside.key, inside.uid, "Background")
        left = left and any(self._state.select(storage, entry.key.name) for storage in self._state.storages())
        kind = self._resources.registry.of_storage("namespaces")
        current = self._state.get(entry.key)
        if left or kind is None or current is None or not (current.obj.get("spec") or {}).get("finalizers"):
            return
        await self._resources.finalize(kind, entry.key.name, [])

    async def _empty_definition(self, entry: Entry) -> None:
        storage = entry.key.name
        for instance in self._state.select(storage):
            if "deletionTimestamp" not in instance.obj["metadata"]:
                await self._delete(instance.key, instance.uid, "Background")
        if not self._state.select(storage):
            await self._do(DropFinalizer(entry.key, CRD_CLEANUP))


def _without_owners(metadata: JsonObject, uids: frozenset[str]) -> JsonObject:
    kept = [reference for reference in metadata.get("ownerReferences") or () if reference["uid"] not in uids]
    return {**metadata, "ownerReferences": kept}


def _without_finalizer(metadata: JsonObject, finalizer: str) -> JsonObject:
    kept = [name for name in metadata.get("finalizers") or () if name != finalizer]
    return {**metadata, "finalizers": kept}
