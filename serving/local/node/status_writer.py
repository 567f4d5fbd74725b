"""Brings one pod's status in the API server to what it should be.

Level-triggered: only the newest desired status counts, only differences are written, one write at a time. A write
that fails is tried again with back-off until it is no longer wanted. What the API server made of a write is
remembered, so a server that stores something else than was asked for is not asked for ever.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from serving.api.meta import JsonObject
from serving.api.pod import Pod, PodStatus
from serving.api.resources import PODS
from serving.kube.client import KubeClient
from serving.kube.errors import Conflict, KubeError, NotFound
from serving.local.node.podstatus import OWN_CONDITIONS, status_patch

log = logging.getLogger(__name__)

_RETRY_FIRST_SECONDS: Final = 0.05
_RETRY_CAP_SECONDS: Final = 5.0


class StatusWriter:
    """`observe` tells what the API server has, `offer` what it should have. `spawn` starts the writing task."""

    def __init__(
        self, client: KubeClient, pod: Pod, *, spawn: Callable[[Coroutine[Any, Any, None], str], object]
    ) -> None:
        self._client = client
        self._pod = pod
        self._spawn = spawn
        self._offered: PodStatus | None = None
        self._annotations: dict[str, str | None] = {}
        self._settled: tuple[PodStatus, PodStatus] | None = None
        self._acked = 0
        self._writing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.gone = False
        """The API server no longer has this pod."""

    @property
    def pod(self) -> Pod:
        """The pod as the API server has it, as far as we know."""
        return self._pod

    def view(self) -> Pod:
        """The pod with the status that was offered last: what the next status continues from."""
        if self._offered is None:
            return self._pod
        foreign = tuple(c for c in self._pod.status.conditions if c.type not in OWN_CONDITIONS)
        own = tuple(c for c in self._offered.conditions if c.type in OWN_CONDITIONS)
        status = msgspec.structs.replace(self._offered, conditions=own + foreign)
        return msgspec.structs.replace(self._pod, status=status)

    def observe(self, pod: Pod) -> None:
        """A newer state of the pod from the informer; one older than our last write is ignored."""
        version = _version(pod.metadata.resource_version)
        if self._acked and version is not None and version < self._acked:
            return
        self._pod = pod
        if self._offered is not None:
            self._kick()

    def offer(self, status: PodStatus, annotations: dict[str, str | None]) -> None:
        """What the status should be from now on. An annotation of None is to be absent."""
        self._offered = status
        self._annotations = annotations
        self._kick()

    async def flush(self, *, timeout: float) -> None:
        """Wait until nothing is left to write, or `timeout` seconds have passed."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            log.warning("pod %s: its last status is not written after %g s", self._pod.metadata.key, timeout)

    def _kick(self) -> None:
        if not self._writing and not self.gone and self._patch() is not None:
            self._writing = True
            self._idle.clear()
            self._spawn(self._write(), "status")

    async def _write(self) -> None:
        delay = _RETRY_FIRST_SECONDS
        meta = self._pod.metadata
        try:
            while not self.gone and (patch := self._patch()) is not None:
                offered = self._offered
                try:
                    answer = await self._client.patch(PODS, meta.name, patch, meta.namespace, subresource="status")
                except (NotFound, Conflict):  # the uid in the patch is a precondition
                    self.gone = True
                except KubeError as error:
                    log.warning("status of pod %s: %s", meta.key, error)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _RETRY_CAP_SECONDS)
                else:
                    delay = _RETRY_FIRST_SECONDS
                    self._acknowledge(offered, answer)
        finally:
            self._writing = False
            self._idle.set()

    def _acknowledge(self, offered: PodStatus | None, answer: JsonObject) -> None:
        stored = msgspec.convert(answer, Pod)
        self._acked = _version(stored.metadata.resource_version) or 0
        if self._acked >= (_version(self._pod.metadata.resource_version) or 0):
            self._pod = stored
        if offered is not None:
            self._settled = (offered, stored.status)

    def _patch(self) -> JsonObject | None:
        """What to write now; None = nothing."""
        if self._offered is None:
            return None
        meta = self._pod.metadata
        annotations = {
            key: value for key, value in self._annotations.items() if meta.annotations.get(key) != value
        }
        status: JsonObject = {}
        if self._settled != (self._offered, self._pod.status):
            status = status_patch(self._pod.status, self.view().status)
        if not annotations and not status:
            return None
        metadata: JsonObject = {"uid": meta.uid}
        if annotations:
            metadata["annotations"] = annotations
        return {"metadata": metadata, "status": status} if status else {"metadata": metadata}


async def delete_finally(client: KubeClient, pod: Pod, *, vanished: Callable[[], bool]) -> None:
    """Let the API server remove a pod whose containers have ended. Until it is done, or the pod has `vanished`."""
    meta = pod.metadata
    delay = _RETRY_FIRST_SECONDS
    while not vanished():
        try:
            await client.delete(PODS, meta.name, meta.namespace, uid=meta.uid, grace_period_seconds=0)
            return
        except (NotFound, Conflict):  # gone, or another pod of that name by now
            return
        except KubeError as error:
            log.warning("pod %s: delete: %s", meta.key, error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_CAP_SECONDS)


def _version(text: str) -> int | None:
    """Resource versions of pods can be compared where they are decimal; elsewhere newest seen wins."""
    return int(text) if text.isdecimal() else None
