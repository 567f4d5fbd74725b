"""A registry on loopback that speaks the OCI distribution protocol as the public ones do.

Token service with scopes, basic authentication, errors as JSON, ranges, redirects of blobs to another host (here:
another port), and on demand the faults that networks have.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from .kit import FakeImage, digest_of

USER, PASSWORD, TOKEN = "ann", "s3cret:with:colons", "opaque-token"


class LocalRegistry:
    def __init__(self, *, auth: str = "", redirect_blobs: bool = False, content_digest: bool = True) -> None:
        self.auth = auth
        self.redirect_blobs = redirect_blobs
        self.content_digest = content_digest
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.log: list[str] = []
        self.failures: dict[str, list[int]] = {}
        """Statuses that the next requests of a kind (`manifest`, `blob`, `token`) get."""
        self.cut_blobs_after: list[int] = []
        """Bytes after which the connection of the next blob requests breaks."""
        self.ignore_ranges = False
        self.redirect_to = ""
        self.realm = ""
        self.storage_saw_authorization = False
        self._runners: list[web.AppRunner] = []
        self.address = ""
        self.storage = ""

    async def __aenter__(self) -> Self:
        registry, storage = web.Application(middlewares=[self._guard]), web.Application()
        registry.router.add_get("/v2/{repository:.+}/manifests/{reference}", self._manifest)
        registry.router.add_get("/v2/{repository:.+}/blobs/{digest}", self._blob)
        registry.router.add_get("/token", self._token)
        storage.router.add_get("/storage/{digest}", self._storage)
        self.address = await self._serve(registry)
        self.storage = await self._serve(storage)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(self, app: web.Application) -> str:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._runners.append(runner)
        host, port = runner.addresses[0][:2]
        return f"{host}:{port}"

    def push(self, repository: str, tag: str, *images: FakeImage, index: bytes = b"") -> str:
        """Store images and let the tag name the index, or the only image. Returns the tag's digest."""
        for image in images:
            self.blobs |= image.blobs
            self.manifests[repository, image.digest] = (image.blobs[image.digest], image.media_type)
        raw, kind = (
            (index, json.loads(index)["mediaType"]) if index else self.manifests[repository, images[0].digest]
        )
        for reference in (tag, digest_of(raw)):
            self.manifests[repository, reference] = (raw, kind)
        return digest_of(raw)

    def reference(self, repository: str, tag: str = "latest") -> str:
        return f"{self.address}/{repository}:{tag}"

    # the protocol

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.log.append(f"{request.method} {request.path}")
        if request.path != "/token":
            kind = "manifest" if "/manifests/" in request.path else "blob"
            self.requests[f"{request.method} {kind}"] += 1
            if self.auth and request.headers.get("Authorization", "") != self._expected(request):
                return self._challenge(request)
            if request.method == "GET" and self.failures.get(kind):
                return self._error(self.failures[kind].pop(0), "UNAVAILABLE", "try again")
        result: web.StreamResponse = await handler(request)
        return result

    def _expected(self, request: web.Request) -> str:
        if self.auth == "basic":
            return _basic()
        repository = request.match_info["repository"]
        return f"Bearer {TOKEN}-repository:{repository}:pull"

    def _challenge(self, request: web.Request) -> web.Response:
        repository = request.match_info["repository"]
        realm = self.realm or f"http://{self.address}/token"
        challenge = 'Basic realm="registry"'
        if self.auth in ("token", "anonymous"):
            challenge = f'Bearer realm="{realm}",service="registry.test",scope="repository:{repository}:pull"'
        detail = [{"Type": "repository", "Name": repository, "Action": "pull"}]
        body = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required", "detail": detail}]}
        return web.json_response(body, status=401, headers={"WWW-Authenticate": challenge})

    async def _token(self, request: web.Request) -> web.Response:
        self.requests["token"] += 1
        if self.failures.get("token"):
            return self._error(self.failures["token"].pop(0), "UNAVAILABLE", "try again")
        if self.auth == "token" and request.headers.get("Authorization") != _basic():
            return web.json_response({"details": "incorrect username or password"}, status=401)
        assert request.query["service"] == "registry.test"
        return web.json_response({"token": f"{TOKEN}-{request.query['scope']}", "expires_in": 300})

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        repository, reference = request.match_info["repository"], request.match_info["reference"]
        found = self.manifests.get((repository, reference))
        if found is None:
            if not any(known == repository for known, _ in self.manifests):
                return self._error(
                    404, "NAME_UNKNOWN", "repository name not known to registry", {"name": repository}
                )
            return self._error(404, "MANIFEST_UNKNOWN", "manifest unknown", {"Tag": reference})
        raw, kind = found
        assert kind in request.headers["Accept"]
        headers = {"Docker-Content-Digest": digest_of(raw)} if self.content_digest else {}
        return web.Response(body=raw, content_type=kind, headers=headers)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        digest = request.match_info["digest"]
        if self.redirect_to:
            return web.Response(status=307, headers={"Location": self.redirect_to})
        if digest not in self.blobs:
            return self._error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if self.redirect_blobs:
            # Signed addresses break when a client quotes them anew.
            location = f"http://{self.storage}/storage/{digest}?signature=a%2Fb"
            return web.Response(status=307, headers={"Location": location})
        return await self._send(request, self.blobs[digest])

    async def _storage(self, request: web.Request) -> web.StreamResponse:
        assert request.rel_url.raw_query_string == "signature=a%2Fb"
        self.storage_saw_authorization |= "Authorization" in request.headers
        return await self._send(request, self.blobs[request.match_info["digest"]])

    async def _send(self, request: web.Request, data: bytes) -> web.StreamResponse:
        start = 0 if self.ignore_ranges or not request.http_range.start else request.http_range.start
        if start >= len(data) > 0:
            return web.Response(status=416)
        response = web.StreamResponse(status=206 if start else 200)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response.content_length = len(data) - start
        await response.prepare(request)
        if self.cut_blobs_after:
            await response.write(data[start : start + self.cut_blobs_after.pop(0)])
            await response.drain()
            if request.transport is not None:
                request.transport.close()
            return response
        await response.write(data[start:])
        return response

    def _error(self, status: int, code: str, message: str, detail: Any = None) -> web.Response:
        error = {"code": code, "message": message} | ({"detail": detail} if detail else {})
        return web.json_response({"errors": [error]}, status=status)


def _basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
