"""A gateway agent in a process of its own, for tests that kill it. Prints `READY port local_port`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from serving.cli.connect import run_until_signal
from serving.gateway.service import Gateway, GatewaySettings
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket


async def main(api_socket: str, encoded: str) -> None:
    settings = msgspec.json.decode(encoded, type=GatewaySettings, dec_hook=lambda kind, value: kind(value))
    async with KubeClient(over_unix_socket(Path(api_socket), token="t")) as client:
        gateway = Gateway(settings, client=client)

        def ready(*, port: int, local_port: int) -> None:
            print("READY", port, local_port, flush=True)  # noqa: T201

        async def count() -> None:
            """One line a command on standard input: how much was sent to Envoy."""
            loop = asyncio.get_running_loop()
            while await loop.run_in_executor(None, sys.stdin.readline):
                print("SENT", sum(gateway.xds.sent.values()), gateway.xds.connected, flush=True)  # noqa: T201

        async with asyncio.TaskGroup() as group:
            group.create_task(count())
            await gateway.run(ready=ready)


if __name__ == "__main__":
    run_until_signal(main(sys.argv[1], sys.argv[2]))
