"""Serves discovery and OpenAPI documents, with ETags, so that clients fetch them only when kinds change."""

from __future__ import annotations

import hashlib

import msgspec
from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import discovery, negotiate, openapi
from serving.local.apiserver.errors import unknown_resource
from serving.local.apiserver.negotiate import JSON
from serving.local.apiserver.paths import GroupPath
from serving.local.apiserver.registry import Registry
from serving.local.apiserver.responses import page_not_found

_encode = msgspec.json.Encoder().encode


class Documents:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def discover(self, request: web.Request, path: GroupPath) -> web.Response:
        if path.version:
            return _optional(request, discovery.resource_list(self._registry, path.group, path.version))
        if path.group:
            return _optional(request, discovery.group(self._registry, path.group))
        core = path.root == "api"
        form = negotiate.accepted(request.headers.get("Accept", ""))
        if form.name == "discovery":
            return _tagged(request, discovery.aggregated(self._registry, core=core), form.content_type)
        document = discovery.versions(request.host) if core else discovery.group_list(self._registry)
        return _tagged(request, document, JSON)

    def openapi(self, request: web.Request) -> web.Response:
        if request.path == "/openapi/v3":
            return _tagged(request, openapi.index(self._registry), JSON)
        if not request.path.startswith("/openapi/v3/"):
            return page_not_found()
        found = openapi.document(self._registry, request.path.removeprefix("/openapi/v3/"))
        if found is None:
            return page_not_found()
        return _tagged(request, found, JSON)


def _optional(request: web.Request, document: JsonObject | None) -> web.Response:
    if document is None:
        raise unknown_resource()
    return _tagged(request, document, JSON)


def _tagged(request: web.Request, document: JsonObject, content_type: str) -> web.Response:
    data = _encode(document)
    tag = f'"{hashlib.sha256(data).hexdigest()[:32].upper()}"'
    headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": "public"}
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, headers={"Content-Type": content_type, **headers})
