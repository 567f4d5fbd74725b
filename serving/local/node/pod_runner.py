"""Runs one pod: folds what happens into its record, decides, and carries the decision out.

Everything that changes the record goes through `post`, in the loop and one at a time, so a pod has no race with
itself. There is no task for an idle pod but the one that waits for exits and those of its periodic probes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from serving.api.keys import POD_PORT, SANDBOX, STAGES
from serving.api.pod import Container, Pod
from serving.local.images.protocol import Image
from serving.local.node import lifecycle, state
from serving.local.node.containers import sandbox_spec
from serving.local.node.exits import read_exit
from serving.local.node.materials import Materials, failure
from serving.local.node.once import Once, Spawn
from serving.local.node.pod_probes import PodProbes
from serving.local.node.pod_volumes import MountError
from serving.local.node.settings import NodeContext
from serving.local.node.slots import CREATE_SANDBOX, START_CONTAINER
from serving.local.node.status_writer import StatusWriter, delete_finally
from serving.local.node.storage import make_pod_directory, remove_pod_directory
from serving.local.sandbox.protocol import ContainerState, Sandbox, SandboxError

log = logging.getLogger(__name__)

_START_TIMEOUT_SECONDS: Final = 120.0
_RETRY_SECONDS: Final = 1.0
_STATUS_FLUSH_SECONDS: Final = 5.0


class _SandboxGone(Exception):
    """There is no sandbox to start in; its own failure is reported elsewhere."""


class _Launch:
    """A start under way. `committed`: the sandbox was asked for it and will answer."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.committed = False


class PodRunner:
    """One pod, from its binding to this node until nothing is left of it."""

    def __init__(
        self,
        pod: Pod,
        context: NodeContext,
        *,
        record: state.PodRecord,
        spawn: Spawn,
        forget: Callable[[], None],
        sandbox: Sandbox | None = None,
    ) -> None:
        self.record = record
        self._context = context
        self._spawn_in_node = spawn
        self._forget = forget
        self._tasks: set[asyncio.Task[None]] = set()
        self._sandbox: Once[Sandbox] | None = Once.done(sandbox) if sandbox is not None else None
        self._launches: dict[str, _Launch] = {}
        self._watch: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = False
        self._closed = False
        self._finalizing = False
        self._stages: str | None = None
        self._listeners: set[Callable[[], None]] = set()
        self._writer = StatusWriter(context.client, pod, spawn=self.spawn)
        self._materials = Materials(pod, context, newest=lambda: self.pod, spawn=self.spawn)
        self._probes = PodProbes(context, spawn=self.spawn, post=self.post)
        self._schedule()

    @property
    def pod(self) -> Pod:
        return self._writer.pod

    @property
    def sandbox(self) -> Sandbox | None:
        return self._sandbox.result() if self._sandbox is not None else None

    def update(self, pod: Pod | None) -> None:
        """News of the pod from the API server; None = it is gone."""
        if pod is None:
            self._writer.gone = True
            self.post(state.Vanished())
            return
        before = self.pod.metadata
        self._writer.observe(pod)
        self._materials.volumes.metadata_changed(before, pod.metadata)
        if pod.metadata.deletion_timestamp is not None and self.record.deleted_at is None:
            self.post(state.DeletionSeen(self._context.now()))
        self._schedule()

    def post(self, event: state.Event) -> None:
        """Something happened."""
        self.record = state.fold(self.record, event)
        self._schedule()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call back after each change; the answer ends that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def take_over(self) -> None:
        """Pin the images of containers that an earlier agent started, and keep their volumes current."""
        for container in (*self.pod.spec.init_containers, *self.pod.spec.containers):
            record = self.record.containers[container.name]
            if record.phase is state.Phase.RUNNING:
                self._materials.image(msgspec.structs.replace(container, image_pull_policy="IfNotPresent"))
        self._materials.resume_volumes(self._sandbox_up)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that ends with the pod. What it raises is logged and leads to a new decision."""
        task = self._spawn_in_node(self._guard(work, name), f"{self.pod.metadata.key}: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # one cancelled before its first step was never begun
        return task

    async def _guard(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception:
            log.exception("pod %s: %s", self.pod.metadata.key, name)
            await asyncio.sleep(_RETRY_SECONDS)
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        now = self._context.now()
        decision = self._act(now)
        if decision is None:
            return
        if decision.hold_until is None and not self.record.vanished:
            self._writer.offer(decision.status, self._annotations())
        self._probes.sync(self._writer.view(), self.record, self.sandbox)
        self._keep_watching()
        self._set_timer(decision.wake_at, now)
        for listener in list(self._listeners):
            listener()

    def _act(self, now: float) -> lifecycle.Decision | None:
        """Carry out what is decided until nothing new comes of it; None = the pod is over."""
        wakes: list[float] = []
        while True:
            decision = lifecycle.decide(self._writer.view(), self.record, now)
            wakes += [decision.wake_at] if decision.wake_at is not None else []
            before = self.record
            for action in decision.actions:
                self.record = lifecycle.issued(self.record, action, now)
            for action in decision.actions:
                if isinstance(action, lifecycle.Forget):
                    self._end()
                    return None
                self._carry_out(action)
            if self.record == before:
                return msgspec.structs.replace(decision, wake_at=min(wakes, default=None))

    def _set_timer(self, wake_at: float | None, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wake_at is not None:
            self._timer = asyncio.get_running_loop().call_later(max(wake_at - now, 0.001), self._schedule)

    def _carry_out(self, action: lifecycle.Action) -> None:
        match action:
            case lifecycle.CreateSandbox():
                self._sandbox = Once(self._create_sandbox(), spawn=self.spawn, name="create sandbox")
            case lifecycle.PrefetchImage():
                self._materials.image(self._spec(action.name))
            case lifecycle.Start():
                self._launches[action.name] = _Launch(self.spawn(self._start(action), f"start {action.name}"))
            case lifecycle.AbortStart():
                launch = self._launches.get(action.name)
                if launch is not None and not launch.committed:
                    launch.task.cancel()
            case lifecycle.Signal():
                self._announce_kill(action)
                self.spawn(self._signal(action), f"signal {action.name}")
            case lifecycle.Kill():
                self.spawn(self._kill(action.name), f"kill {action.name}")
            case lifecycle.DestroySandbox():
                self.spawn(self._destroy(), "destroy sandbox")
            case lifecycle.Finalize():
                if not self._finalizing:
                    self._finalizing = True
                    self.spawn(self._finalize(), "finalize")
            case lifecycle.Forget():
                pass  # handled before

    def close(self) -> None:
        """Decide nothing any more; the agent goes, the pod stays."""
        self._set_timer(None, 0.0)
        self._closed = True

    def _end(self) -> None:
        self.close()
        for listener in list(self._listeners):
            listener()
        for task in list(self._tasks):
            task.cancel()
        self._materials.release()
        self._context.events.forget(self.pod.metadata.uid)
        self._forget()

    async def _create_sandbox(self) -> Sandbox:
        context, pod = self._context, self.pod
        uid = pod.metadata.uid
        state_dir = context.paths.sandbox(uid)
        try:
            spec = sandbox_spec(
                pod,
                state_dir=state_dir,
                cluster_domain=context.settings.cluster_domain,
                dns_server=context.settings.dns_server,
                max_pids=context.settings.max_pids_per_pod,
            )
            await asyncio.to_thread(make_pod_directory, context.paths, uid)
            async with context.starts.hold(CREATE_SANDBOX):
                sandbox = await context.runtime.create(spec)
        except Exception as error:
            reason = error.reason if isinstance(error, SandboxError) else "CreatePodSandboxError"
            if not isinstance(error, SandboxError | OSError | ValueError):
                log.exception("pod %s: create sandbox", pod.metadata.key)
            self.post(state.SandboxFailed(reason, str(error), context.now()))
            context.events.warning(pod, "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            raise _SandboxGone from error
        self.post(state.SandboxCreated(sandbox.address, context.now()))
        return sandbox

    async def _sandbox_up(self) -> Sandbox:
        if self._sandbox is None:
            raise _SandboxGone
        return await self._sandbox.wait()

    async def _start(self, start: lifecycle.Start) -> None:
        context, name = self._context, start.name
        container = self._spec(name)
        if start.attempt > 0:
            self._materials.refresh_image(container)
            context.metrics.restarts.inc()
        context.busy += 1
        try:
            started = await self._launch(container, start.attempt)
        except asyncio.CancelledError:
            self.post(state.StartAborted(name))
            raise
        except _SandboxGone:
            self.post(state.StartAborted(name))
        except Exception as error:
            self._start_failed(start, error)
        else:
            self._note_started(container, started)
        finally:
            context.busy -= 1
            self._launches.pop(name, None)

    async def _launch(self, container: Container, attempt: int) -> ContainerState:
        sandbox, spec = await self._materials.prepare(
            container,
            attempt,
            sandbox=self._sandbox_up,
            got_image=lambda image: self._note_image(container, image),
        )
        async with self._context.starts.hold(START_CONTAINER):
            self._launches[container.name].committed = True
            async with asyncio.timeout(_START_TIMEOUT_SECONDS):
                return await sandbox.start_container(spec)

    def _note_image(self, container: Container, image: Image) -> None:
        ready = state.ImageReady(
            container.name, image.repo_digest, image.config.stop_signal or "SIGTERM", self._context.now()
        )
        self.post(ready)

    def _note_started(self, container: Container, started: ContainerState) -> None:
        pod, context = self.pod, self._context
        self.post(state.Started(container.name, started.attempt, started.started_at, context.now()))
        if self._stages is None and "seen" in self.record.stages and "started" in self.record.stages:
            for stage in ("network", "image", "started"):
                taken = self.record.stages.get(stage, self.record.seen_at) - self.record.seen_at
                context.metrics.start_seconds.labels(stage).observe(max(taken, 0.0))
            self._stages = msgspec.json.encode(self.record.stages).decode()
        context.events.normal(
            pod, "Pulled", f'Container image "{container.image}" present on machine', container=container.name
        )
        context.events.normal(pod, "Created", f"Created container: {container.name}", container=container.name)
        context.events.normal(pod, "Started", f"Started container {container.name}", container=container.name)

    def _start_failed(self, start: lifecycle.Start, error: Exception) -> None:
        reason, message = failure(error)
        context, pod = self._context, self.pod
        executed = isinstance(error, SandboxError) and reason == "RunContainerError"
        event = state.StartFailed(start.name, start.attempt, reason, message, context.now(), executed)
        self.post(event)
        kind = "FailedMount" if isinstance(error, MountError) else "Failed"
        text = message if isinstance(error, MountError) else f"Error: {reason}: {message}"
        context.events.warning(pod, kind, text, container=start.name)
        log.info("pod %s: container %s not started: %s: %s", pod.metadata.key, start.name, reason, message)

    def _keep_watching(self) -> None:
        sandbox = self.sandbox
        if sandbox is None or self.record.sandbox is not state.SandboxPhase.UP:
            return
        if self._watch is None or self._watch.done():
            self._watch = self.spawn(self._watch_exits(sandbox), "watch exits")

    async def _watch_exits(self, sandbox: Sandbox) -> None:
        """Every exit of the sandbox; ends only with it."""
        context = self._context
        async for ended in sandbox.exits():
            container = self._spec(ended.name)
            paths, pod = context.paths, self.pod
            seen = await asyncio.to_thread(read_exit, ended, container, pod, paths)
            self.post(state.Exited(ended.name, ended.attempt, seen))
            if (
                seen.exit_code
                and self.record.deleted_at is None
                and self.record.containers[ended.name].backoff.delay
            ):
                text = f"Back-off restarting failed container {ended.name} in pod {pod.metadata.key}"
                context.events.warning(pod, "BackOff", text, container=ended.name)
        if self.sandbox is sandbox:  # it ended without us
            log.warning("pod %s: its sandbox is lost", self.pod.metadata.key)
            self.post(state.SandboxLost())

    def _announce_kill(self, action: lifecycle.Signal) -> None:
        text = f"Stopping container {action.name}"
        if action.why != "deleted":
            text = f"Container {action.name} failed {action.why} probe, will be restarted"
        self._context.events.normal(self.pod, "Killing", text, container=action.name)

    async def _signal(self, action: lifecycle.Signal) -> None:
        sandbox = self.sandbox
        if sandbox is not None:
            await sandbox.signal(action.name, action.signum)

    async def _kill(self, name: str) -> None:
        sandbox = self.sandbox
        if sandbox is not None:
            await sandbox.kill(name)

    async def _destroy(self) -> None:
        """Until it succeeds: a sandbox is never left behind."""
        sandbox, self._sandbox = self.sandbox, None
        self._probes.stop()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while sandbox is not None:
            try:
                await sandbox.destroy()
                break
            except (SandboxError, OSError) as error:
                log.warning("pod %s: destroy sandbox: %s", self.pod.metadata.key, error)
                await asyncio.sleep(_RETRY_SECONDS)
        await self._materials.volumes.close()
        await asyncio.to_thread(remove_pod_directory, self._context.paths, self.pod.metadata.uid)
        self._materials.release()
        self.post(state.SandboxDestroyed())

    async def _finalize(self) -> None:
        """Let the API server delete the pod, once it knows how its containers ended."""
        await self._writer.flush(timeout=_STATUS_FLUSH_SECONDS)
        await delete_finally(self._context.client, self.pod, vanished=lambda: self.record.vanished)
        self.post(state.Finalized())

    def _annotations(self) -> dict[str, str | None]:
        address = self.record.address
        if address is None:
            return {}
        out: dict[str, str | None] = {
            SANDBOX: self._context.runtime.rung,
            POD_PORT: str(address.port) if address.port is not None else None,
        }
        if self._stages is not None:
            out[STAGES] = self._stages
        return out

    def _spec(self, name: str) -> Container:
        pod = self.pod
        return next(c for c in (*pod.spec.init_containers, *pod.spec.containers) if c.name == name)
