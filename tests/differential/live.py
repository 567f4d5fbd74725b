"""A connection to a real API server, from a kubeconfig with a bearer token."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from tests.differential.runner import session


@asynccontextmanager
async def from_kubeconfig(path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """The first cluster and the first user of the file."""
    config = yaml.safe_load(path.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    tls = ssl.create_default_context(cadata=authority)
    async with session(cluster["server"], token=user["token"], tls=tls) as made:
        yield made
