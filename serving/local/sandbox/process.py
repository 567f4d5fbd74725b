"""The process rung: a plain process of the node agent's user. It isolates nothing; for trusted code on machines
that offer nothing better.

What works as on the other rungs: logs, exits, signals, restarts, adoption, cgroup limits (with root). What does
not: the program sees the machine's file system, users, processes and network; absolute paths inside the image
are the machine's (see `spawner.plain`); mounts, users, capabilities, read-only roots and /etc files are ignored;
files written go into the image's unpacked directory or wherever the user may write. Each pod gets a port of its
own, which the node agent passes as PORT: an image that ignores it cannot be reached.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.local.sandbox import ports, privileges
from serving.local.sandbox.cgroups import Limits
from serving.local.sandbox.protocol import (
    ContainerSpec,
    PodAddress,
    PodSandboxSpec,
    RungReport,
    SandboxError,
)
from serving.local.sandbox.prove import prove_by_booting
from serving.local.sandbox.shim_runtime import Entry, Found, ShimRuntime
from serving.local.sandbox.shim_sandbox import ShimSandbox

_ADDRESS = "127.0.0.1"


class ProcessRuntime(ShimRuntime):
    rung = "process"

    def __init__(self, data_dir: Path, instance: str) -> None:
        super().__init__(data_dir, instance, isolate=False, rootless=not privileges.is_root())
        self._ports: set[int] = set()
        self._last_port = int(instance, 16) % (ports.LAST - ports.FIRST) + ports.FIRST

    async def _on_started(self, found: Sequence[Found]) -> None:
        self._ports = {item.entry.address.port for item in found if item.entry.address.port is not None}

    async def prove(self) -> RungReport:
        started_here = not self._started
        report = await prove_by_booting(self, isolates=(), reduced=self._reduced, root=Path("/"))
        if started_here and not report.works:
            await self.stop()
        return report

    def _reduced(self) -> tuple[str, ...]:
        return (
            "isolation: none; programs see this machine's files, processes and network and run as your user",
            "ports: a program must listen on PORT",
            "images: only static programs and self-contained runtimes start from an unpacked image",
            *self._cgroups.missing,
        )

    async def create(self, spec: PodSandboxSpec) -> ShimSandbox:
        try:
            port = await asyncio.to_thread(ports.choose, frozenset(self._ports), after=self._last_port)
        except LookupError as error:
            raise SandboxError("CreatePodSandboxError", str(error)) from error
        if port in self._ports:  # another create was faster while the thread looked
            return await self.create(spec)
        self._ports.add(port)
        self._last_port = port
        entry = Entry(rung=self.rung, spec=spec, address=PodAddress(ip=_ADDRESS, port=port), cgroup=spec.pod_uid)
        try:
            await asyncio.to_thread(self._write_pod, entry)
            handle = await self._spawner.shim()
            await handle.channel.request("pod", state_dir=str(spec.state_dir), hostname=spec.hostname)
        except OSError as error:
            self._ports.discard(port)
            raise SandboxError("CreatePodSandboxError", str(error)) from error
        except BaseException:
            self._ports.discard(port)
            raise
        return self._sandbox(entry, handle.channel, handle.pid)

    def _write_pod(self, entry: Entry) -> None:
        spec = entry.spec
        spec.state_dir.mkdir(parents=True, exist_ok=True)
        self._registry.write(entry)
        self._cgroups.create_pod(
            entry.cgroup,
            Limits(cpu_millis=spec.cpu_millis, memory_bytes=spec.memory_bytes, pids=spec.pids),
        )

    async def _release_address(self, address: PodAddress) -> None:
        if address.port is not None:
            self._ports.discard(address.port)

    def _container_fields(self, spec: PodSandboxSpec, container: ContainerSpec, directory: Path) -> dict[str, Any]:
        root = container.rootfs.directory
        if root is None:
            raise SandboxError(
                "CreateContainerError",
                f"container {container.name}: the process rung needs an unpacked image, this one is only a file "
                "system image",
            )
        return {
            "image": "",
            "rootfs": os.fspath(root),
            "mounts": [],
            "capabilities": 0,
            "capability_names": [],
        }

    async def stop(self) -> None:
        """Pods that live stay, for a later agent to adopt."""
        await self._stop_spawner()
