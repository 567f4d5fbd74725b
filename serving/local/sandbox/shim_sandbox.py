"""A pod held by a shim: what the namespace and process rungs have in common."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from serving.local.sandbox import pod_files, shim_streams
from serving.local.sandbox.cgroups import Cgroups, Limits
from serving.local.sandbox.channel import Channel, ChannelClosed, Event
from serving.local.sandbox.protocol import (
    ContainerExit,
    ContainerSpec,
    ContainerState,
    ExecResult,
    Execution,
    PodAddress,
    PodSandboxSpec,
    SandboxError,
    Stats,
    Streams,
)

LOG_MAX_BYTES = 10 << 20
"""As kubelet's containerLogMaxSize."""
_QUIT_SECONDS = 10.0
_MAX_EXEC_OUTPUT = 16 << 20
_KILLED = 137

ContainerFields = Callable[[PodSandboxSpec, ContainerSpec, Path], dict[str, Any]]
"""What a rung adds to a container's description for the shim (rootfs, mounts, privileges)."""


class ShimSandbox:
    """Implements `Sandbox`. All methods belong to one event loop."""

    def __init__(
        self,
        spec: PodSandboxSpec,
        address: PodAddress,
        channel: Channel,
        cgroups: Cgroups,
        *,
        shim_pid: int,
        group: str,
        warm_cgroup: str = "",
        fields: ContainerFields,
        on_destroyed: Callable[[ShimSandbox], Awaitable[None]],
    ) -> None:
        self.spec = spec
        self.address = address
        self._channel = channel
        self._cgroups = cgroups
        self.shim_pid = shim_pid
        self.group = group
        """Name of the pod's cgroup."""
        self._warm_cgroup = warm_cgroup
        self._fields = fields
        self._on_destroyed = on_destroyed
        self._states: dict[tuple[str, int], ContainerState] = {}
        self._exits: asyncio.Queue[ContainerExit | None] = asyncio.Queue()
        self._destroying = asyncio.Lock()
        self._destroyed = False
        self._gone = asyncio.Event()
        channel.set_handlers(on_event=self._on_event, on_close=self._on_close)

    # -- what happened
    async def load(self) -> None:
        """After an adoption: what the shim knows. Exits that nobody has seen are queued."""
        for entry in await self._channel.request("status"):
            seen = entry.pop("seen")
            state = msgspec.convert(entry, ContainerState)
            known = self._states.get((state.name, state.attempt))
            if known is None or known.exit is None:
                self._states[state.name, state.attempt] = state
                if state.exit is not None and not seen:
                    self._exits.put_nowait(state.exit)

    def _on_event(self, event: Event) -> None:
        if event["event"] == "exit":
            self._exited(msgspec.convert(event["exit"], ContainerExit))

    def _exited(self, exit: ContainerExit) -> None:
        key = (exit.name, exit.attempt)
        state = self._states.get(key)
        if state is not None and state.exit is not None:
            return
        pid = state.pid if state is not None else 0
        self._states[key] = ContainerState(
            name=exit.name, attempt=exit.attempt, pid=pid, started_at=exit.started_at, exit=exit
        )
        self._exits.put_nowait(exit)

    def _on_close(self) -> None:
        """The shim is gone: its containers are killed with it by the kernel."""
        self._gone.set()
        if not self._destroyed and not self._destroying.locked():
            for state in list(self._states.values()):
                if state.exit is None:
                    self._exited(_lost(state))
        self._exits.put_nowait(None)

    def containers(self) -> Sequence[ContainerState]:
        return list(self._states.values())

    async def exits(self) -> AsyncIterator[ContainerExit]:
        """Ends when the sandbox is destroyed. One consumer at a time. An exit counts as seen when the consumer
        asks for the next one."""
        while True:
            exit = await self._exits.get()
            if exit is None:
                self._exits.put_nowait(None)
                return
            yield exit
            if not self._channel.closed:
                self._channel.post("seen", name=exit.name, attempt=exit.attempt)

    # -- containers
    async def start_container(self, container: ContainerSpec) -> ContainerState:
        state, _ = await self.start_container_timed(container)
        return state

    async def start_container_timed(self, container: ContainerSpec) -> tuple[ContainerState, dict[str, float]]:
        """Also the seconds that the stages inside the container took."""
        began = time.monotonic()
        try:
            described = await asyncio.to_thread(self._describe, container)
        except OSError as error:
            raise SandboxError("CreateContainerError", f"container {container.name}: {error}") from error
        prepared = time.monotonic()
        result = await self._channel.request("start", spec=described)
        stages = {"files and cgroup": prepared - began, **result.pop("stages")}
        state = msgspec.convert(result, ContainerState)
        self._states.setdefault((state.name, state.attempt), state)
        return self._states[state.name, state.attempt], stages

    def _describe(self, container: ContainerSpec) -> dict[str, Any]:
        directory = pod_files.container_directory(self.spec.state_dir, container.name, container.attempt)
        directory.mkdir(parents=True, exist_ok=True)
        container.log_path.parent.mkdir(parents=True, exist_ok=True)
        warm_cgroup, self._warm_cgroup = self._warm_cgroup, ""
        cgroup_name = warm_cgroup or f"{container.name}-{container.attempt}"
        cgroup = self._cgroups.create_container(
            self.group,
            cgroup_name,
            Limits(
                cpu_millis=container.cpu_millis,
                cpu_shares=container.cpu_shares,
                memory_bytes=container.memory_bytes,
            ),
        )
        return {
            "name": container.name,
            "attempt": container.attempt,
            "argv": list(container.argv),
            "env": [list(pair) for pair in container.env],
            "cwd": container.cwd or "/",
            "user": container.user,
            "groups": list(container.groups),
            "read_only": container.read_only_rootfs,
            "no_new_privs": container.no_new_privs,
            "seccomp": container.seccomp,
            "directory": str(directory),
            "log_path": str(container.log_path),
            "log_max_bytes": LOG_MAX_BYTES,
            "termination_log": str(directory / "termination-log"),
            "stdin": container.stdin,
            "tty": container.tty,
            "cgroup": cgroup,
            "warm": bool(warm_cgroup),
            **self._fields(self.spec, container, directory),
        }

    async def signal(self, name: str, signum: int) -> None:
        with contextlib.suppress(ChannelClosed):
            await self._channel.request("signal", name=name, signum=int(signum))

    async def kill(self, name: str) -> None:
        with contextlib.suppress(ChannelClosed):
            await self._channel.request("kill", name=name)

    async def exec(self, name: str, argv: Sequence[str], *, timeout_seconds: float) -> ExecResult:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            identifier, reply = self._channel.post(
                "exec", fds=[null, out_write, err_write], name=name, argv=list(argv)
            )
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            for fd in (null, out_write, err_write):
                os.close(fd)
        try:
            async with asyncio.timeout(timeout_seconds), asyncio.TaskGroup() as group:
                stdout = group.create_task(_read_all(out_read))
                stderr = group.create_task(_read_all(err_read))
                result = await reply
                # A program that left something running in the background holds the pipes open: enough was read.
                await asyncio.wait([stdout, stderr], timeout=0.05)
                stdout.cancel()
                stderr.cancel()
        except TimeoutError:
            self._kill_exec(identifier)
            raise TimeoutError(f"{argv[0]} did not end within {timeout_seconds:g} s") from None
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        except asyncio.CancelledError:
            self._kill_exec(identifier)
            raise
        return ExecResult(exit_code=result["exit_code"], stdout=_output(stdout), stderr=_output(stderr))

    async def execute(
        self, name: str, argv: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> Execution:
        if tty:
            return await shim_streams.execute_in_terminal(self._channel, name, argv)
        return await shim_streams.execute(self._channel, name, argv, stdin=stdin, stdout=stdout, stderr=stderr)

    async def attach(self, name: str) -> Streams:
        return await shim_streams.attach(self._channel, name)

    async def close_stdin(self, name: str) -> None:
        await shim_streams.close_stdin(self._channel, name)

    async def tcp_socket(self) -> socket.socket:
        return await shim_streams.tcp_socket(self._channel)

    def _kill_exec(self, identifier: int) -> None:
        if not self._channel.closed:
            self._channel.post("exec-kill", exec=identifier)

    # -- the pod
    async def freeze(self) -> None:
        await self._set_frozen(True)

    async def thaw(self) -> None:
        await self._set_frozen(False)

    async def _set_frozen(self, frozen: bool) -> None:
        try:
            await asyncio.to_thread(self._cgroups.freeze, self.group, frozen=frozen)
        except OSError as error:
            raise SandboxError("Unsupported", str(error)) from error

    async def snapshot(self, directory: Path) -> None:
        raise SandboxError("Unsupported", "snapshots need a micro-VM")

    async def stats(self) -> Stats:
        return await asyncio.to_thread(self._stats)

    def _stats(self) -> Stats:
        usage = self._cgroups.usage(self.group)
        if usage is not None:
            return Stats(cpu_seconds=usage.cpu_seconds, memory_bytes=usage.memory_bytes, pids=usage.pids)
        cpu, memory, pids = 0.0, 0, 0
        for state in self.containers():
            if state.exit is not None:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                first = psutil.Process(state.pid)
                for process in (first, *first.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        times = process.cpu_times()
                        cpu += times.user + times.system
                        memory += process.memory_info().rss
                        pids += 1
        return Stats(cpu_seconds=cpu, memory_bytes=memory, pids=pids)

    async def destroy(self) -> None:
        async with self._destroying:
            if self._destroyed:
                return
            await asyncio.to_thread(self._cgroups.kill, self.group)
            with contextlib.suppress(ChannelClosed, TimeoutError):
                async with asyncio.timeout(_QUIT_SECONDS):
                    await self._channel.request("quit")
                    await self._gone.wait()
            if not self._channel.closed:  # it lives, and did not do as it was told
                os.kill(self.shim_pid, signal.SIGKILL)
                await self._gone.wait()
            await self._on_destroyed(self)
            await asyncio.to_thread(self._remove)
            self._destroyed = True

    def _remove(self) -> None:
        remove(self.spec, self.group, self._cgroups)

    def release(self) -> None:
        """The node agent goes, the pod stays."""
        self._destroyed = True
        self._channel.close()


def remove(spec: PodSandboxSpec, group: str, cgroups: Cgroups) -> None:
    """What is left when no process is. Blocking; idempotent."""
    cgroups.remove(group)
    shutil.rmtree(spec.state_dir, ignore_errors=True)


def _lost(state: ContainerState) -> ContainerExit:
    return ContainerExit(
        name=state.name,
        attempt=state.attempt,
        exit_code=_KILLED,
        signal=9,
        started_at=state.started_at,
        finished_at=time.time(),
        termination_message="the process that holds the pod was killed",
    )


async def _read_all(fd: int) -> bytearray:
    """Until the end, or until cancelled; what was read so far is the result either way."""
    data = bytearray()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", buffering=0)
    )
    try:
        while chunk := await reader.read(1 << 16):
            if len(data) < _MAX_EXEC_OUTPUT:
                data += chunk
    except asyncio.CancelledError:
        return data
    finally:
        transport.close()
    return data


def _output(task: asyncio.Task[bytearray]) -> bytes:
    return bytes(task.result())
