"""What an ordinary user's stack does, run as root of a user namespace: `python -m … DIRECTORY`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from serving.local.network.service import PodNetwork
from serving.local.sandbox.descriptors import copy_out
from serving.local.sandbox.namespace import NamespaceRuntime
from serving.local.sandbox.protocol import Sandbox
from tests.local.sandbox import support

_SCRIPT = """
id -u; echo pid=$$; cat /etc/hostname; grep CapBnd /proc/self/status | tr -d '\\t'
test -c /dev/null && echo dev
(echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo sysctl-refused
touch /written && echo writable
exit 6
"""


async def _in_terminal(sandbox: Sandbox, directory: Path) -> str:
    """What a program in a terminal prints."""
    await sandbox.start_container(support.shell(directory, "sleep 1000", name="second"))
    argv = ("/bin/sh", "-c", "tty; echo x > /dev/stdout; exit 7")
    execution = await sandbox.execute("second", argv, stdin=True, stdout=True, stderr=True, tty=True)
    out, ended = bytearray(), asyncio.Event()

    async def take(data: bytes) -> None:
        out.extend(data)

    assert execution.streams.stdout is not None
    async with asyncio.TaskGroup() as group:
        group.create_task(copy_out(execution.streams.stdout, take, ended=ended))
        code = await execution.wait()
        ended.set()
    execution.streams.close()
    return f"{out.decode()}exit {code}".replace("\r", "")


async def main(directory: Path) -> None:
    instance = support.instance()
    runtime = NamespaceRuntime(directory, instance, PodNetwork(data_dir=directory, instance=instance), spare=1)
    report = await runtime.prove()
    result: dict[str, object] = {"works": report.works, "why": report.why, "reduced": report.reduced}
    if report.works:
        sandbox = await runtime.create(support.pod(directory))
        exit, lines = await support.run(sandbox, support.shell(directory, _SCRIPT))
        result |= {"exit": exit.exit_code, "lines": lines}
        try:
            await asyncio.wait_for(asyncio.open_connection(sandbox.address.ip, 9), 5)
        except ConnectionRefusedError:
            result["reached"] = True
        result["terminal"] = await _in_terminal(sandbox, directory)
        with await sandbox.tcp_socket() as client:
            try:
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", 9))
            except ConnectionRefusedError:
                result["loopback"] = True
        await sandbox.destroy()
        await runtime.stop()
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
