"""Calls admission webhooks: mutating ones one after the other, validating ones at the same time."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import logging
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver import webhooks
from serving.local.apiserver.request import Admitted
from serving.local.apiserver.state import Event, Key
from serving.local.apiserver.storage import Storage
from serving.local.apiserver.webhook_services import ServiceTarget, Unreachable, resolve
from serving.local.apiserver.webhooks import BadAnswer, Hook

log = logging.getLogger(__name__)

_MUTATING = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
_VALIDATING = "validatingwebhookconfigurations.admissionregistration.k8s.io"
_MAX_ANSWER_BYTES = 16 * 1024 * 1024


class _Endpoint(NamedTuple):
    """Where a webhook is called; `host` is the name in its certificate when the URL has an address instead."""

    url: str
    shown: str
    ssl: ssl.SSLContext | bool
    host: str = ""


class _CallFailed(Exception):
    """The webhook could not be asked, or gave no usable answer."""


class Admission:
    """Configurations are read from the storage and parsed again only when they change."""

    def __init__(self, storage: Storage) -> None:
        self._state = storage.state
        self._hooks: dict[str, list[Hook]] = {}
        self._ruled: dict[tuple[str, ...], list[Hook]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}
        storage.listen(self._observe)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _observe(self, event: Event) -> None:
        if event.entry.key.storage in (_MUTATING, _VALIDATING):
            self._hooks.pop(event.entry.key.storage, None)
            self._ruled.clear()

    def _configured(self, storage: str) -> list[Hook]:
        """In order of the configurations' names."""
        hooks = self._hooks.get(storage)
        if hooks is None:
            hooks = [hook for entry in self._state.select(storage) for hook in webhooks.parse_hooks(entry.obj)]
            self._hooks[storage] = hooks
        return hooks

    def _matching(self, storage: str, request: Admitted) -> list[Hook]:
        hooks = self._with_rule(storage, request)
        if not hooks:
            return []
        labels = self._namespace_labels(request)
        matching = [hook for hook in hooks if webhooks.selects(hook, request, labels)]
        if request.context.dry_run:
            for hook in matching:
                webhooks.check_dry_run(hook)
        return matching

    def _with_rule(self, storage: str, request: Admitted) -> list[Hook]:
        kind = request.kind
        key = (storage, kind.group, kind.version, kind.plural, request.subresource, request.operation)
        hooks = self._ruled.get(key)
        if hooks is None:
            hooks = [hook for hook in self._configured(storage) if webhooks.has_rule(hook, request)]
            self._ruled[key] = hooks
        return hooks

    def _namespace_labels(self, request: Admitted) -> dict[str, str]:
        if request.kind.qualified == "namespaces":
            obj = request.obj or request.old or {}
            labels = (obj.get("metadata") or {}).get("labels")
        else:
            entry = self._state.get(Key("namespaces", "", request.namespace))
            labels = entry.obj["metadata"].get("labels") if entry else None
        return dict(labels or {})

    async def mutate(self, request: Admitted) -> tuple[JsonObject | None, bool]:
        """The object after all mutating webhooks, and whether any changed it. Raises StatusError."""
        hooks = self._matching(_MUTATING, request)
        changed_by_later = False
        first_round: list[Hook] = []
        for hook in hooks:
            patched = await self._ask(hook, request)
            if patched is not None and patched != request.obj:
                request = msgspec.structs.replace(request, obj=patched)
                changed_by_later = bool(first_round)
            first_round.append(hook)
        if changed_by_later:
            for hook in (hook for hook in first_round if hook.reinvoke):
                patched = await self._ask(hook, request)
                if patched is not None:
                    request = msgspec.structs.replace(request, obj=patched)
        return request.obj, bool(hooks)

    async def validate(self, request: Admitted) -> None:
        """Raises StatusError of the first webhook (in their order) that denies."""
        hooks = self._matching(_VALIDATING, request)
        if not hooks:
            return
        results = await asyncio.gather(*(self._ask(hook, request) for hook in hooks), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _ask(self, hook: Hook, request: Admitted) -> JsonObject | None:
        uid = str(uuid4())
        try:
            body = await self._call(hook, webhooks.review(request, uid))
            return webhooks.answer(hook, request, body, uid)
        except (_CallFailed, BadAnswer) as error:
            if hook.fail:
                raise webhooks.failed(hook, str(error)) from error
            log.warning("webhook %s failed and is ignored by its policy: %s", hook.name, error)
            return None

    async def _call(self, hook: Hook, review: JsonObject) -> object:
        to = self._endpoint(hook)
        timeout = f"{'&' if '?' in to.shown else '?'}timeout={hook.timeout_seconds}s"
        full = to.shown + timeout
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        data = msgspec.json.encode(review)
        try:
            async with asyncio.timeout(hook.timeout_seconds):
                try:
                    return await _post(self._session, to, timeout, data)
                except aiohttp.ServerDisconnectedError:
                    # A pooled connection that the webhook closed just now. Webhooks have no side effects.
                    return await _post(self._session, to, timeout, data)
        except TimeoutError as error:
            raise _CallFailed(f'failed to call webhook: Post "{full}": context deadline exceeded') from error
        except (aiohttp.ClientError, OSError) as error:
            raise _CallFailed(f'failed to call webhook: Post "{full}": {error}') from error
        except ValueError as error:
            raise _CallFailed(f"failed to call webhook: the answer is not JSON: {error}") from error

    def _endpoint(self, hook: Hook) -> _Endpoint:
        if hook.service is not None:
            return self._of_service(hook, hook.service)
        parts = urlsplit(hook.url)
        if parts.scheme == "http":
            if not _is_loopback(parts.hostname or ""):
                raise _CallFailed(f"failed to call webhook: {hook.url} must use https, http is for loopback only")
            return _Endpoint(hook.url, hook.url, False)
        if parts.scheme != "https":
            raise _CallFailed(f"failed to call webhook: {hook.url} is not an https URL")
        return _Endpoint(hook.url, hook.url, self._ssl_context(hook))

    def _of_service(self, hook: Hook, service: ServiceTarget) -> _Endpoint:
        try:
            address, port = resolve(self._state, service)
        except Unreachable as error:
            raise _CallFailed(f'failed to call webhook: Post "{service.url}": {error}') from error
        host = f"[{address}]" if ":" in address else address
        url = f"https://{host}:{port}{service.path}"
        return _Endpoint(url, service.url, self._ssl_context(hook), service.host)

    def _ssl_context(self, hook: Hook) -> ssl.SSLContext | bool:
        if not hook.ca_bundle:
            return True
        context = self._contexts.get(hook.ca_bundle)
        if context is None:
            try:
                authority = base64.b64decode(hook.ca_bundle).decode()
                context = ssl.create_default_context(cadata=authority)
            except (binascii.Error, ValueError, ssl.SSLError) as error:
                raise _CallFailed(
                    f"failed to call webhook: clientConfig.caBundle is no certificate: {error}"
                ) from error
            self._contexts = {hook.ca_bundle: context, **dict(list(self._contexts.items())[:15])}
        return context


async def _post(session: aiohttp.ClientSession, to: _Endpoint, query: str, data: bytes) -> object:
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if to.host:
        headers["Host"] = to.host
    async with session.post(
        to.url + query,
        data=data,
        headers=headers,
        ssl=to.ssl,
        server_hostname=to.host or None,
        allow_redirects=False,
    ) as response:
        body = await response.content.read(_MAX_ANSWER_BYTES)
        if response.status != 200:
            text = body[:300].decode(errors="replace").strip()
            raise _CallFailed(f"failed to call webhook: the server answered {response.status}: {text}")
        return msgspec.json.decode(body)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
