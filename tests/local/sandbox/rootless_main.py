"""What an ordinary user's stack does, run as root of a user namespace: `python -m … DIRECTORY`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from serving.local.network.service import PodNetwork
from serving.local.sandbox.namespace import NamespaceRuntime
from tests.local.sandbox import support

_SCRIPT = """
id -u; echo pid=$$; cat /etc/hostname; grep CapBnd /proc/self/status | tr -d '\\t'
test -c /dev/null && echo dev
(echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo sysctl-refused
touch /written && echo writable
exit 6
"""


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
        await sandbox.destroy()
        await runtime.stop()
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
