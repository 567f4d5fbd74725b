"""Pod subresources that are streams. The API server only finds the node agent and passes bytes through.

A Node says where its agent listens: annotation `nodeless.dev/kubelet` = `unix:/path/to/socket` or `http://host:port`.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import aiohttp
from aiohttp import web

from serving.api.keys import DEFAULT_CONTAINER
from serving.api.meta import JsonObject
from serving.local.apiserver.errors import StatusError, bad_request, internal, not_found, not_implemented
from serving.local.apiserver.state import Key, State

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
_NOT_YET: Final = ("exec", "attach", "portforward")
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
        if subresource in _NOT_YET:
            raise not_implemented(f"pods/{subresource}")
        return await self._log(request, entry.obj)

    async def _log(self, request: web.Request, pod: JsonObject) -> web.StreamResponse:
        container = choose_container(pod, request.query.get("container", ""))
        base, session = self._agent(pod, container)
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

    def _agent(self, pod: JsonObject, container: str) -> tuple[str, aiohttp.ClientSession]:
        """Base URL and session of the pod's node agent. Raises StatusError 400 or 500."""
        node_name = (pod.get("spec") or {}).get("nodeName")
        pod_name = pod["metadata"]["name"]
        if not node_name:
            raise bad_request(
                f'container "{container}" in pod "{pod_name}" is waiting to start: the pod is not on a node yet'
            )
        node = self._state.get(Key("nodes", "", node_name))
        address = ((node.obj["metadata"].get("annotations") or {}) if node else {}).get(KUBELET, "")
        if not address:
            raise internal(f'node "{node_name}" does not say where its agent listens (annotation {KUBELET})')
        if address not in self._sessions:
            connector = (
                aiohttp.UnixConnector(path=address.removeprefix("unix:")) if address[:5] == "unix:" else None
            )
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
            self._sessions[address] = aiohttp.ClientSession(connector=connector, timeout=timeout)
        base = "http://node" if address.startswith("unix:") else address.rstrip("/")
        return base, self._sessions[address]


def choose_container(pod: JsonObject, wanted: str) -> str:
    """The asked one, else the annotated default, else the first. Raises StatusError 400."""
    spec = pod.get("spec") or {}
    main = [str(container["name"]) for container in spec.get("containers") or ()]
    names = [str(container["name"]) for container in spec.get("initContainers") or ()] + main
    pod_name = pod["metadata"]["name"]
    if wanted:
        if wanted not in names:
            raise bad_request(f"container {wanted} is not valid for pod {pod_name}")
        return wanted
    default = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER)
    if default in names:
        return str(default)
    if not main:
        raise bad_request(f"pod {pod_name} has no containers")
    return main[0]


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
