"""Creating, finding and removing pods that shims hold: what the namespace and process rungs have in common."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from serving.local.sandbox import pod_files
from serving.local.sandbox.cgroup_detection import detect
from serving.local.sandbox.cgroups import Cgroups, Without
from serving.local.sandbox.channel import Channel
from serving.local.sandbox.protocol import (
    ContainerSpec,
    PodAddress,
    PodSandboxSpec,
    SandboxError,
)
from serving.local.sandbox.shim_sandbox import ShimSandbox, remove
from serving.local.sandbox.spawner.processes import start_time
from serving.local.sandbox.spawner.shim import SOCKET_NAME
from serving.local.sandbox.spawner_client import SpawnerClient

_ANSWER_SECONDS = 5.0
_STAGE = "stage"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One pod in the registry: written before its first container, removed when nothing of it is left."""

    rung: str
    spec: PodSandboxSpec
    address: PodAddress
    cgroup: str = ""
    """Name of the pod's cgroup; empty = its uid."""

    @property
    def group(self) -> str:
        return self.cgroup or self.spec.pod_uid


class Found(msgspec.Struct):
    """A pod of an earlier node agent whose shim answers."""

    entry: Entry
    channel: Channel
    shim_pid: int


class Registry:
    """`<data_dir>/sandboxes/<pod uid>.json`. Blocking."""

    def __init__(self, data_dir: Path, rung: str) -> None:
        self._directory = data_dir / "sandboxes"
        self._rung = rung

    def write(self, entry: Entry) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(entry.spec.pod_uid)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(entry, enc_hook=str))
        os.replace(temporary, path)

    def remove(self, pod_uid: str) -> None:
        self._path(pod_uid).unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        return [entry for entry in self._all() if entry.rung == self._rung]

    def foreign(self) -> list[Entry]:
        """Pods of other rungs."""
        return [entry for entry in self._all() if entry.rung != self._rung]

    def _all(self) -> list[Entry]:
        if not self._directory.is_dir():
            return []
        return [self._read(path) for path in sorted(self._directory.glob("*.json"))]

    @staticmethod
    def _read(path: Path) -> Entry:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Entry, dec_hook=_decode_path)
        except msgspec.DecodeError as error:
            raise SandboxError(
                "CreatePodSandboxError",
                f"{path} cannot be read ({error}); it says where a running pod is: end that pod's processes, then "
                "delete the file",
            ) from error

    def _path(self, pod_uid: str) -> Path:
        return self._directory / f"{pod_uid}.json"


class ShimRuntime:
    """Base of the rungs. A sub-class says how a pod gets its address and what a container's shim needs to know."""

    rung = ""

    def __init__(self, data_dir: Path, instance: str, *, isolate: bool, rootless: bool) -> None:
        self._data_dir = data_dir
        self._registry = Registry(data_dir, self.rung)
        self._spawner = SpawnerClient(isolate=isolate, rootless=rootless, stage=data_dir / _STAGE)
        self._instance = instance
        self._rootless = rootless
        self._cgroups: Cgroups = Without("the runtime is not started")
        self._found: list[Found] = []
        self._sandboxes: dict[str, ShimSandbox] = {}
        self._started = False

    # -- for sub-classes
    def _container_fields(self, spec: PodSandboxSpec, container: ContainerSpec, directory: Path) -> dict[str, Any]:
        raise NotImplementedError

    async def _release_address(self, address: PodAddress) -> None:
        raise NotImplementedError

    async def _on_started(self, found: Sequence[Found]) -> None:
        """Set up what pods share; `found` are living pods of an earlier agent."""

    def _groups_in_use(self) -> set[str]:
        return {sandbox.group for sandbox in self._sandboxes.values()}

    # -- the runtime
    async def start(self) -> None:
        if self._started:
            return
        await asyncio.to_thread((self._data_dir / _STAGE).mkdir, parents=True, exist_ok=True)
        self._cgroups = await asyncio.to_thread(detect, self._instance, rootless=self._rootless)
        self._found = [await self._connect(entry) for entry in await asyncio.to_thread(self._living)]
        try:
            await self._on_started(self._found)
        except BaseException:
            for found in self._found:
                found.channel.close()
            await self._spawner.stop()
            raise
        self._started = True

    def _living(self) -> list[Entry]:
        return [entry for entry in self._registry.entries() if _answers(entry.spec.state_dir)]

    async def _connect(self, entry: Entry) -> Found:
        sock = await asyncio.to_thread(_connect, entry.spec.state_dir)
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Found(entry, Channel(sock, on_event=_ignore_event, on_close=_ignore_close), pid)

    async def adopt(self) -> Sequence[ShimSandbox]:
        """Call after `start`. Whatever is not whole is removed: processes, cgroups, addresses, directories."""
        adopted = []
        for found in self._found:
            sandbox = self._sandbox(found.entry, found.channel, found.shim_pid)
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await sandbox.load()
            except (SandboxError, TimeoutError):
                await sandbox.destroy()
                continue
            adopted.append(sandbox)
        self._found = []
        entries = await asyncio.to_thread(self._registry.entries)
        for entry in entries:
            if entry.spec.pod_uid not in self._sandboxes:
                await self._remove_dead(entry)
        for entry in await asyncio.to_thread(self._registry.foreign):
            await self._remove_foreign(entry)
        for group in await asyncio.to_thread(self._cgroups.pods) - self._groups_in_use():
            await asyncio.to_thread(self._cgroups.remove, group)
        return adopted

    async def _remove_foreign(self, entry: Entry) -> None:
        """A pod of another rung, left when the choice of the rung changed."""
        gone = asyncio.Event()
        with contextlib.suppress(OSError, SandboxError, TimeoutError):
            sock = await asyncio.to_thread(_connect, entry.spec.state_dir)
            channel = Channel(sock, on_event=_ignore_event, on_close=gone.set)
            async with asyncio.timeout(_ANSWER_SECONDS):
                await channel.request("quit")
                await gone.wait()
        await asyncio.to_thread(_kill_recorded, entry.spec.state_dir)
        await asyncio.to_thread(remove, entry.spec, entry.group, self._cgroups)
        await asyncio.to_thread(self._registry.remove, entry.spec.pod_uid)

    async def _remove_dead(self, entry: Entry) -> None:
        await asyncio.to_thread(_kill_recorded, entry.spec.state_dir)
        await asyncio.to_thread(remove, entry.spec, entry.group, self._cgroups)
        await self._release_address(entry.address)
        await asyncio.to_thread(self._registry.remove, entry.spec.pod_uid)

    def _sandbox(self, entry: Entry, channel: Channel, shim_pid: int, *, warm_cgroup: str = "") -> ShimSandbox:
        sandbox = ShimSandbox(
            entry.spec,
            entry.address,
            channel,
            self._cgroups,
            shim_pid=shim_pid,
            group=entry.group,
            warm_cgroup=warm_cgroup,
            fields=self._container_fields,
            on_destroyed=self._on_destroyed,
        )
        self._sandboxes[entry.spec.pod_uid] = sandbox
        return sandbox

    @property
    def spawner_pid(self) -> int:
        """0 when none runs."""
        return self._spawner.pid

    def held(self) -> list[ShimSandbox]:
        """Every pod that this runtime holds."""
        return list(self._sandboxes.values())

    async def _on_destroyed(self, sandbox: ShimSandbox) -> None:
        await self._release_address(sandbox.address)
        await asyncio.to_thread(self._registry.remove, sandbox.spec.pod_uid)
        self._sandboxes.pop(sandbox.spec.pod_uid, None)

    async def restore(self, spec: PodSandboxSpec, directory: Path) -> ShimSandbox:
        raise SandboxError("Unsupported", "snapshots need a micro-VM")

    async def _stop_spawner(self) -> None:
        """Living pods are left to a later agent; an instance's cgroup goes with its last pod."""
        for sandbox in list(self._sandboxes.values()):
            sandbox.release()
        for found in self._found:
            found.channel.close()
        left = bool(self._sandboxes or self._found)
        self._found = []
        self._sandboxes.clear()
        await self._spawner.stop()
        if not left:
            await asyncio.to_thread(self._cgroups.remove_all)
        self._started = False


def _decode_path(kind: type, value: object) -> object:
    return kind(value)


def _ignore_event(_: dict[str, Any]) -> None: ...


def _ignore_close() -> None: ...


def _connect(state_dir: Path) -> socket.socket:
    directory = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
        except OSError:
            sock.close()
            raise
        return sock
    finally:
        os.close(directory)


def _answers(state_dir: Path) -> bool:
    try:
        _connect(state_dir).close()
    except OSError:
        return False
    return True


def _kill_recorded(state_dir: Path) -> None:
    """Processes whose shim was killed, found by pid and start time (a pid alone may be somebody else's by now)."""
    for path in (state_dir / "containers").glob("*/pid"):
        with contextlib.suppress(OSError, ValueError):
            pid, started = (int(word) for word in path.read_text().split())
            if start_time(pid) == started:
                os.killpg(pid, signal.SIGKILL)


def pod_etc(spec: PodSandboxSpec) -> list[dict[str, Any]]:
    return [
        {"source": str(spec.state_dir / "etc" / name), "target": f"/etc/{name}", "read_only": False}
        for name in pod_files.ETC
    ]
