"""Pod subresources that are streams. The API server only finds the node agent and passes bytes through.

A Node says where its agent listens: annotation `nodeless.dev/kubelet` = `unix:/path/to/socket` or `http://host:port`.
"""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import (
    StatusError,
    bad_request,
    internal,
    method_not_allowed,
    not_found,
)
from serving.local.apiserver.podstreams import SUBRESOURCES, choose_container, kubelet_target
from serving.local.apiserver.state import Key, State
from serving.local.streaming.relay import RelayError, relay

KUBELET: Final = "nodeless.dev/kubelet"
_LOG_PARAMETERS: Final = (
    "follow",
    "tailLines",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "previous",
    "limitBytes",
)
_CONNECT_SECONDS: Final = 10.0


class Streams:
    """Keeps one HTTP session per node agent address."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def handle(
        self, request: web.Request, namespace: str, name: str, subresource: str
    ) -> web.StreamResponse:
        entry = self._state.get(Key("pods", namespace, name))
        if entry is None:
            raise not_found("pods", "", name)
        if subresource in SUBRESOURCES:
            return await self._relay(request, entry.obj, subresource)
        return await self._log(request, entry.obj)

    async def _relay(self, request: web.Request, pod: JsonObject, subresource: str) -> web.StreamResponse:
        if request.method not in ("GET", "POST"):
            raise method_not_allowed()
        if "upgrade" not in request.headers.get("Connection", "").lower():
            raise bad_request("Upgrade request required")
        target = kubelet_target(pod, subresource, request.query)
        address = self._address(pod)

        async def dial() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            async with asyncio.timeout(_CONNECT_SECONDS):
                if address.startswith("unix:"):
                    return await asyncio.open_unix_connection(address.removeprefix("unix:"))
                url = URL(address)
                return await asyncio.open_connection(url.host, url.port)

        try:
            return await relay(request, target, dial, {"Host": "node"})
        except RelayError as error:
            meta = pod["metadata"]
            where = f"{meta['namespace']}/{meta['name']}"
            raise internal(f"cannot reach the node agent of {where} at {address}: {error}") from error

    async def _log(self, request: web.Request, pod: JsonObject) -> web.StreamResponse:
        container = choose_container(pod, request.query.get("container", ""))
        if not (pod.get("spec") or {}).get("nodeName"):
            return web.Response(status=204)
        base, session = self._agent(pod)
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        path = "/".join(quote(part, safe="") for part in (namespace, name, container))
        parameters = {key: request.query[key] for key in _LOG_PARAMETERS if request.query.get(key)}
        try:
            async with session.get(f"{base}/containerLogs/{path}", params=parameters) as upstream:
                if upstream.status != 200:
                    raise _refused(upstream.status, (await upstream.text())[:1000].strip())
                return await _copy(request, upstream)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise internal(
                f"cannot get the logs of {namespace}/{name} from its node agent at {base}: {error}"
            ) from error

    def _address(self, pod: JsonObject) -> str:
        """Of the pod's node agent. Raises StatusError 500."""
        node_name = pod["spec"]["nodeName"]
        node = self._state.get(Key("nodes", "", node_name))
        annotations = (node.obj["metadata"].get("annotations") or {}) if node else {}
        address: str = annotations.get(KUBELET, "")
        if not address:
            raise internal(f'node "{node_name}" does not say where its agent listens (annotation {KUBELET})')
        return address

    def _agent(self, pod: JsonObject) -> tuple[str, aiohttp.ClientSession]:
        """Base URL and session of the pod's node agent. Raises StatusError 500."""
        address = self._address(pod)
        if address not in self._sessions:
            connector = (
                aiohttp.UnixConnector(path=address.removeprefix("unix:")) if address[:5] == "unix:" else None
            )
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
            self._sessions[address] = aiohttp.ClientSession(connector=connector, timeout=timeout)
        base = "http://node" if address.startswith("unix:") else address.rstrip("/")
        return base, self._sessions[address]


def _refused(status: int, text: str) -> StatusError:
    if status == 400:
        return bad_request(text)
    if status == 404:
        return StatusError(404, "NotFound", text, details={})
    return internal(f"the node agent answered {status}: {text}")


async def _copy(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    """Each piece is sent as soon as it arrives."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        async for chunk in upstream.content.iter_any():
            await response.write(chunk)
    except aiohttp.ClientError:
        # The agent is gone in the middle of the stream: the log ends here, as it does with a kubelet.
        request.protocol.force_close()
        return response
    await response.write_eof()
    return response
