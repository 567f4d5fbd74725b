"""Sandboxes whose image is the machine's own /bin/sh: nothing to build, nothing to download."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.local.images.protocol import Rootfs
from serving.local.network.service import PodNetwork
from serving.local.sandbox import privileges
from serving.local.sandbox.namespace import NamespaceRuntime
from serving.local.sandbox.protocol import ContainerExit, ContainerSpec, Mount, PodSandboxSpec, Sandbox

SECONDS = 20.0
needs_root = pytest.mark.skipif(not privileges.is_root(), reason="needs root: namespaces with a bridge, cgroups")

_PROGRAMS = ("/bin", "/lib", "/lib64", "/usr")


def instance() -> str:
    return uuid.uuid4().hex[:8]


def empty_rootfs(directory: Path) -> Rootfs:
    path = directory / "rootfs"
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
    return Rootfs(directory=path)


def programs() -> tuple[Mount, ...]:
    """The machine's programs, and the Python that runs this test."""
    present = [path for path in (*_PROGRAMS, sys.base_prefix) if Path(path).is_dir()]
    return tuple(Mount(source=Path(path).resolve(), target=path) for path in dict.fromkeys(present))


def python() -> str:
    return os.path.realpath(sys.executable)


def pod(directory: Path, name: str = "pod", **fields: Any) -> PodSandboxSpec:
    uid = str(uuid.uuid4())
    return PodSandboxSpec(
        pod_uid=uid, pod_name=name, namespace="test", hostname=name, state_dir=directory / "pods" / uid, **fields
    )


def shell(directory: Path, script: str, *, name: str = "main", **fields: Any) -> ContainerSpec:
    return command(directory, ("/bin/sh", "-c", script), name=name, **fields)


def command(directory: Path, argv: Sequence[str], *, name: str = "main", **fields: Any) -> ContainerSpec:
    fields.setdefault("env", ())
    fields.setdefault("mounts", programs())
    fields.setdefault("rootfs", empty_rootfs(directory))
    fields.setdefault("log_path", directory / f"{name}.log")
    return ContainerSpec(name=name, argv=tuple(argv), **fields)


async def next_exit(sandbox: Sandbox) -> ContainerExit:
    async with asyncio.timeout(SECONDS):
        async for exit in sandbox.exits():
            return exit
    raise AssertionError("the sandbox is gone")


async def run(sandbox: Sandbox, container: ContainerSpec) -> tuple[ContainerExit, list[str]]:
    """Start, wait for the end; the exit and the text of the log's lines."""
    await sandbox.start_container(container)
    exit = await next_exit(sandbox)
    return exit, texts(container.log_path)


def texts(log: Path) -> list[str]:
    return [line.split(" ", 3)[3] for line in log.read_text().splitlines()]


async def wait_for_text(log: Path, text: str) -> None:
    async with asyncio.timeout(SECONDS):
        while not (log.exists() and text in log.read_text()):
            await asyncio.sleep(0.005)


@asynccontextmanager
async def namespace_runtime(
    directory: Path, *, name: str | None = None, spare: int = 0, **network: Any
) -> AsyncIterator[NamespaceRuntime]:
    identity = name or instance()
    runtime = NamespaceRuntime(
        directory, identity, PodNetwork(data_dir=directory, instance=identity, **network), spare=spare
    )
    await runtime.start()
    try:
        yield runtime
    finally:
        for sandbox in runtime.held():
            await sandbox.destroy()
        await runtime.stop()


@asynccontextmanager
async def namespace_pod(directory: Path, **network: Any) -> AsyncIterator[Sandbox]:
    async with namespace_runtime(directory, **network) as runtime:
        yield await runtime.create(pod(directory))


def machine_root() -> Rootfs:
    return Rootfs(directory=Path("/"))
