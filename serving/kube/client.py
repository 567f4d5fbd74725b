"""The verbs of the Kubernetes API that nodeless uses, raw JSON in and out.

Errors are those of `serving.kube.errors`; nothing else escapes. There is no retry here: callers are
level-triggered and know when to try again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from serving.api.meta import JsonObject, JsonPatch
from serving.api.resources import Resource
from serving.kube.connection import Connection
from serving.kube.errors import Unreachable, from_status

_REQUEST_TIMEOUT_SECONDS = 30.0
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch. `object` is left undecoded: its type depends on `type`."""

    type: str
    object: msgspec.Raw


class KubeClient:
    """One API server. Use as an async context manager, or call `close`.

    `agent` is the User-Agent: API servers record it in `managedFields` as the manager of what is written.
    """

    def __init__(self, connection: Connection, *, agent: str = "nodeless") -> None:
        self._connection = connection
        self._agent = agent
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._decode = msgspec.json.Decoder()
        self._encode = msgspec.json.Encoder()
        self._decode_event = msgspec.json.Decoder(WatchEvent)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; later calls raise Unreachable."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject:
        """One object. Raises NotFound."""
        return await self._json("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> JsonObject:
        """A whole collection, in one piece."""
        body = await self.list_raw(
            resource, namespace, label_selector=label_selector, field_selector=field_selector
        )
        decoded: JsonObject = self._decode.decode(body)
        return decoded

    async def list_raw(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> bytes:
        """As `list`, undecoded."""
        params = _selectors(label_selector, field_selector)
        return await self._bytes("GET", resource.path(namespace), params=params)

    async def create(
        self, resource: Resource, body: JsonObject, namespace: str = "", *, dry_run: bool = False
    ) -> JsonObject:
        """Create; the body's namespace counts when none is given. `dry_run` checks but stores nothing.

        Raises AlreadyExists.
        """
        namespace = namespace or body.get("metadata", {}).get("namespace", "")
        params = {"dryRun": "All"} if dry_run else None
        return await self._json("POST", resource.path(namespace), body=body, params=params)

    async def create_subresource(
        self, resource: Resource, name: str, subresource: str, body: JsonObject, namespace: str = ""
    ) -> JsonObject:
        """POST to a subresource, e.g. `token` of a ServiceAccount. Raises NotFound."""
        return await self._json("POST", resource.path(namespace, name, subresource), body=body)

    async def update(self, resource: Resource, body: JsonObject, *, subresource: str = "") -> JsonObject:
        """Replace; `metadata.resourceVersion` in the body is the precondition. Raises Conflict."""
        meta = body["metadata"]
        path = resource.path(meta.get("namespace", ""), meta["name"], subresource)
        return await self._json("PUT", path, body=body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: JsonObject | JsonPatch,
        namespace: str = "",
        *,
        subresource: str = "",
    ) -> JsonObject:
        """Merge patch (a dict) or JSON patch (a list). A resourceVersion inside is a precondition."""
        kind = _JSON_PATCH if isinstance(patch, list) else _MERGE_PATCH
        return await self._json(
            "PATCH", resource.path(namespace, name, subresource), body=patch, content_type=kind
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str | None = None,
        grace_period_seconds: int | None = None,
        propagation: str | None = None,
    ) -> None:
        """Delete. Raises NotFound, and Conflict when `uid` is not the object's."""
        body: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_period_seconds is not None:
            body["gracePeriodSeconds"] = grace_period_seconds
        if propagation is not None:
            body["propagationPolicy"] = propagation
        await self._bytes("DELETE", resource.path(namespace, name), body=body)

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Events after `resource_version`, bookmarks and errors included, until the server ends the watch.

        Raises Unreachable when the stream breaks in the middle, or is silent for `timeout_seconds` + 15.
        """
        params = _selectors(label_selector, field_selector) | {
            "watch": "true",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_seconds),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=timeout_seconds + 15)
        path = resource.path(namespace)
        async with self._request("GET", path, params=params, timeout=timeout) as response:
            pending = b""
            async for chunk in _chunks(response, path):
                *lines, pending = (pending + chunk).split(b"\n") if pending else chunk.split(b"\n")
                for line in lines:
                    if line:
                        yield self._event(path, line)

    async def raw(self, method: str, path: str, *, params: dict[str, str] | None = None) -> bytes:
        """Any other path, e.g. a pod's log."""
        return await self._bytes(method, path, params=params)

    async def stream(self, path: str, *, params: dict[str, str]) -> AsyncGenerator[bytes, None]:
        """Body of a long GET as it arrives (logs)."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with self._request("GET", path, params=params, timeout=timeout) as response:
            async for chunk in _chunks(response, path):
                yield chunk

    def _event(self, path: str, line: bytes) -> WatchEvent:
        try:
            return self._decode_event.decode(line)
        except msgspec.DecodeError as error:
            raise Unreachable(f"watch of {path}: {line[:80]!r} is no event: {error}") from error

    async def _json(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | JsonPatch | None = None,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> JsonObject:
        body_read = await self._bytes(method, path, body=body, content_type=content_type, params=params)
        try:
            answer = self._decode.decode(body_read)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{method} {path}: the answer is no JSON: {body_read[:80]!r}") from error
        if not isinstance(answer, dict):
            raise Unreachable(f"{method} {path}: the answer is no object: {body_read[:80]!r}")
        return answer

    async def _bytes(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | JsonPatch | None = None,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_SECONDS, sock_connect=5)
        async with self._request(
            method, path, body=body, content_type=content_type, params=params, timeout=timeout
        ) as response:
            with _translated(method, path):
                return await response.read()

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        params: dict[str, str] | None = None,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._closed:
            raise Unreachable(f"{method} {path}: the client is closed")
        if self._session is None:
            self._session = self._connection.session()
        headers = {"Accept": "application/json", "User-Agent": self._agent}
        authorization = await self._connection.authorization()
        if authorization:
            headers["Authorization"] = authorization
        data = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = self._encode.encode(body)
        with _translated(method, path):
            response = await self._session.request(
                method,
                self._connection.base_url + path,
                data=data,
                headers=headers,
                params=params,
                timeout=timeout,
                allow_redirects=False,
            )
        async with response:
            if response.status >= 400:
                with _translated(method, path):
                    text = await response.read()
                raise from_status(response.status, self._status(text, response))
            yield response

    def _status(self, body: bytes, response: aiohttp.ClientResponse) -> JsonObject:
        try:
            decoded = self._decode.decode(body)
        except msgspec.DecodeError:
            decoded = None
        if not isinstance(decoded, dict):
            text = body.decode(errors="replace").strip() or str(response.reason)
            decoded = {"kind": "Status", "status": "Failure", "code": response.status, "message": text}
        after = response.headers.get("Retry-After", "")
        if after.isdecimal():
            # Priority and fairness answers 429 in plain text; only the header says for how long.
            decoded = {**decoded, "details": {"retryAfterSeconds": int(after), **(decoded.get("details") or {})}}
        return decoded


@contextmanager
def _translated(method: str, path: str) -> Iterator[None]:
    """Failures of the transport become Unreachable. Wrapped around our own reads and writes only, so that what a
    caller raises while it holds a response stays what it is."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unreachable(f"{method} {path}: {error or type(error).__name__}") from error


async def _chunks(response: aiohttp.ClientResponse, path: str) -> AsyncGenerator[bytes, None]:
    while True:
        with _translated("GET", path):
            chunk = await response.content.readany()
        if not chunk:
            return
        yield chunk


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    params = {}
    if label_selector:
        params["labelSelector"] = label_selector
    if field_selector:
        params["fieldSelector"] = field_selector
    return params
