"""A local copy of one collection, kept current by list and watch.

The copy is always a state that the server had: it is replaced by a list and then follows the watch. After 410,
or when a watch breaks, it lists again and reports only the differences, so subscribers never miss a change and
never see one twice. Nothing polls.

An object that cannot be decoded into the wanted type is kept in `undecodable` with its error and reported to
nobody: one broken object must not stop the others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from contextlib import aclosing
from typing import Generic, TypeVar

import msgspec

from serving.api.meta import Model, ObjectMeta
from serving.api.resources import Resource
from serving.kube.client import KubeClient, WatchEvent
from serving.kube.errors import ApiError, Gone, KubeError, from_status

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Model)
Callback = Callable[[str, T | None, T | None], None]
"""(key, old, new): old None = added, new None = deleted. Called in the loop; must not block. What it raises is
logged and keeps nobody else from hearing of the change."""

_BACKOFF_FIRST_SECONDS = 0.05
_BACKOFF_CAP_SECONDS = 5.0
_STEADY_SECONDS = 1.0
"""A watch that lasted longer was a good one, even without an event."""


class _ListMeta(Model, frozen=True, kw_only=True):
    resource_version: str = ""


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw]


class _Envelope(Model, frozen=True, kw_only=True):
    """The part of any object that the informer itself needs."""

    metadata: ObjectMeta


class Informer(Generic[T]):
    """Mirror of a collection as decoded objects.

    `synced` is set after the first list and never cleared, `answered` also by one that failed; `failure` is why
    the last list or watch failed. `fresh_since` is the loop time at which the present watch began, None while
    there is none: then the copy may be old.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        kind: type[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self.answered = asyncio.Event()
        self.failure: KubeError | None = None
        self.fresh_since: float | None = None
        self.undecodable: dict[str, str] = {}
        self.unreadable: Callable[[str, str], None] | None = None
        """Called with key and reason for an object that cannot be understood, once for each reason."""
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._objects: dict[str, T] = {}
        self._callbacks: list[Callback[T]] = []
        self._decoder = msgspec.json.Decoder(kind)
        self._list_decoder = msgspec.json.Decoder(_List)
        self._envelope_decoder = msgspec.json.Decoder(_Envelope)
        self._resource_version = ""
        self._served = False

    def get(self, key: str) -> T | None:
        """The object with this key (`namespace/name`, or `name` when cluster-scoped)."""
        return self._objects.get(key)

    def all(self) -> Collection[T]:
        return self._objects.values()

    def subscribe(self, callback: Callback[T]) -> None:
        """Call back for each change from now on; objects already known are reported at once as added."""
        self._callbacks.append(callback)
        for key, item in list(self._objects.items()):
            callback(key, None, item)

    async def run(self) -> None:
        """Follow the collection until cancelled. Never raises for a failing server: it backs off."""
        delay = _BACKOFF_FIRST_SECONDS
        while True:
            pause = delay
            self._served = False
            try:
                if not self._resource_version:
                    await self._list()
                await self._watch()
            except Gone:
                self._resource_version = ""
            except KubeError as error:
                self.failure = error
                self.answered.set()
                # Once per outage; what comes after says the same.
                first = delay == _BACKOFF_FIRST_SECONDS
                log.log(
                    logging.WARNING if first else logging.DEBUG, "informer %s: %s", self.resource.plural, error
                )
                pause = max(pause, error.retry_after_seconds or 0.0)
                if isinstance(error, ApiError) and not error.transient:
                    self._resource_version = ""
            except msgspec.DecodeError as error:
                log.warning("informer %s: the server's answer cannot be read: %s", self.resource.plural, error)
                self._resource_version = ""
            finally:
                self.fresh_since = None
            if self._served:
                # A good connection: what comes next is not a repeated failure.
                delay = pause = _BACKOFF_FIRST_SECONDS
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            delay = min(delay * 2, _BACKOFF_CAP_SECONDS)

    async def _list(self) -> None:
        body = await self._client.list_raw(
            self.resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        listing = self._list_decoder.decode(body)
        seen = set()
        for raw in listing.items:
            key = self._apply(raw)
            seen.add(key)
        for key in [key for key in (*self._objects, *self.undecodable) if key not in seen]:
            self._remove(key)
        self._resource_version = listing.metadata.resource_version
        self.synced.set()
        self.answered.set()

    async def _watch(self) -> None:
        timeout = random.randint(240, 480)  # noqa: S311 - spreads reconnects of many informers
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.fresh_since = began
        events = self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._resource_version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
            timeout_seconds=timeout,
        )
        try:
            async with aclosing(events):
                async for event in events:
                    self._follow(event)
                    self._served = True
        finally:
            self._served |= loop.time() - began > _STEADY_SECONDS

    def _follow(self, event: WatchEvent) -> None:
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=dict)
            raise from_status(status.get("code", 500), status)
        meta = self._envelope_decoder.decode(event.object).metadata
        if event.type == "DELETED":
            self._remove(meta.key)
        elif event.type != "BOOKMARK":
            self._apply(event.object)
        self._resource_version = meta.resource_version

    def _apply(self, raw: msgspec.Raw) -> str:
        envelope = self._envelope_decoder.decode(raw)
        key = envelope.metadata.key
        old = self._objects.get(key)
        if old is not None and _version(old) == envelope.metadata.resource_version:
            return key
        try:
            new = self._decoder.decode(raw)
        except msgspec.ValidationError as error:
            if self.undecodable.get(key) != str(error):
                log.error("%s %s cannot be understood: %s", self.resource.kind, key, error)
                if self.unreadable is not None:
                    self.unreadable(key, str(error))
            self.undecodable[key] = str(error)
            return key
        self.undecodable.pop(key, None)
        self._objects[key] = new
        self._notify(key, old, new)
        return key

    def _remove(self, key: str) -> None:
        self.undecodable.pop(key, None)
        old = self._objects.pop(key, None)
        if old is not None:
            self._notify(key, old, None)

    def _notify(self, key: str, old: T | None, new: T | None) -> None:
        for callback in self._callbacks:
            try:
                callback(key, old, new)
            except Exception:
                # A fault of one subscriber must not cost the others, nor the process, this and all later changes.
                log.exception("%s %s: a subscriber failed", self.resource.kind, key)


def _version(item: Model) -> str:
    meta: ObjectMeta = item.metadata  # type: ignore[attr-defined]
    return meta.resource_version
