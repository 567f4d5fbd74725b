"""What happens to a write besides webhooks: service accounts of new pods, and the check against escalation."""

from __future__ import annotations

import asyncio
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, meta
from serving.local.apiserver.access import escalation, pod_accounts
from serving.local.apiserver.access.authorizer import Authorizer
from serving.local.apiserver.request import Admitted
from serving.local.apiserver.state import Key
from serving.local.apiserver.storage import Storage

_DEFAULT_WAIT_SECONDS: Final = 1.5


class Plugins:
    """Built-in admission."""

    def __init__(self, storage: Storage, authorizer: Authorizer) -> None:
        self._storage = storage
        self._authorizer = authorizer

    async def admit(self, request: Admitted) -> None:
        """May change `request.obj`, in place. Before the mutating webhooks. Raises StatusError 403."""
        if request.kind.qualified != "pods" or request.operation != "CREATE" or request.subresource:
            return
        pod = request.obj
        if pod is None or not isinstance(pod.get("spec"), dict):
            return
        name = pod_accounts.choose_account(pod)
        account = await self._account(request.namespace, name)
        if account is None:
            why = f'error looking up service account {request.namespace}/{name}: serviceaccount "{name}" not found'
            raise errors.forbidden("pods", "", request.name, why)
        pod_accounts.complete(pod, account, suffix=meta.random_suffix())

    def check(self, request: Admitted) -> None:
        """After the mutating webhooks. Raises StatusError 403 or 404."""
        kind = request.kind
        if request.obj is not None and escalation.is_checked(kind.group, kind.plural):
            escalation.check(self._authorizer.policy, request.context.user, kind.plural, request.obj, request.old)

    async def _account(self, namespace: str, name: str) -> JsonObject | None:
        """The default account of a new namespace is made right after it: that is worth a moment."""
        key = Key("serviceaccounts", namespace, name)
        entry = self._storage.state.get(key)
        if entry is None and name == pod_accounts.DEFAULT_ACCOUNT:
            changed = asyncio.Event()
            self._storage.subscribe(key.storage, changed.set)
            try:
                async with asyncio.timeout(_DEFAULT_WAIT_SECONDS):
                    while (entry := self._storage.state.get(key)) is None:
                        changed.clear()
                        await changed.wait()
            except TimeoutError:
                return None
            finally:
                self._storage.unsubscribe(key.storage, changed.set)
        return None if entry is None else entry.obj
