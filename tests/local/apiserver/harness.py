"""A whole API server in the test's own loop, for tests of everything that talks to one.

async with running_apiserver(tmp_path, manifests=[...]) as server:
    client = KubeClient(over_unix_socket(server.socket, token=server.token))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from serving.local.apiserver.service import ApiServerSettings, Running, started

REPOSITORY = Path(__file__).resolve().parents[3]


def shipped_manifests() -> list[Path]:
    """The CRDs and ConfigMaps that the product ships."""
    return sorted(
        [*(REPOSITORY / "manifests/crds").glob("*.yaml"), *(REPOSITORY / "manifests/config").glob("*.yaml")]
    )


@asynccontextmanager
async def running_apiserver(
    directory: Path, *, manifests: Sequence[Path] = (), history: int = 1024
) -> AsyncIterator[Running]:
    """Serves `directory` (state survives a second run on the same one): .socket, .url, .token, .kubeconfig,
    .port."""
    settings = ApiServerSettings(data_dir=directory, manifests=tuple(manifests), history=history)
    async with started(settings) as running:
        yield running


@asynccontextmanager
async def http_session(server: Running) -> AsyncIterator[aiohttp.ClientSession]:
    """Plain HTTP to the server's Unix socket, with the administrator's token; paths start with `/`."""
    async with aiohttp.ClientSession(
        base_url="http://nodeless",
        connector=aiohttp.UnixConnector(path=str(server.socket), limit=0),
        headers={"Authorization": f"Bearer {server.token}"},
        timeout=aiohttp.ClientTimeout(total=20),
    ) as session:
        yield session
