"""Keeps what every cluster has: each namespace its default service account and the certificate to trust the server
by, each aggregated ClusterRole its rules.

Driven by events; what was missed while the server was down is found by one look at everything at start. Objects
that somebody deletes or empties come back, unless their namespace is going too.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver.access.aggregation import aggregated_rules, selectors_of
from serving.local.apiserver.access.authorizer import CLUSTER_ROLES
from serving.local.apiserver.access.pod_accounts import DEFAULT_ACCOUNT, ROOT_AUTHORITY
from serving.local.apiserver.access.policy import GROUP
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.request import SYSTEM, Context
from serving.local.apiserver.resources import Resources
from serving.local.apiserver.state import DELETED, Event, Key

log = logging.getLogger(__name__)

_RETRY_SECONDS: Final = 1.0
_ROLES: Final = ""
"""Key of the work on all aggregated roles; every other key is a namespace."""
_WATCHED: Final = {"serviceaccounts": DEFAULT_ACCOUNT, "configmaps": ROOT_AUTHORITY}


class Caretaker:
    def __init__(self, resources: Resources, *, authority: str) -> None:
        """`authority`: the certificate in PEM."""
        self._resources = resources
        self._authority = authority
        self._due: dict[str, None] = dict.fromkeys(
            [_ROLES, *(entry.key.name for entry in resources.state.select("namespaces"))]
        )
        self._filled = asyncio.Event()
        self._filled.set()
        resources.storage.listen(self._observe)

    def _observe(self, event: Event) -> None:
        key = event.entry.key
        if key.storage == CLUSTER_ROLES:
            self._enqueue(_ROLES)
        elif key.storage == "namespaces" and event.type != DELETED:
            self._enqueue(key.name)
        elif _WATCHED.get(key.storage) == key.name:
            self._enqueue(key.namespace)

    def _enqueue(self, name: str) -> None:
        self._due[name] = None
        self._filled.set()

    async def settle(self) -> None:
        """Do everything that is to do now; what fails is tried again by `run`."""
        while self._due:
            await self._next()

    async def run(self) -> None:
        """Forever; cancel to stop."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            await self.settle()

    async def _next(self) -> None:
        name = next(iter(self._due))
        del self._due[name]
        try:
            await self._handle(name)
        except StatusError as error:
            log.warning("what belongs to %s is not there yet: %s", name or "ClusterRoles", error.message)
            asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._enqueue, name)

    async def _handle(self, name: str) -> None:
        if name == _ROLES:
            await self._aggregate()
            return
        namespace = self._resources.state.get(Key("namespaces", "", name))
        if namespace is None or "deletionTimestamp" in namespace.obj["metadata"]:
            return
        try:
            await self._ensure_account(name)
            await self._ensure_authority(name)
        except StatusError as error:
            if error.code not in (403, 404):  # the namespace has begun to go meanwhile
                raise

    def _kind(self, api_version: str, kind: str) -> Kind:
        found = self._resources.registry.find_kind(api_version, kind)
        assert found is not None  # noqa: S101 - a built-in kind
        return found

    async def _ensure_account(self, namespace: str) -> None:
        if self._resources.state.head(Key("serviceaccounts", namespace, DEFAULT_ACCOUNT)) is None:
            body: JsonObject = {"metadata": {"name": DEFAULT_ACCOUNT}}
            await self._create("ServiceAccount", namespace, body)

    async def _ensure_authority(self, namespace: str) -> None:
        wanted = {"ca.crt": self._authority}
        entry = self._resources.state.head(Key("configmaps", namespace, ROOT_AUTHORITY))
        if entry is None:
            about = "Contains a CA bundle that can be used to verify the kube-apiserver."
            metadata = {"name": ROOT_AUTHORITY, "annotations": {"kubernetes.io/description": about}}
            await self._create("ConfigMap", namespace, {"metadata": metadata, "data": wanted})
        elif entry.obj.get("data") != wanted:

            def change(obj: JsonObject) -> JsonObject:
                return {**obj, "data": wanted}

            kind = self._kind("v1", "ConfigMap")
            await self._resources.patch(kind, namespace, ROOT_AUTHORITY, change, Context(user=SYSTEM))

    async def _create(self, kind: str, namespace: str, body: JsonObject) -> None:
        try:
            await self._resources.create(self._kind("v1", kind), namespace, body, Context(user=SYSTEM))
        except StatusError as error:
            if error.code != 409:
                raise

    async def _aggregate(self) -> None:
        """An aggregate may gather other aggregates: each write brings this back until nothing changes."""
        kind = self._kind(f"{GROUP}/v1", "ClusterRole")
        roles = [entry.obj for entry in self._resources.state.heads(CLUSTER_ROLES)]
        for role in roles:
            if not selectors_of(role):
                continue
            rules = aggregated_rules(role, roles)
            if (role.get("rules") or []) == rules:
                continue
            name = role["metadata"]["name"]

            def change(obj: JsonObject, rules: list[JsonObject] = rules) -> JsonObject:
                return {**obj, "rules": rules}

            try:
                await self._resources.patch(kind, "", name, change, Context(user=SYSTEM))
            except StatusError as error:
                if error.code != 404:
                    raise
