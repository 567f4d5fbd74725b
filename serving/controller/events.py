"""Kubernetes Events: what happened to an object, for people who describe it. Shell.

Nothing waits for an Event and none is worth an error: they are written one by one behind everything else, a while
after the fact, and dropped when too many wait. The same happening again raises the count of its Event.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from serving.api import timestamps
from serving.api.meta import JsonObject, ObjectMeta
from serving.api.resources import EVENTS, Resource
from serving.controller.happenings import Happening
from serving.kube.client import KubeClient
from serving.kube.errors import KubeError, NotFound

log = logging.getLogger(__name__)

_WAITING_LIMIT: Final = 5000
_REMEMBERED: Final = 4096
_PAUSE_SECONDS: Final = 1.0
_BETWEEN_SECONDS: Final = 0.05
"""At most 20 a second: many Services created at once make seven each, and nobody waits for these."""
_YIELD: Final = 4.0
"""Times the duration of a write that the next one waits: when the API server is busy, Events give way."""


class _Waiting(msgspec.Struct, frozen=True, kw_only=True):
    resource: Resource
    namespace: str
    name: str
    uid: str
    type: str
    reason: str
    message: str


class _Written(msgspec.Struct):
    name: str
    count: int
    first: str


class Recorder:
    """`component` is shown as the source. Call `run` in a TaskGroup; the others from anywhere in the loop."""

    def __init__(self, client: KubeClient, *, component: str, now: Callable[[], float]) -> None:
        self._client = client
        self._component = component
        self._now = now
        self._waiting: OrderedDict[_Waiting, int] = OrderedDict()
        self._written: OrderedDict[_Waiting, _Written] = OrderedDict()
        self._due = asyncio.Event()

    def normal(self, resource: Resource, meta: ObjectMeta, *, reason: str, message: str) -> None:
        self._add(resource, meta, "Normal", reason, message)

    def warning(self, resource: Resource, meta: ObjectMeta, *, reason: str, message: str) -> None:
        self._add(resource, meta, "Warning", reason, message)

    def happened(self, resource: Resource, meta: ObjectMeta, happenings: Iterable[Happening]) -> None:
        for one in happenings:
            self._add(resource, meta, "Warning" if one.warning else "Normal", one.reason, one.message)

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            await self._due.wait()
            await asyncio.sleep(_PAUSE_SECONDS)
            self._due.clear()
            while self._waiting:
                happening, count = self._waiting.popitem(last=False)
                began = asyncio.get_running_loop().time()
                try:
                    await self._write(happening, count)
                except KubeError as error:
                    log.debug(
                        "event %s of %s/%s: %s", happening.reason, happening.namespace, happening.name, error
                    )
                took = asyncio.get_running_loop().time() - began
                await asyncio.sleep(max(_BETWEEN_SECONDS, _YIELD * took))

    def _add(self, resource: Resource, meta: ObjectMeta, kind: str, reason: str, message: str) -> None:
        happening = _Waiting(
            resource=resource,
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            type=kind,
            reason=reason,
            message=message,
        )
        if happening not in self._waiting and len(self._waiting) >= _WAITING_LIMIT:
            log.debug("too many events wait; dropped %s of %s", reason, meta.key)
            return
        self._waiting[happening] = self._waiting.get(happening, 0) + 1
        self._due.set()

    async def _write(self, happening: _Waiting, count: int) -> None:
        now = timestamps.format_seconds(self._now())
        known = self._written.get(happening)
        if known is not None:
            patch = {"count": known.count + count, "lastTimestamp": now}
            try:
                await self._client.patch(EVENTS, known.name, patch, happening.namespace or "default")
            except NotFound:
                del self._written[happening]  # API servers keep Events for an hour or so: a new one begins
            else:
                known.count += count
                self._written.move_to_end(happening)
                return
        body = self._body(happening, count, now)
        await self._client.create(EVENTS, body)
        self._written[happening] = _Written(body["metadata"]["name"], count, now)
        if len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)

    def _body(self, happening: _Waiting, count: int, now: str) -> JsonObject:
        namespace = happening.namespace or "default"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{happening.name}.{int(self._now() * 1e9):x}", "namespace": namespace},
            "involvedObject": {
                "apiVersion": happening.resource.api_version,
                "kind": happening.resource.kind,
                "namespace": happening.namespace,
                "name": happening.name,
                "uid": happening.uid,
            },
            "type": happening.type,
            "reason": happening.reason,
            "message": happening.message,
            "source": {"component": self._component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": count,
        }
