"""Services that run contract_app.py, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.api.meta import JsonObject
from tests.e2e.http import Gateway
from tests.e2e.manifests import service

APP = Path(__file__).with_name("contract_app.py").read_text()
PYTHON = "/usr/bin/python3"


def contract(name: str, *, image: str, container: JsonObject | None = None, **fields: Any) -> JsonObject:
    """A Service that tells what it sees. `image` holds Python."""
    command = [PYTHON, "-I", "-S", "-c", APP]
    return service(name, image=image, container={"command": command, **(container or {})}, **fields)


async def ask(gateway: Gateway, name: str, path: str, **headers: str) -> Any:
    """The JSON that the app answers."""
    host = {"Host": gateway.host(name), **{key.replace("_", "-"): value for key, value in headers.items()}}
    async with gateway.session.get(gateway.url + path, headers=host) as response:
        assert response.status == 200, await response.text()
        return await response.json()
