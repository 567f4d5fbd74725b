"""Asks the API server who calls the kubelet's API and whether they may, and remembers the answers for a while."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

from aiohttp import web

from serving.api.resources import Resource
from serving.kube.client import KubeClient
from serving.kube.errors import KubeError
from serving.local.node.kubelet_access import (
    Permission,
    Requester,
    access_review,
    forbidden,
    needed,
    requester_of_certificate,
    requester_of_review,
)

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_TOKEN_REVIEWS: Final = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False)
_ACCESS_REVIEWS: Final = Resource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False
)
_TOKEN_SECONDS: Final = 120.0
_ALLOWED_SECONDS: Final = 300.0
_DENIED_SECONDS: Final = 30.0
"""As the kubelet's defaults."""
_REMEMBERED: Final = 1000


class KubeletAuth:
    """Requests over TLS need a client certificate or a bearer token; the private socket needs nothing."""

    def __init__(self, client: KubeClient, *, node: str, now: Callable[[], float]) -> None:
        self._client = client
        self._node = node
        self._now = now
        self._tokens: dict[bytes, tuple[float, Requester | None]] = {}
        self._decisions: dict[tuple[Requester, str, str], tuple[float, bool]] = {}

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        transport = request.transport
        if transport is None or transport.get_extra_info("ssl_object") is None:
            return await handler(request)
        try:
            requester = await self._requester(request)
            if requester is None:
                return web.Response(status=401, text="Unauthorized")
            permission = needed(request.method, request.path)
            if not await self._allowed(requester, permission):
                return web.Response(status=403, text=forbidden(requester, permission))
        except KubeError as error:
            log.warning("who calls the kubelet API cannot be asked: %s", error)
            return web.Response(status=500, text=f"Authorization error: {error}")
        return await handler(request)

    async def _requester(self, request: web.Request) -> Requester | None:
        assert request.transport is not None  # noqa: S101 - checked by the caller
        certificate = request.transport.get_extra_info("peercert")
        if certificate:
            return requester_of_certificate(cast("dict[str, Any]", certificate))
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        return await self._of_token(token.strip())

    async def _of_token(self, token: str) -> Requester | None:
        key = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        known = self._tokens.get(key)
        if known is not None and self._now() < known[0]:
            return known[1]
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        review = await self._client.create(_TOKEN_REVIEWS, body)
        requester = requester_of_review(review.get("status") or {})
        _remember(self._tokens, key, (self._now() + _TOKEN_SECONDS, requester))
        return requester

    async def _allowed(self, requester: Requester, permission: Permission) -> bool:
        for subresource in permission.subresources:
            if await self._may(requester, permission.verb, subresource):
                return True
        return False

    async def _may(self, requester: Requester, verb: str, subresource: str) -> bool:
        key = (requester, verb, subresource)
        known = self._decisions.get(key)
        if known is not None and self._now() < known[0]:
            return known[1]
        body = access_review(requester, verb=verb, subresource=subresource, node=self._node)
        review = await self._client.create(_ACCESS_REVIEWS, body)
        allowed = bool((review.get("status") or {}).get("allowed"))
        seconds = _ALLOWED_SECONDS if allowed else _DENIED_SECONDS
        _remember(self._decisions, key, (self._now() + seconds, allowed))
        return allowed


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    """The oldest answer goes when there are too many."""
    memory.pop(key, None)
    while len(memory) >= _REMEMBERED:
        memory.pop(next(iter(memory)))
    memory[key] = value
