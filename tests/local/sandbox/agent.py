"""A node agent to be killed: `python -m tests.local.sandbox.agent RUNG DIRECTORY INSTANCE SCRIPT`.

Starts one pod that runs SCRIPT in /bin/sh, prints its uid and the spawner's pid, then waits.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from serving.local.images.protocol import Rootfs
from serving.local.network.service import PodNetwork
from serving.local.sandbox.namespace import NamespaceRuntime
from serving.local.sandbox.process import ProcessRuntime
from tests.local.sandbox import support


async def main(rung: str, directory: Path, instance: str, script: str) -> None:
    network = PodNetwork(data_dir=directory, instance=instance)
    if rung == "namespace":
        runtime: NamespaceRuntime | ProcessRuntime = NamespaceRuntime(directory, instance, network, spare=2)
        container = support.shell(directory, script)
    else:
        runtime = ProcessRuntime(directory, instance)
        container = support.shell(directory, script, rootfs=Rootfs(directory=Path("/")))
    await runtime.start()
    sandbox = await runtime.create(support.pod(directory))
    state = await sandbox.start_container(container)
    sys.stdout.write(f"{sandbox.spec.pod_uid} {state.pid} {runtime.spawner_pid} {sandbox.shim_pid}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
