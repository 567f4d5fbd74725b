"""The namespace rung: own mount, pid, network, ipc and uts namespaces, cgroup, seccomp, few capabilities.

With root, or inside the user namespace in which an ordinary user's stack runs; there each pod gets a user
namespace of its own on top, so that its root has no power over the stack.

Shims with a network are kept ready (`spare` of them), because a namespace with a veth pair takes longer than
everything else together.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import uuid
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from serving.local.network.allocator import NoAddress
from serving.local.network.names import NetworkError
from serving.local.network.rootless import rootless_support
from serving.local.network.service import Lease, PodNetwork
from serving.local.sandbox import pod_files, privileges
from serving.local.sandbox.cgroups import Limits
from serving.local.sandbox.protocol import (
    ContainerSpec,
    PodAddress,
    PodSandboxSpec,
    RungReport,
    SandboxError,
)
from serving.local.sandbox.prove import prove_by_booting
from serving.local.sandbox.shim_runtime import Entry, Found, ShimRuntime, pod_etc
from serving.local.sandbox.shim_sandbox import ShimSandbox
from serving.local.sandbox.spawner import capabilities
from serving.local.sandbox.spawner_client import ShimHandle

SPARE = 4
_FIRST = "first"
"""The cgroup of a pod's first container, made before its name is known."""
_ISOLATES = ("file system", "processes", "network", "ipc", "host name", "capabilities", "system calls")


class _Spare:
    """A shim with its network up, without a pod yet."""

    def __init__(self, handle: ShimHandle, lease: Lease, group: str) -> None:
        self.handle = handle
        self.lease = lease
        self.group = group


class NamespaceRuntime(ShimRuntime):
    """`network` is started by `start` and stopped by `stop`, unless the caller has started it before."""

    rung = "namespace"

    def __init__(self, data_dir: Path, instance: str, network: PodNetwork, *, spare: int = SPARE) -> None:
        super().__init__(data_dir, instance, isolate=True, rootless=not privileges.is_root())
        self._network = network
        self._spare_wanted = spare
        self._spares: list[_Spare] = []
        self._images: dict[Path, Path] = {}
        """Where image files are mounted, by mount point."""
        self._preparing: set[str] = set()
        """Cgroups whose pod is neither spare nor created yet."""
        self._refill_wanted = asyncio.Event()
        self._refill: asyncio.Task[None] | None = None

    @property
    def network(self) -> PodNetwork:
        return self._network

    # -- life
    async def _on_started(self, found: Sequence[Found]) -> None:
        existing = await _stack_of(found) if found else None
        try:
            await self._network.start(existing)
            await self._network.keep_only(
                {lease_address(entry.entry.address): entry.entry.spec.pod_uid for entry in found}
            )
        except NetworkError as error:
            raise SandboxError("CreatePodSandboxError", str(error)) from error
        finally:
            if existing is not None:
                os.close(existing)
        if self._spare_wanted:
            self._refill = asyncio.create_task(self._keep_spares(), name="spare-sandboxes")
            self._refill_wanted.set()

    async def stop(self) -> None:
        """Pods that live stay, with their network, for a later agent to adopt."""
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.gather(self._refill, return_exceptions=True)
            self._refill = None
        for spare in self._spares:
            await self._discard(spare)
        self._spares.clear()
        pods_left = bool(self._sandboxes or self._found)
        await self._stop_spawner()
        if self._network.started:
            await self._network.stop(remove=not pods_left)

    async def prove(self) -> RungReport:
        if os.geteuid() != 0:
            return RungReport(
                rung=self.rung,
                works=False,
                why="without root the stack must run inside a user and network namespace, which `nodeless up` "
                f"enters where it can: {rootless_support().why}",
            )
        started_here = not self._started
        report = await prove_by_booting(self, isolates=_ISOLATES, reduced=self._reduced)
        if started_here and not report.works:
            await self.stop()
        return report

    def _reduced(self) -> tuple[str, ...]:
        notes = list(self._cgroups.missing)
        if self._network.started and self._network.filter_note:
            notes.append(self._network.filter_note)
        if self._network.started and self._network.egress_note:
            notes.append(self._network.egress_note)
        if self._rootless:
            notes.append("users: only the image's user 0 exists, which is your own user outside")
        return tuple(notes)

    # -- pods
    async def create(self, spec: PodSandboxSpec) -> ShimSandbox:
        try:
            spare = self._spares.pop() if self._spares else await self._prepare()
        except (NetworkError, NoAddress) as error:
            raise SandboxError("CreatePodSandboxError", str(error)) from error
        self._preparing.add(spare.group)
        self._refill_wanted.set()
        address = PodAddress(ip=str(spare.lease.address))
        entry = Entry(rung=self.rung, spec=spec, address=address, cgroup=spare.group)
        channel = spare.handle.channel
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.to_thread(self._write_pod, entry))
                group.create_task(
                    channel.request("pod", state_dir=str(spec.state_dir), hostname=spec.hostname[:64])
                )
        except* (SandboxError, OSError) as errors:
            self._preparing.discard(spare.group)
            channel.close()
            await self._release_address(address)
            first = errors.exceptions[0]
            raise SandboxError("CreatePodSandboxError", str(first)) from first
        sandbox = self._sandbox(entry, channel, spare.handle.pid, warm_cgroup=_FIRST)
        self._preparing.discard(spare.group)
        return sandbox

    def _write_pod(self, entry: Entry) -> None:
        spec = entry.spec
        spec.state_dir.mkdir(parents=True, exist_ok=True)
        self._registry.write(entry)
        pod_files.write(spec, ip=entry.address.ip, resolver=str(self._network.resolver_address))
        self._cgroups.create_pod(
            entry.cgroup,
            Limits(cpu_millis=spec.cpu_millis, memory_bytes=spec.memory_bytes, pids=spec.pids),
        )

    async def _release_address(self, address: PodAddress) -> None:
        await self._network.detach(lease_address(address))

    def _container_fields(self, spec: PodSandboxSpec, container: ContainerSpec, directory: Path) -> dict[str, Any]:
        added, dropped = list(container.add_capabilities), list(container.drop_capabilities)
        try:
            mask = capabilities.mask(add=added, drop=dropped)
        except ValueError as error:
            raise SandboxError("CreateContainerConfigError", f"container {container.name}: {error}") from error
        termination_log = directory / "termination-log"
        termination_log.touch(mode=0o666)
        termination_log.chmod(0o666)
        binds = [
            *pod_etc(spec),
            {"source": str(termination_log), "target": container.termination_message_path, "read_only": False},
        ]
        wanted = [
            {
                "source": str(mount.source),
                "target": mount.target,
                "read_only": mount.read_only,
                "memory_bytes": mount.memory_bytes,
                "exact": mount.exact,
            }
            for mount in container.mounts
        ]
        taken = {mount["target"] for mount in wanted}
        image = ""
        if container.rootfs.erofs is not None and not self._rootless:
            image = str(container.rootfs.erofs)
            point = self._image_point(container.rootfs.erofs)
            self._images[point] = container.rootfs.erofs
            rootfs = str(point)
        elif container.rootfs.directory is not None:
            rootfs = str(container.rootfs.directory)
        else:
            raise SandboxError(
                "CreateContainerError",
                f"container {container.name}: the image has no unpacked directory, and without root a file system "
                "image cannot be mounted",
            )
        return {
            "image": image,
            "rootfs": rootfs,
            "mounts": [*(bind for bind in binds if bind["target"] not in taken), *wanted],
            "capabilities": mask,
            "capability_names": sorted(capabilities.names_in(mask)),
        }

    def _image_point(self, erofs: Path) -> Path:
        status = erofs.stat()
        identity = f"{erofs}:{status.st_ino}:{status.st_mtime_ns}"
        return self._data_dir / "mounts" / hashlib.sha256(identity.encode()).hexdigest()[:24]

    # -- ready in advance
    async def _prepare(self) -> _Spare:
        handle = await self._spawner.shim()
        lease: Lease | None = None
        group = f"pod-{uuid.uuid4().hex[:16]}"
        self._preparing.add(group)
        try:
            cgroup = await asyncio.to_thread(self._create_cgroup, group)
            lease = await self._network.attach(handle.netns, "prepared")
            await handle.channel.request(
                "network",
                fds=[self._network.fd],
                interface="eth0",
                address=str(lease.address),
                gateway=str(lease.gateway),
                gateway_mac=lease.gateway_mac,
            )
            await handle.channel.request("warm", cgroup=cgroup)
        except BaseException:
            handle.channel.close()
            if lease is not None:
                await asyncio.shield(self._network.detach(lease.address, rest=False))
            await asyncio.to_thread(self._cgroups.remove, group)
            self._preparing.discard(group)
            raise
        finally:
            os.close(handle.netns)
        return _Spare(handle, lease, group)

    def _create_cgroup(self, group: str) -> dict[str, Any]:
        self._cgroups.create_pod(group, Limits())
        return self._cgroups.create_container(group, _FIRST, Limits())

    def _groups_in_use(self) -> set[str]:
        return super()._groups_in_use() | {spare.group for spare in self._spares} | self._preparing

    async def _discard(self, spare: _Spare) -> None:
        spare.handle.channel.close()
        await self._network.detach(spare.lease.address, rest=False)
        await asyncio.to_thread(self._cgroups.remove, spare.group)

    async def _keep_spares(self) -> None:
        while True:
            await self._refill_wanted.wait()
            self._refill_wanted.clear()
            self._spares = [spare for spare in self._spares if not spare.handle.channel.closed]
            while len(self._spares) < self._spare_wanted:
                try:
                    spare = await self._prepare()
                    self._spares.append(spare)
                    self._preparing.discard(spare.group)
                except (SandboxError, NetworkError, NoAddress):
                    break  # the next create finds out by itself and reports it
            await self._release_images()

    async def _release_images(self) -> None:
        """An image file that the image store has evicted takes up space as long as it is mounted."""
        stale = await asyncio.to_thread(self._evicted)
        if not stale or not self._spares:
            return
        with contextlib.suppress(SandboxError):
            # Any shim of the present spawner will do: they share the mounts.
            await self._spares[-1].handle.channel.request("release-images", points=[str(point) for point in stale])
            for point in stale:
                self._images.pop(point, None)

    def _evicted(self) -> list[Path]:
        return [point for point, image in list(self._images.items()) if not image.exists()]


def lease_address(address: PodAddress) -> IPv4Address:
    return IPv4Address(address.ip)


async def _stack_of(found: Sequence[Found]) -> int | None:
    """A descriptor of the network namespace that the pods' bridge is in, from any of their shims."""
    for item in found:
        with contextlib.suppress(SandboxError):
            await item.channel.request("stack")
            fds = item.channel.take_fds()
            if fds:
                for extra in fds[1:]:
                    os.close(extra)
                return fds[0]
    return None
