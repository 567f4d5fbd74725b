"""One interface for every rung: micro-VM (KVM, TCG), namespaces, plain process.

A sandbox is one pod: it owns the pod's network, cgroup and containers. The node agent decides what runs and
when it restarts; a sandbox only starts, signals, observes and removes. Everything that a sandbox needs to be
adopted by a later node agent is on disk in `state_dir`, and a sandbox outlives the node agent that created it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from serving.local.images.protocol import Rootfs


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A bind mount. `source` is a host directory or file prepared by the node agent."""

    source: Path
    target: str
    read_only: bool = True
    memory_bytes: int | None = None
    """Mount a memory file system of this size over `source`, one for all containers of the pod."""
    exact: bool = False
    """`source` has no links in it, and must have none when it is mounted."""


class PodSandboxSpec(msgspec.Struct, frozen=True, kw_only=True):
    pod_uid: str
    pod_name: str
    namespace: str
    hostname: str
    state_dir: Path
    """Private to the sandbox; created by the node agent, removed by `destroy`."""
    cpu_millis: int | None = None
    """Pod-level limits: the sum of its containers' limits; None = unlimited."""
    memory_bytes: int | None = None
    pids: int = 4096
    dns_search: tuple[str, ...] = ()
    dns_server: str = ""
    """Instead of the sandbox's own resolver, which is the first to be asked unless `dns_own_resolver` is off."""
    dns_own_resolver: bool = True
    dns_more_servers: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    host_aliases: tuple[tuple[str, str], ...] = ()


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    rootfs: Rootfs
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str = "/"
    user: str = ""
    """As in an image configuration: `uid[:gid]` or names looked up in the rootfs's passwd and group."""
    groups: tuple[int, ...] = ()
    cpu_millis: int | None = None
    cpu_shares: int | None = None
    memory_bytes: int | None = None
    mounts: tuple[Mount, ...] = ()
    read_only_rootfs: bool = False
    drop_capabilities: tuple[str, ...] = ()
    add_capabilities: tuple[str, ...] = ()
    no_new_privs: bool = True
    seccomp: bool = True
    """Whether system calls are filtered."""
    log_path: Path
    """Opened for append; each line is written in CRI format `<RFC3339Nano> stdout|stderr F|P <text>`."""
    termination_message_path: str = "/dev/termination-log"
    """A file in the container whose first 4096 bytes become the exit's `termination_message`."""
    attempt: int = 0
    """Counts restarts: a container is named by (name, attempt) in the state directory."""
    stdin: bool = False
    """Keep stdin open for whoever attaches; otherwise it is empty."""
    tty: bool = False
    """Run in a terminal, which is stdin, stdout and stderr."""


class ContainerExit(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    attempt: int
    exit_code: int
    """0–255; 128 + signal when killed by one."""
    signal: int = 0
    oom_killed: bool = False
    started_at: float
    finished_at: float
    termination_message: str = ""


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    attempt: int
    pid: int
    """Host pid of the container's first process, 0 where there is none (micro-VM)."""
    started_at: float
    exit: ContainerExit | None = None


class PodAddress(msgspec.Struct, frozen=True, kw_only=True):
    ip: str
    """Where the gateway and probes reach the pod."""
    port: int | None = None
    """Set when the pod must serve on this port instead of its own (process rung): it becomes PORT."""


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    exit_code: int
    stdout: bytes
    stderr: bytes


class Streams(msgspec.Struct, kw_only=True):
    """Our ends of a program's streams, as descriptors that the holder must `close`; None = there is none.

    With a `terminal` stdin and stdout are the same descriptor, its master side, and there is no stderr.
    """

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    terminal: bool = False

    def close_stdin(self) -> None:
        """The program sees the end of its input. Idempotent; a terminal stays open."""
        if self.stdin is not None and self.stdin != self.stdout:
            os.close(self.stdin)
            self.stdin = None

    def close(self) -> None:
        """Idempotent."""
        for fd in {self.stdin, self.stdout, self.stderr} - {None}:
            os.close(fd)  # type: ignore[arg-type]
        self.stdin = self.stdout = self.stderr = None


class Execution(Protocol):
    """A program in a container, besides the container's own."""

    streams: Streams

    async def wait(self) -> int:
        """Its exit code; 128 + signal when killed by one. Raises SandboxError when it could not be executed."""
        ...

    def kill(self) -> None:
        """SIGKILL it and what it started. No error if it is gone."""
        ...


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    cpu_seconds: float
    memory_bytes: int
    pids: int


class SandboxError(Exception):
    """The sandbox could not do what was asked. `reason` is a CamelCase word for a container's waiting reason
    (CreateContainerError, RunContainerError, CreatePodSandboxError)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Sandbox(Protocol):
    spec: PodSandboxSpec
    address: PodAddress

    async def start_container(self, container: ContainerSpec) -> ContainerState:
        """Start one container; returns when its program was executed. Raises SandboxError (program not found,
        permission denied, mount failed)."""
        ...

    def containers(self) -> Sequence[ContainerState]:
        """Last known state of every (name, attempt) started and not yet forgotten."""
        ...

    def exits(self) -> AsyncIterator[ContainerExit]:
        """Every exit from now on, and those not seen by anybody before an adoption."""
        ...

    async def signal(self, name: str, signum: int) -> None:
        """Signal the first process of a running container; no error if it is gone."""
        ...

    async def kill(self, name: str) -> None:
        """SIGKILL every process of the container."""
        ...

    async def exec(self, name: str, argv: Sequence[str], *, timeout_seconds: float) -> ExecResult:
        """Run a program inside a container. Raises SandboxError, TimeoutError."""
        ...

    async def execute(
        self, name: str, argv: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> Execution:
        """Start a program inside a container with the streams that are wanted, or in a terminal (`tty`), which has
        stdin and stdout. Raises SandboxError."""
        ...

    async def attach(self, name: str) -> Streams:
        """The output of a running container from now on, and its stdin if it has one. The end of the output is
        the end of the container. Raises SandboxError."""
        ...

    async def close_stdin(self, name: str) -> None:
        """A running container sees the end of its input. No error if it is gone or has none."""
        ...

    async def tcp_socket(self) -> socket.socket:
        """A non-blocking IPv4 socket in the pod's network, not connected yet. Raises SandboxError."""
        ...

    async def freeze(self) -> None: ...
    async def thaw(self) -> None: ...

    async def snapshot(self, directory: Path) -> None:
        """Store memory and device state. Rungs that cannot raise SandboxError('Unsupported')."""
        ...

    async def stats(self) -> Stats: ...

    async def destroy(self) -> None:
        """Kill what is left and release network, mounts, cgroup and state. Idempotent."""
        ...


class RungReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `nodeless doctor` prints of one rung."""

    rung: str
    works: bool
    why: str
    """Why it does not work and how to enable it, or how it was proved to work."""
    isolates: tuple[str, ...] = ()
    reduced: tuple[str, ...] = ()
    """What is missing compared with the rung at full strength (e.g. `memory limits: no delegated cgroup`)."""


class SandboxRuntime(Protocol):
    """One rung on this machine."""

    rung: str

    async def prove(self) -> RungReport:
        """Boot a real sandbox, run a program in it, remove it."""
        ...

    async def start(self) -> None:
        """Set up what is shared (network namespace, bridge, spawner). Idempotent; adopts what exists."""
        ...

    async def create(self, spec: PodSandboxSpec) -> Sandbox:
        """A sandbox with its network up and no container. Raises SandboxError."""
        ...

    async def restore(self, spec: PodSandboxSpec, directory: Path) -> Sandbox:
        """A sandbox from a snapshot. Rungs that cannot raise SandboxError('Unsupported')."""
        ...

    async def adopt(self) -> Sequence[Sandbox]:
        """Sandboxes of an earlier node agent that are still whole. What is not whole is removed."""
        ...

    def held(self) -> Sequence[Sandbox]:
        """Every sandbox that this runtime holds: created or adopted, and not destroyed."""
        ...

    async def stop(self) -> None:
        """Release what `start` set up, as far as no sandbox needs it."""
        ...
