"""Core v1 Events of pods: bounded, batched, and never on the way of a start.

An event waits a moment before it is sent, and longer while pods are starting; equal ones in that time become one
with a count. Each pod has a budget that refills slowly, and the queue has an end: what is over is dropped and
counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec
from prometheus_client import Counter

from serving.api.meta import JsonObject
from serving.api.pod import Pod
from serving.api.resources import EVENTS
from serving.api.timestamps import format_seconds
from serving.kube.client import KubeClient
from serving.kube.errors import ApiError, KubeError

log = logging.getLogger(__name__)

BATCH_DELAY_SECONDS: Final = 0.5
BUSY_WAIT_SECONDS: Final = 3.0
_BUSY_STEP_SECONDS: Final = 0.1
QUEUE_LIMIT: Final = 1000
POD_BUDGET: Final = 25.0
POD_REFILL_PER_SECOND: Final = 1 / 60
_MESSAGE_LIMIT: Final = 1024


class _Key(msgspec.Struct, frozen=True):
    namespace: str
    pod: str
    uid: str
    kind: str
    reason: str
    message: str
    field_path: str


class _Seen(msgspec.Struct):
    first: float
    last: float
    count: int
    name: str = ""
    """Of the Event object that was created for it."""


class _Budget(msgspec.Struct):
    tokens: float
    at: float


class EventRecorder:
    """`run` sends; everything else only queues."""

    def __init__(self, client: KubeClient, *, node: str, now: Callable[[], float], dropped: Counter) -> None:
        self._client = client
        self._node = node
        self._now = now
        self._dropped = dropped
        self._pending: dict[_Key, _Seen] = {}
        self._sent: dict[_Key, _Seen] = {}
        self._budgets: dict[str, _Budget] = {}
        self.busy: Callable[[], bool] = lambda: False
        """Whether pods are starting now: events wait for them, up to a bound."""
        self._wake = asyncio.Event()
        self._serial = 0

    def normal(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None:
        self._record(pod, "Normal", reason, message, container)

    def warning(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None:
        self._record(pod, "Warning", reason, message, container)

    def forget(self, uid: str) -> None:
        """The pod is gone: its budget and counts are not needed any more."""
        self._budgets.pop(uid, None)
        for key in [key for key in self._sent if key.uid == uid]:
            del self._sent[key]

    async def run(self) -> None:
        """Send until cancelled. A failing API server costs events, never more."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(BATCH_DELAY_SECONDS)
            self._wake.clear()
            batch, self._pending = self._pending, {}
            for key, seen in batch.items():
                await self._let_starts_pass()
                try:
                    await self._send(key, seen)
                except KubeError as error:
                    self._dropped.inc()
                    log.debug("event %s of %s/%s: %s", key.reason, key.namespace, key.pod, error)

    async def _let_starts_pass(self) -> None:
        for _ in range(int(BUSY_WAIT_SECONDS / _BUSY_STEP_SECONDS)):
            if not self.busy() or len(self._pending) > QUEUE_LIMIT // 2:
                return
            await asyncio.sleep(_BUSY_STEP_SECONDS)

    def _record(self, pod: Pod, kind: str, reason: str, message: str, container: str) -> None:
        meta = pod.metadata
        path = f"spec.containers{{{container}}}" if container else ""
        text = message[:_MESSAGE_LIMIT]
        key = _Key(meta.namespace, meta.name, meta.uid, kind, reason, text, path)
        now = self._now()
        waiting = self._pending.get(key)
        if waiting is not None:
            waiting.count += 1
            waiting.last = now
            return
        if len(self._pending) >= QUEUE_LIMIT or not self._take(meta.uid, now):
            self._dropped.inc()
            return
        self._pending[key] = _Seen(now, now, 1)
        self._wake.set()

    def _take(self, uid: str, now: float) -> bool:
        budget = self._budgets.setdefault(uid, _Budget(POD_BUDGET, now))
        budget.tokens = min(POD_BUDGET, budget.tokens + (now - budget.at) * POD_REFILL_PER_SECOND)
        budget.at = now
        if budget.tokens < 1:
            return False
        budget.tokens -= 1
        return True

    async def _send(self, key: _Key, seen: _Seen) -> None:
        earlier = self._sent.get(key)
        if earlier is not None:
            earlier.count += seen.count
            earlier.last = seen.last
            patch: JsonObject = {"count": earlier.count, "lastTimestamp": format_seconds(earlier.last)}
            try:
                await self._client.patch(EVENTS, earlier.name, patch, key.namespace)
                return
            except ApiError:  # expired, most likely: write it anew
                seen = earlier
        self._serial += 1
        seen.name = f"{key.pod}.{int(seen.first * 1e6):x}{self._serial:04x}"
        await self._client.create(EVENTS, self._body(key, seen), key.namespace)
        if key.uid in self._budgets:
            self._sent[key] = seen

    def _body(self, key: _Key, seen: _Seen) -> JsonObject:
        involved = {"kind": "Pod", "namespace": key.namespace, "name": key.pod, "uid": key.uid, "apiVersion": "v1"}
        if key.field_path:
            involved["fieldPath"] = key.field_path
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": seen.name, "namespace": key.namespace},
            "involvedObject": involved,
            "type": key.kind,
            "reason": key.reason,
            "message": key.message,
            "source": {"component": "kubelet", "host": self._node},
            "firstTimestamp": format_seconds(seen.first),
            "lastTimestamp": format_seconds(seen.last),
            "count": seen.count,
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
        }
