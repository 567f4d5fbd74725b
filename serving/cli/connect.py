"""From command-line options to an API connection."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serving.kube.client import KubeClient
from serving.kube.connection import Connection, from_kubeconfig, over_unix_socket
from serving.local.layout import Layout, open_layout

if TYPE_CHECKING:
    from serving.cli.main import Globals


async def connection(*, kubeconfig: Path | None, api_socket: Path | None, token_file: Path | None) -> Connection:
    """The connection of a server process: the private socket when given, else a kubeconfig or the pod's own."""
    if api_socket is not None:
        if token_file is None:
            raise click.UsageError("--api-socket needs --token-file")
        token = await asyncio.to_thread(token_file.read_text)
        return over_unix_socket(api_socket, token=token.strip())
    return await from_kubeconfig(kubeconfig)


def require_running(options: Globals) -> Layout:
    """The layout of a running stack. Raises ClickException with the fix when nothing runs there."""
    if options.data_dir.exists():
        layout = open_layout(options.data_dir)
        if layout.api_socket.exists() and layout.token.exists():
            return layout
    raise click.ClickException(
        f"nothing runs on {options.data_dir}; start it with `nodeless up`, or give --data-dir or --kubeconfig"
    )


@asynccontextmanager
async def user_client(options: Globals) -> AsyncIterator[KubeClient]:
    """Client of a user command: `--kubeconfig` if given, else the local stack."""
    if options.kubeconfig is not None:
        found = await from_kubeconfig(options.kubeconfig)
    else:
        found = await asyncio.to_thread(_local, options)
    async with KubeClient(found) as client:
        yield client


def _local(options: Globals) -> Connection:
    layout = require_running(options)
    return over_unix_socket(layout.api_socket, token=layout.token.read_text().strip())


def run_until_signal(main: Coroutine[Any, Any, None]) -> None:
    """Run a server; SIGTERM and SIGINT cancel it, and its own clean-up decides how it ends."""

    async def runner() -> None:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            if not task.cancelled() and not task.done():
                raise

    asyncio.run(runner())
