"""The pool: makes the pods of each Revision what the autoscaler wants, through the API server.

One serial worker per Revision. A pod that was created but has not come back through the informer yet is
remembered as expected, so a lagging cache never leads to a second pod; after a restart the informer has it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

import msgspec

from serving.api import keys, timestamps
from serving.api.config.deployment import DeploymentConfig
from serving.api.meta import JsonObject
from serving.api.pod import Pod
from serving.api.reports import Decided, PodDrain
from serving.api.resources import PODS
from serving.api.v1 import Revision
from serving.kube.client import KubeClient
from serving.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from serving.kube.queue import WorkQueue
from serving.pool.placement import Node, Refusal, Usage, needs, place_many
from serving.pool.plan import Failures, PoolPlan, plan, view
from serving.pool.template import SUFFIX_SPACE, Placement, pod_for, suffix_of, timeout_seconds

log = logging.getLogger(__name__)

_CONCURRENT_CREATES = 32
_REFUSED_RETRY_SECONDS = 5.0
_EXPECTATION_SECONDS = 30.0


class Facts(msgspec.Struct, frozen=True):
    """What the pool reads, all from memory. Functions, so that each plan sees the present."""

    revision: Callable[[str], Revision | None]
    pod: Callable[[str], Pod | None]
    pods: Callable[[str], Collection[Pod]]
    all_pods: Callable[[], Collection[Pod]]
    usage: Callable[[], Mapping[str, Usage]]
    nodes: Callable[[], Sequence[Node]]
    wait_set: Callable[[], Collection[str]]
    drains: Callable[[], Mapping[str, Mapping[str, PodDrain]]]
    forget_drain: Callable[[str], None]
    config: Callable[[], DeploymentConfig]
    progress_deadline: Callable[[str], float]


class _State:
    """Soft state of one Revision."""

    def __init__(self) -> None:
        self.desired = 0
        self.expected: dict[str, float] = {}
        self.unanswered: dict[str, str] = {}
        """Suffixes, by pod name, of creations that the API server may have carried out without our knowing. They
        are asked for again under the same name, so that there is never a second pod."""
        self.failures = Failures()
        self.refusal: Refusal | None = None
        self.poked_at: float | None = None


class _Asked:
    """One pod that the API server is asked for."""

    def __init__(self, suffix: str, body: JsonObject) -> None:
        self.suffix = suffix
        self.body = body
        self.name: str = body["metadata"]["name"]
        self.made = False
        self.refusal: Refusal | None = None


class Pool:
    """`changed(key)` is called when the refusal of a Revision changed; `created` after pods were asked for on
    behalf of a held request. `now` is Unix time."""

    def __init__(
        self,
        client: KubeClient,
        facts: Facts,
        *,
        now: Callable[[], float],
        changed: Callable[[str], None],
        created: Callable[[Decided], None],
    ) -> None:
        self._client = client
        self._facts = facts
        self._now = now
        self._changed = changed
        self._created = created
        self._states: dict[str, _State] = {}
        self._queue = WorkQueue("pool", self._reconcile)
        self._releases = WorkQueue("release", self._release)
        self._creating = asyncio.Semaphore(_CONCURRENT_CREATES)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(), name="pool")
            group.create_task(self._releases.run(), name="releases")

    def want(self, key: str, desired: int, *, poked_at: float | None = None) -> None:
        """Have `desired` pods that take requests. `poked_at`: a request is held since then."""
        state = self._states.setdefault(key, _State())
        state.desired = desired
        if poked_at is not None:
            state.poked_at = poked_at
        self._queue.add(key)

    def pods_changed(self, key: str) -> None:
        """Pods of the Revision, their drains, nodes or gateways changed."""
        state = self._states.get(key)
        if state is not None:
            if state.expected or state.unanswered:
                for pod in self._facts.pods(key):
                    state.expected.pop(pod.metadata.name, None)
                    state.unanswered.pop(pod.metadata.name, None)
            self._queue.add(key)

    def leaving(self, pod: Pod) -> None:
        """A pod is being deleted, or what gateways say of one that is has changed. Its Revision may be gone."""
        if _awaits_release(pod):
            self._releases.add(pod.metadata.key)

    def all_changed(self) -> None:
        """Gateways or nodes came or went: whoever waits may go on."""
        for pod in self._facts.all_pods():
            self.leaving(pod)
        for key, state in self._states.items():
            if state.refusal is not None or self._facts.pods(key):
                self._queue.add(key)

    def forget(self, key: str) -> None:
        self._states.pop(key, None)

    def refusal(self, key: str) -> Refusal | None:
        """Why pods are missing, if the platform refused them."""
        state = self._states.get(key)
        return None if state is None else state.refusal

    def expected(self, key: str) -> int:
        """Pods asked for that the informer has not shown yet."""
        state = self._states.get(key)
        return 0 if state is None else len(state.expected)

    async def _reconcile(self, key: str) -> float | None:
        state = self._states.get(key)
        revision = self._facts.revision(key)
        if state is None or revision is None or revision.metadata.deletion_timestamp is not None:
            return None
        now = self._now()
        pods = self._facts.pods(key)
        state.expected = {
            name: since for name, since in state.expected.items() if now - since < _EXPECTATION_SECONDS
        }
        timeout = float(timeout_seconds(revision.view()))
        decided = plan(
            state.desired,
            [view(pod) for pod in pods],
            now=now,
            wait_set=self._facts.wait_set(),
            drains=self._facts.drains(),
            timeout_seconds=timeout,
            progress_deadline=self._facts.progress_deadline(key),
            expected=state.expected.keys(),
            failures=state.failures,
        )
        state.failures = decided.failures
        namespace = revision.metadata.namespace
        stamp = timestamps.format_micros(now)
        for kept in decided.undrain:
            self._facts.forget_drain(kept.uid)
        actions = [self._mark(namespace, kept.name, keys.DRAINING, None) for kept in decided.undrain]
        if decided.create:
            actions.append(self._create(key, state, revision, decided.create))
        elif not decided.postponed:
            self._refused(key, state, None)  # nothing is missing any more, so nothing is refused
        actions += [self._mark(namespace, spare.name, keys.DRAINING, stamp) for spare in decided.drain]
        actions += [self._delete(revision, gone.uid, gone.name, gone.reason) for gone in decided.delete]
        await _all(actions)
        return self._next_run(decided, state, now)

    def _next_run(self, decided: PoolPlan, state: _State, now: float) -> float | None:
        waits = [] if decided.requeue_at is None else [max(decided.requeue_at - now, 0.05)]
        if state.refusal is not None:
            waits.append(_REFUSED_RETRY_SECONDS)
        if state.expected:
            waits.append(_EXPECTATION_SECONDS)
        return min(waits, default=None)

    async def _create(self, key: str, state: _State, revision: Revision, count: int) -> None:
        placements, refusal = self._place(key, revision, count)
        runtime_class = self._facts.config().runtime_class_for(revision.metadata.labels) or ""
        asked: list[_Asked] = []
        for placement in placements:
            fresh = ("", suffix_of(secrets.randbelow(SUFFIX_SPACE)))
            _, suffix = state.unanswered.popitem() if state.unanswered else fresh
            body = pod_for(revision, suffix=suffix, placement=placement, runtime_class_name=runtime_class)
            asked.append(_Asked(suffix, body))
        decided_at = self._now()
        for pod in asked:
            state.expected[pod.name] = decided_at
        try:
            await _all([self._ask(key, state, pod) for pod in asked])
        finally:
            refused = [pod.refusal for pod in asked if pod.refusal is not None]
            self._refused(key, state, refused[0] if refused else refusal)
            made = tuple(pod.name for pod in asked if pod.made)
            if state.poked_at is not None and made:
                self._created(
                    Decided(
                        revision=key,
                        poke_at=state.poked_at,
                        decided_at=decided_at,
                        created_at=self._now(),
                        pods=made,
                    )
                )
                state.poked_at = None

    async def _ask(self, key: str, state: _State, pod: _Asked) -> None:
        """Create one pod. Raises KubeError for what may be tried again soon."""
        try:
            async with self._creating:
                await self._client.create(PODS, pod.body)
        except AlreadyExists:
            log.info("pod %s of %s was created by an earlier try", pod.name, key)
        except KubeError as error:
            state.expected.pop(pod.name, None)
            if error.transient:
                if all(seen.metadata.name != pod.name for seen in self._facts.pods(key)):
                    state.unanswered[pod.name] = pod.suffix
                raise
            log.warning("pod %s of %s was refused: %s", pod.name, key, error)
            pod.refusal = Refusal(reason="FailedCreate", message=str(error))
            return
        pod.made = True
        if pod.name in state.expected:
            state.expected[pod.name] = self._now()

    def _place(self, key: str, revision: Revision, count: int) -> tuple[list[Placement], Refusal | None]:
        siblings: dict[str, int] = {}
        for pod in self._facts.pods(key):
            siblings[pod.spec.node_name] = siblings.get(pod.spec.node_name, 0) + 1
        return place_many(
            count,
            needs(revision.view()),
            self._facts.nodes(),
            self._facts.usage(),
            siblings=siblings,
        )

    def _refused(self, key: str, state: _State, refusal: Refusal | None) -> None:
        if refusal != state.refusal:
            state.refusal = refusal
            self._changed(key)

    async def _release(self, key: str) -> None:
        """Let a pod that somebody deletes stop, once no gateway has anything in flight on it any more."""
        pod = self._facts.pod(key)
        if pod is None or not _awaits_release(pod):
            return
        drains = self._facts.drains()
        reported = [drains.get(gateway, {}).get(pod.metadata.uid) for gateway in self._facts.wait_set()]
        if all(drain is not None and drain.acked and drain.in_flight == 0 for drain in reported):
            stamp = timestamps.format_micros(self._now())
            await self._mark(pod.metadata.namespace, pod.metadata.name, keys.DRAINED, stamp)

    async def _mark(self, namespace: str, name: str, annotation: str, value: str | None) -> None:
        patch = {"metadata": {"annotations": {annotation: value}}}
        with contextlib.suppress(NotFound):
            await self._client.patch(PODS, name, patch, namespace)

    async def _delete(self, revision: Revision, uid: str, name: str, reason: str) -> None:
        log.info("deleting pod %s/%s: %s", revision.metadata.namespace, name, reason)
        if reason != "finished":
            await self._mark(
                revision.metadata.namespace, name, keys.DRAINED, timestamps.format_micros(self._now())
            )
        with contextlib.suppress(NotFound, Conflict):
            await self._client.delete(PODS, name, revision.metadata.namespace, uid=uid)


async def _all(actions: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Carry out all of them, whatever becomes of the others. Raises their errors together.

    A single one needs no task: the first pod of a cold start should not wait for a turn of the loop.
    """
    if len(actions) == 1:
        await actions[0]
        return
    results = await asyncio.gather(*actions, return_exceptions=True)
    if errors := [result for result in results if isinstance(result, Exception)]:
        raise ExceptionGroup("some were not carried out", errors)


def _awaits_release(pod: Pod) -> bool:
    marks = pod.metadata.annotations
    return (
        pod.metadata.deletion_timestamp is not None
        and marks.get(keys.AWAIT_DRAIN) == "true"
        and keys.DRAINED not in marks
        and not pod.finished
    )
