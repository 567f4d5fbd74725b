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
from serving.kube.errors import KubeError
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
        self._why: dict[str, tuple[Resource, str, str]] = {}

    def watch(self, *informers: Informer[Any]) -> None:
        """Mark objects whose JSON has another shape than it must."""
        for informer in informers:
            informer.unreadable = partial(self._note, informer.resource)

    def guarded(self, resource: Resource, handler: Callable[[str], Awaitable[float | None]]) -> Handler:
        """`handler`, and a mark on the object when it fails for another reason than the API server."""

        async def reconcile(key: str) -> float | None:
            try:
                return await handler(key)
            except KubeError:
                raise
            except ExceptionGroup:
                raise
            except Exception as error:
                self._note(resource, key, f"{type(error).__name__}: {error}")
                raise

        return reconcile

    def _note(self, resource: Resource, key: str, why: str) -> None:
        name = f"{resource.plural}.{resource.group}/{key}"
        if self._why.get(name) != (resource, key, why):
            self._why[name] = (resource, key, why)
            self.queue.add(name)

    async def _mark(self, name: str) -> None:
        resource, key, why = self._why[name]
        namespace, _, own = key.rpartition("/")
        condition: JsonObject = {
            "type": "Ready",
            "status": "False",
            "reason": REASON,
            "message": f"The object cannot be understood: {why}",
            "lastTransitionTime": timestamps.format_seconds(self._now()),
        }
        patch = {"status": {"conditions": [condition]}}
        await self._client.patch(resource, own, patch, namespace, subresource="status")
        meta = ObjectMeta(name=own, namespace=namespace)
        self._events.warning(resource, meta, reason=REASON, message=condition["message"])
