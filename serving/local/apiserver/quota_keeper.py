"""Enforces the ResourceQuotas and LimitRanges of namespaces, and keeps `status.used` of quotas current."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import pod_admission, quota
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.registry import Registry
from serving.local.apiserver.state import Entry, Event, State

log = logging.getLogger(__name__)

QUOTAS: Final = "resourcequotas"
RANGES: Final = "limitranges"


class Limits:
    """What the quotas and ranges of a namespace say about a write. Costs nothing where there are none."""

    def __init__(self, state: State, registry: Registry) -> None:
        self._state = state
        self._registry = registry
        self._limited: dict[str, set[str]] = {QUOTAS: set(), RANGES: set()}
        for storage, namespaces in self._limited.items():
            namespaces.update(entry.key.namespace for entry in state.select(storage))
        state.listen(self._observe)

    def _observe(self, event: Event) -> None:
        namespaces = self._limited.get(event.entry.key.storage)
        if namespaces is not None:
            # A namespace that had some once is looked at for good: that is cheap enough.
            namespaces.add(event.entry.key.namespace)

    def has_quota(self, namespace: str) -> bool:
        return namespace in self._limited[QUOTAS]

    def _objects(self, storage: str, namespace: str) -> list[JsonObject]:
        if namespace not in self._limited[storage]:
            return []
        return [entry.obj for entry in self._state.heads(storage, namespace)]

    def complete_pod(self, pod: JsonObject, namespace: str) -> None:
        """In place, before the webhooks."""
        pod_admission.complete(pod, self._objects(RANGES, namespace))

    def check_pod(self, pod: JsonObject, namespace: str) -> None:
        """Raises StatusError 403."""
        if ranges := self._objects(RANGES, namespace):
            pod_admission.check(pod, ranges)

    def check_new(self, kind: Kind, obj: JsonObject, namespace: str) -> None:
        """In the loop turn in which the object is staged. Raises StatusError 403."""
        quotas = self._objects(QUOTAS, namespace)
        if not quotas:
            return
        for found in quotas:
            quota.check(kind, obj, found, self.used(found, namespace))

    def used(self, found: JsonObject, namespace: str) -> dict[str, Fraction]:
        """What the namespace uses of one quota."""
        hard = (found.get("spec") or {}).get("hard") or {}
        counted: list[tuple[JsonObject, str]] = []
        for storage in self._state.storages():
            kind = self._registry.of_storage(storage)
            if kind is None or not kind.namespaced or not _concerns(kind.qualified, hard):
                continue
            counted += [
                (entry.obj, kind.qualified)
                for entry in self._state.heads(storage, namespace)
                if quota.applies(found, entry.obj, kind.qualified)
            ]
        return quota.total(counted)


def _concerns(qualified: str, hard: JsonObject) -> bool:
    if qualified == "pods" or qualified in hard or f"count/{qualified}" in hard:
        return True
    return qualified == "services" and any(name.startswith("services.") for name in hard)


Writer = Callable[[Entry, JsonObject], Awaitable[None]]
"""Writes the status of a quota. Raises StatusError."""


class QuotaKeeper:
    """Writes `status` of quotas when what they count has changed."""

    def __init__(self, limits: Limits, state: State, write: Writer) -> None:
        self._limits = limits
        self._state = state
        self._write = write
        self._due: dict[str, None] = {entry.key.namespace: None for entry in state.select(QUOTAS)}
        self._filled = asyncio.Event()
        if self._due:
            self._filled.set()
        state.listen(self._observe)

    def _observe(self, event: Event) -> None:
        namespace = event.entry.key.namespace
        if namespace and self._limits.has_quota(namespace):
            self._due[namespace] = None
            self._filled.set()

    async def run(self) -> None:
        """Forever; cancel to stop."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._due:
                namespace = next(iter(self._due))
                del self._due[namespace]
                for entry in self._state.select(QUOTAS, namespace):
                    await self._refresh(entry)

    async def _refresh(self, entry: Entry) -> None:
        wanted = quota.status(entry.obj, self._limits.used(entry.obj, entry.key.namespace))
        if entry.obj.get("status") == wanted:
            return
        try:
            await self._write(entry, wanted)
        except StatusError as error:
            if error.code not in (404, 409):
                log.warning("status of quota %s/%s: %s", entry.key.namespace, entry.key.name, error.message)
