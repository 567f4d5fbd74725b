"""Serves discovery and OpenAPI documents, with ETags, so that clients fetch them only when kinds change."""

from __future__ import annotations

import hashlib

import msgspec
from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import discovery, negotiate, openapi, openapi_v2
from serving.local.apiserver.errors import unknown_resource
from serving.local.apiserver.kinds import KUBERNETES_VERSION
from serving.local.apiserver.negotiate import JSON
from serving.local.apiserver.paths import GroupPath
from serving.local.apiserver.registry import Registry
from serving.local.apiserver.responses import page_not_found

_encode = msgspec.json.Encoder().encode


class _Made(msgspec.Struct, frozen=True):
    """An encoded document, as long as the served kinds stay what they are."""

    generation: int
    data: bytes
    tag: str


class Documents:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._made: dict[str, _Made] = {}

    def discover(self, request: web.Request, path: GroupPath) -> web.Response:
        if path.version:
            if path.group and not self._registry.versions(path.group):
                return page_not_found()
            return _optional(request, discovery.resource_list(self._registry, path.group, path.version))
        if path.group:
            if not self._registry.versions(path.group):
                return page_not_found()
            return _optional(request, discovery.group(self._registry, path.group))
        core = path.root == "api"
        form = negotiate.accepted(request.headers.get("Accept", ""))
        if form.name == "discovery":
            return _tagged(request, discovery.aggregated(self._registry, core=core), form.content_type)
        document = discovery.versions(request.host) if core else discovery.group_list(self._registry)
        return _tagged(request, document, JSON)

    def openapi(self, request: web.Request) -> web.Response:
        path = request.path.rstrip("/")
        made = self._made.get(path)
        if made is None or made.generation != self._registry.generation:
            found = self._openapi(path)
            if found is None:
                return page_not_found()
            data = _encode(found)
            made = self._made[path] = _Made(self._registry.generation, data, _tag(data))
        return _answer(request, made.data, made.tag, JSON)

    def _openapi(self, path: str) -> JsonObject | None:
        if path == "/openapi/v2":
            return openapi_v2.document(self._registry, version=f"v{'.'.join(KUBERNETES_VERSION)}.0")
        if path == "/openapi/v3":
            return openapi.index(self._registry)
        if path.startswith("/openapi/v3/"):
            return openapi.document(self._registry, path.removeprefix("/openapi/v3/"))
        return None


def _optional(request: web.Request, document: JsonObject | None) -> web.Response:
    if document is None:
        raise unknown_resource()
    return _tagged(request, document, JSON)


def _tagged(request: web.Request, document: JsonObject, content_type: str) -> web.Response:
    data = _encode(document)
    return _answer(request, data, _tag(data), content_type)


def _tag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:32].upper()}"'


def _answer(request: web.Request, data: bytes, tag: str, content_type: str) -> web.Response:
    headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": "public"}
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, headers={"Content-Type": content_type, **headers})
