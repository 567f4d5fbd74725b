"""The pods of this node: one runner each, made when a pod appears and gone when nothing is left of it.

On start everything that an earlier agent left is matched with the API server's pods by uid: sandboxes of pods
that still exist are taken over, the others destroyed, and what is missing is made again by the runners themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterator, Sequence
from typing import Any, Final

from serving.api.pod import Pod
from serving.api.quantity import QuantityError
from serving.kube.informer import Informer
from serving.local.node.ephemeral import REASON as EVICTED
from serving.local.node.ephemeral import StorageLimits, exceeded, measure, storage_limits
from serving.local.node.exits import read_exit
from serving.local.node.pod_runner import PodRunner
from serving.local.node.resources import misfit, pod_limits
from serving.local.node.seed import Adopted, seed
from serving.local.node.settings import NodeContext
from serving.local.node.state import Evicted, PodRecord
from serving.local.node.storage import prune_logs, remove_strangers
from serving.local.node.volumes import unsupported
from serving.local.sandbox.protocol import Sandbox, SandboxError

log = logging.getLogger(__name__)

_DESTROY_TRIES: Final = 5
_PRUNE_DELAY_SECONDS: Final = 10.0


class NodeAgent:
    def __init__(self, context: NodeContext, informer: Informer[Pod], group: asyncio.TaskGroup) -> None:
        self._context = context
        self._informer = informer
        self._group = group
        self._runners: dict[str, PodRunner] = {}
        self._prune = asyncio.Event()
        self._limited = asyncio.Event()
        """Some pod may have a limit of storage."""
        self._closed = False

    def runners(self) -> Collection[PodRunner]:
        return self._runners.values()

    def find(self, namespace: str, name: str) -> PodRunner | None:
        """The pod of this name; the living one where a dead one has not quite gone."""
        found = [
            runner
            for runner in self._runners.values()
            if (runner.pod.metadata.namespace, runner.pod.metadata.name) == (namespace, name)
        ]
        return next((runner for runner in found if not runner.record.vanished), found[0] if found else None)

    async def start(self) -> None:
        """Take over what is there, then follow the pods. Returns once every pod has its runner."""
        sandboxes = await self._context.runtime.adopt()
        await self._informer.synced.wait()
        pods = {pod.metadata.uid: pod for pod in self._informer.all()}
        strangers = [sandbox for sandbox in sandboxes if sandbox.spec.pod_uid not in pods]
        for sandbox in strangers:
            self._group.create_task(self._destroy(sandbox), name=f"destroy {sandbox.spec.pod_uid}")
        adopted = await self._adopted(sandboxes, pods)
        # Pods may have come and gone during the awaits above: the informer is asked anew, without a gap.
        for pod in list(self._informer.all()):
            self._add(pod, adopted.pop(pod.metadata.uid, None))
        self._informer.subscribe(self._on_change)
        for sandbox, _ in adopted.values():
            self._group.create_task(self._destroy(sandbox), name=f"destroy {sandbox.spec.pod_uid}")
        keep = set(self._runners) | {sandbox.spec.pod_uid for sandbox in sandboxes}
        await asyncio.to_thread(remove_strangers, self._context.paths, keep)
        self._prune.set()

    def close(self) -> None:
        """Leave the pods as they are."""
        self._closed = True
        for runner in self._runners.values():
            runner.close()

    async def keep_logs_bounded(self) -> None:
        """Remove the oldest logs of dead pods, until cancelled."""
        settings = self._context.settings
        while True:
            await self._prune.wait()
            self._prune.clear()
            live = {entry.name for entry in self._log_directories()}
            await asyncio.to_thread(
                prune_logs,
                self._context.paths,
                live=live,
                max_bytes=settings.dead_log_bytes,
                max_age=settings.dead_log_seconds,
                now=self._context.now(),
            )
            await asyncio.sleep(_PRUNE_DELAY_SECONDS)

    async def keep_storage_bounded(self) -> None:
        """Evict pods that exceed their limits of storage, until cancelled. Rests while no pod has any."""
        while True:
            await self._limited.wait()
            limited = [runner for runner in self._runners.values() if self._storage_limits(runner.pod)]
            if not limited:
                self._limited.clear()
                continue
            for runner in limited:
                if runner.sandbox is None or _over(runner.record, runner.pod):
                    continue
                usage = await asyncio.to_thread(measure, runner.pod, self._context.paths)
                message = exceeded(self._storage_limits(runner.pod), usage)
                if message is not None:
                    log.warning("pod %s evicted: %s", runner.pod.metadata.key, message)
                    self._context.events.warning(runner.pod, EVICTED, message)
                    runner.post(Evicted(EVICTED, message))
            await asyncio.sleep(self._context.settings.storage_check_seconds)

    @staticmethod
    def _storage_limits(pod: Pod) -> StorageLimits:
        try:
            return storage_limits(pod)
        except QuantityError:  # such a pod was refused, with this error
            return StorageLimits(containers={}, volumes={})

    def _log_directories(self) -> Iterator[Any]:
        for runner in self._runners.values():
            meta = runner.pod.metadata
            yield self._context.paths.pod_logs(meta.namespace, meta.name, meta.uid)

    def _on_change(self, key: str, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            runner = self._runners.get(old.metadata.uid)
            if runner is not None:
                runner.update(None)
        if new is None:
            return
        runner = self._runners.get(new.metadata.uid)
        if runner is None:
            self._add(new, None)
        else:
            runner.update(new)

    def _add(self, pod: Pod, adopted: tuple[Sandbox, Adopted] | None) -> None:
        uid = pod.metadata.uid
        if uid in self._runners or self._closed:
            return
        sandbox, found = adopted if adopted is not None else (None, None)
        record = seed(
            pod,
            now=self._context.now(),
            host_ip=self._context.settings.address,
            adopted=found,
            rejected=self._refusal(pod) if sandbox is None else None,
        )
        if record.rejected is not None:
            reason, message = record.rejected
            log.warning("pod %s refused: %s: %s", pod.metadata.key, reason, message)
            self._context.events.warning(pod, reason, message)
        self._runners[uid] = PodRunner(
            pod,
            self._context,
            record=record,
            spawn=self._spawn,
            forget=lambda: self._forget(uid),
            sandbox=sandbox,
        )
        if sandbox is not None:
            self._runners[uid].take_over()
        self._context.metrics.pods.set(len(self._runners))
        if self._storage_limits(pod):
            self._limited.set()

    def _refusal(self, pod: Pod) -> tuple[str, str] | None:
        """Why the pod can never run here; pods that ran before are not asked again."""
        if pod.finished or pod.metadata.deletion_timestamp is not None or pod.status.container_statuses:
            return None
        limit = self._context.settings.max_pods
        used = sum(not _over(runner.record, runner.pod) for runner in self._runners.values())
        if used >= limit:
            return "OutOfpods", (
                "Pod was rejected: Node didn't have enough resource: pods, requested: 1, "
                f"used: {used}, capacity: {limit}"
            )
        problem = unsupported(pod.spec)
        if problem is not None:
            return "UnsupportedVolume", f"Pod was rejected: {problem}"
        if not pod.spec.containers:
            return "InvalidPodSpec", "Pod was rejected: spec.containers: at least one container is required"
        try:
            pod_limits(pod.spec)
            return misfit(pod.spec, self._context.allocatable)
        except QuantityError as error:
            return "InvalidPodSpec", f"Pod was rejected: resources: {error}"

    async def _adopted(
        self, sandboxes: Sequence[Sandbox], pods: dict[str, Pod]
    ) -> dict[str, tuple[Sandbox, Adopted]]:
        out = {}
        for sandbox in sandboxes:
            pod = pods.get(sandbox.spec.pod_uid)
            if pod is None:
                continue
            states = list(sandbox.containers())
            specs = {c.name: c for c in (*pod.spec.init_containers, *pod.spec.containers)}
            ended = [s.exit for s in states if s.exit is not None and s.name in specs]
            exits = {
                (end.name, end.attempt): await asyncio.to_thread(
                    read_exit, end, specs[end.name], pod, self._context.paths
                )
                for end in ended
            }
            found = Adopted(address=sandbox.address, containers=states, exits=exits)
            out[sandbox.spec.pod_uid] = (sandbox, found)
        return out

    async def _destroy(self, sandbox: Sandbox) -> None:
        """A sandbox without a pod. One that resists is tried again by the next agent."""
        for attempt in range(_DESTROY_TRIES):
            try:
                await sandbox.destroy()
                return
            except (SandboxError, OSError) as error:
                log.warning("sandbox of vanished pod %s: %s", sandbox.spec.pod_uid, error)
                await asyncio.sleep(2.0**attempt)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._group.create_task(work, name=name)

    def _forget(self, uid: str) -> None:
        self._runners.pop(uid, None)
        self._context.metrics.pods.set(len(self._runners))
        self._prune.set()


def _over(record: PodRecord, pod: Pod) -> bool:
    return record.vanished or pod.finished or record.rejected is not None
