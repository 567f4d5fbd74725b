"""A rung works when a sandbox boots on it; nothing else proves it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from serving.local.images.protocol import Rootfs
from serving.local.sandbox.protocol import (
    ContainerSpec,
    Mount,
    PodSandboxSpec,
    RungReport,
    Sandbox,
    SandboxError,
)

_SECONDS = 20.0
_EXIT_CODE = 42
_WORD = "nodeless-proof"
_HOST_DIRECTORIES = ("/bin", "/lib", "/lib64", "/usr", "/nix/store", "/gnu/store")


class Bootable(Protocol):
    rung: str

    async def start(self) -> None: ...
    async def create(self, spec: PodSandboxSpec) -> Sandbox: ...


async def prove_by_booting(
    runtime: Bootable,
    *,
    isolates: tuple[str, ...],
    reduced: Callable[[], tuple[str, ...]],
    root: Path | None = None,
) -> RungReport:
    """Start the runtime, run the machine's own /bin/sh in a sandbox, look at its output and exit code.

    `root` is the root directory; by default an empty one with the machine's programs mounted.
    """
    directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="nodeless-proof-"))
    began = time.monotonic()
    try:
        async with asyncio.timeout(_SECONDS):
            await runtime.start()
            await _boot(runtime, directory, root)
    except (SandboxError, OSError) as error:
        return RungReport(rung=runtime.rung, works=False, why=str(error), isolates=isolates)
    except TimeoutError:
        return RungReport(
            rung=runtime.rung, works=False, why=f"a sandbox did not boot within {_SECONDS:g} s", isolates=isolates
        )
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    took = (time.monotonic() - began) * 1000
    return RungReport(
        rung=runtime.rung,
        works=True,
        why=f"booted a sandbox and ran /bin/sh in it in {took:.0f} ms",
        isolates=isolates,
        reduced=reduced(),
    )


async def _boot(runtime: Bootable, directory: Path, root: Path | None) -> None:
    uid = f"proof-{uuid.uuid4()}"
    spec = PodSandboxSpec(
        pod_uid=uid, pod_name="proof", namespace="nodeless", hostname="proof", state_dir=directory / "state"
    )
    rootfs, mounts = (root, ()) if root is not None else await asyncio.to_thread(_machine_programs, directory)
    log = directory / "log"
    sandbox = await runtime.create(spec)
    try:
        container = ContainerSpec(
            name="proof",
            rootfs=Rootfs(directory=rootfs),
            argv=("/bin/sh", "-c", f"echo {_WORD}; exit {_EXIT_CODE}"),
            env=(),
            mounts=mounts,
            log_path=log,
        )
        await sandbox.start_container(container)
        async for exit in sandbox.exits():
            text = await asyncio.to_thread(log.read_text)
            if exit.exit_code != _EXIT_CODE or _WORD not in text:
                raise SandboxError(
                    "RunContainerError", f"the program ended with {exit.exit_code} and printed {text!r}"
                )
            return
        raise SandboxError("RunContainerError", "the sandbox was gone before its program ended")
    finally:
        await sandbox.destroy()


def _machine_programs(directory: Path) -> tuple[Path, tuple[Mount, ...]]:
    rootfs = directory / "rootfs"
    rootfs.mkdir()
    present = [path for path in _HOST_DIRECTORIES if Path(path).is_dir()]
    return rootfs, tuple(Mount(source=Path(path).resolve(), target=path) for path in present)
