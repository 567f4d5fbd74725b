"""Objects that the controller cannot make sense of: they are marked, and the others go on. Shell.

Admission and the CRD's schema keep them out; what got in all the same (an older release wrote it, a webhook was
down) must be seen by its owner: `Ready` becomes False with the reason `InvalidObject`, and an Event says why.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from serving.api import timestamps
from serving.api.meta import JsonObject, ObjectMeta
from serving.api.resources import Resource
from serving.controller.events import Recorder
from serving.kube.client import KubeClient
from serving.kube.errors import KubeError, NotFound
from serving.kube.informer import Informer
from serving.kube.queue import Handler, WorkQueue

REASON: Final = "InvalidObject"


class Malformed:
    """Add `queue.run()` to a TaskGroup; `watch` follows informers, `guarded` wraps a reconciler."""

    def __init__(self, client: KubeClient, *, now: Callable[[], float], events: Recorder) -> None:
        self.queue = WorkQueue("malformed object", self._mark, concurrency=1)
        self._client = client
        self._now = now
        self._events = events
        self._failing: dict[str, str] = {}
        self._due: dict[str, tuple[Resource, str, str]] = {}

    def watch(self, *informers: Informer[Any]) -> None:
        """Mark objects whose JSON has another shape than it must."""
        for informer in informers:
            informer.unreadable = partial(self._mark_later, informer.resource)

    def guarded(self, resource: Resource, handler: Callable[[str], Awaitable[float | None]]) -> Handler:
        """`handler`, and a mark on the object when it fails for another reason than the API server: one mark,
        however often the same is tried again."""

        async def reconcile(key: str) -> float | None:
            name = _name(resource, key)
            try:
                again = await handler(key)
            except (KubeError, ExceptionGroup):
                raise
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                if self._failing.get(name) != why:
                    self._failing[name] = why
                    self._mark_later(resource, key, why)
                raise
            self._failing.pop(name, None)
            return again

        return reconcile

    def _mark_later(self, resource: Resource, key: str, why: str) -> None:
        name = _name(resource, key)
        self._due[name] = (resource, key, why)
        self.queue.add(name)

    async def _mark(self, name: str) -> None:
        due = self._due.get(name)
        if due is None:
            return
        resource, key, why = due
        namespace, _, own = key.rpartition("/")
        condition: JsonObject = {
            "type": "Ready",
            "status": "False",
            "reason": REASON,
            "message": f"The object cannot be understood: {why}",
            "lastTransitionTime": timestamps.format_seconds(self._now()),
        }
        patch = {"status": {"conditions": [condition]}}
        try:
            marked = await self._client.patch(resource, own, patch, namespace, subresource="status")
        except NotFound:
            pass  # it is gone, and what made it bad with it
        else:
            meta = ObjectMeta(name=own, namespace=namespace, uid=marked["metadata"]["uid"])
            self._events.warning(resource, meta, reason=REASON, message=condition["message"])
        if self._due.get(name) is due:
            del self._due[name]


def _name(resource: Resource, key: str) -> str:
    return f"{resource.plural}.{resource.group}/{key}"
