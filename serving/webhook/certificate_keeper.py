"""Carries out what `certificates` decides: the Secret, the served certificate, the bundles of the configurations.

Every replica runs one. Whoever decides first writes; the others see the Secret change, and a write on an older
version of it is refused. A new certificate is served to new connections at once, without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Collection
from typing import Any

from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.meta import JsonObject, Model, ObjectMeta
from serving.api.resources import MUTATING_WEBHOOKS, SECRETS, VALIDATING_WEBHOOKS, Resource
from serving.kube.client import KubeClient
from serving.kube.informer import Informer
from serving.kube.queue import WorkQueue
from serving.webhook.certificates import Certificates, Pair, decide, next_decision, read_secret
from serving.webhook.configurations import CONFIG_NAME, DEFAULTING_NAME, VALIDATION_NAME

log = logging.getLogger(__name__)

SECRET_NAME = "webhook-certs"  # noqa: S105 - upstream's name of the object, not what is in it
_KEY = f"{SYSTEM_NAMESPACE}/{SECRET_NAME}"
_LONGEST_WAIT_SECONDS = 86400.0
"""Timers follow the monotonic clock, which stands still while a machine sleeps."""


class _Secret(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, str] | None = None


class _ClientConfig(Model, frozen=True, kw_only=True):
    ca_bundle: str = ""


class _Webhook(Model, frozen=True, kw_only=True):
    name: str
    client_config: _ClientConfig = _ClientConfig()


class _Configuration(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    webhooks: tuple[_Webhook, ...] = ()


class CertificateKeeper:
    """Keeps `context` at the certificate in use. `hosts`: how API servers reach this replica, beside the Service.

    `context` has a certificate once `ready` is set; `bundle` is then what signs it.
    """

    def __init__(self, client: KubeClient, *, hosts: Collection[str], now: Callable[[], float]) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.ready = asyncio.Event()
        self.bundle = ""
        self._client = client
        self._hosts = hosts
        self._now = now
        self.served: Pair | None = None
        self._secrets = Informer(
            client, SECRETS, _Secret, namespace=SYSTEM_NAMESPACE, field_selector=f"metadata.name={SECRET_NAME}"
        )
        # One each: a role can grant listing of a cluster-wide kind by name only.
        self._configurations = [
            Informer(client, resource, _Configuration, field_selector=f"metadata.name={name}")
            for resource, name in (
                (MUTATING_WEBHOOKS, DEFAULTING_NAME),
                (VALIDATING_WEBHOOKS, VALIDATION_NAME),
                (VALIDATING_WEBHOOKS, CONFIG_NAME),
            )
        ]
        self._queue = WorkQueue("webhook certificates", self._reconcile, concurrency=1)

    async def run(self) -> None:
        """Until cancelled. What the API server refuses is tried again."""
        informers: list[Informer[Any]] = [self._secrets, *self._configurations]
        for informer in informers:
            informer.subscribe(lambda key, old, new: self._queue.add(_KEY))
        async with asyncio.TaskGroup() as group:
            for informer in informers:
                group.create_task(informer.run(), name=f"informer {informer.resource.plural}")
            for informer in informers:
                await informer.synced.wait()
            self._queue.add(_KEY)
            await self._queue.run()

    def look_again(self) -> None:
        """Decide anew soon. Needed only when the clock was set."""
        self._queue.add(_KEY)

    async def _reconcile(self, key: str) -> float | None:
        now = self._now()
        secret = self._secrets.get(key)
        stored = None if secret is None else read_secret(secret.data)
        wanted = decide(stored, hosts=self._hosts, bundles=self._bundles(), now=now)
        if wanted is not None:
            await self._store(secret, wanted)
        if wanted is not None or stored is None:
            return None  # the informer shows what is stored now, ours or another replica's
        self._serve(stored)
        for informer in self._configurations:
            for configuration in informer.all():
                await self._inject(informer.resource, configuration, stored.bundle)
        return min(max(next_decision(stored, now=now) - now, 1.0), _LONGEST_WAIT_SECONDS)

    def _bundles(self) -> list[str]:
        return [
            webhook.client_config.ca_bundle
            for informer in self._configurations
            for configuration in informer.all()
            for webhook in configuration.webhooks
        ]

    async def _store(self, secret: _Secret | None, wanted: Certificates) -> None:
        data = wanted.secret_data()
        if secret is None:
            metadata = {"name": SECRET_NAME, "namespace": SYSTEM_NAMESPACE}
            body: JsonObject = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
            body["data"] = {name: value for name, value in data.items() if value is not None}
            await self._client.create(SECRETS, body)
        else:
            precondition = {"resourceVersion": secret.metadata.resource_version}
            patch = {"metadata": precondition, "data": data}
            await self._client.patch(SECRETS, SECRET_NAME, patch, SYSTEM_NAMESPACE)
        log.info("webhook: wrote a %s certificate", "new" if wanted.successor is None else "successor's")

    def _serve(self, stored: Certificates) -> None:
        self.bundle = stored.bundle
        if stored.serving == self.served:
            return
        # In memory only: the key never touches a disk.
        descriptor = os.memfd_create("webhook-tls")
        try:
            os.write(descriptor, stored.serving.key + stored.serving.certificate)
            self.context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        self.served = stored.serving
        self.ready.set()

    async def _inject(self, resource: Resource, configuration: _Configuration, bundle: str) -> None:
        patch: list[JsonObject] = []
        for index, webhook in enumerate(configuration.webhooks):
            if webhook.client_config.ca_bundle != bundle:
                path = f"/webhooks/{index}"
                patch.append({"op": "test", "path": f"{path}/name", "value": webhook.name})
                patch.append({"op": "add", "path": f"{path}/clientConfig/caBundle", "value": bundle})
        if patch:
            name = configuration.metadata.name
            await self._client.patch(resource, name, patch)
            log.info("webhook: %s trusts the certificate now", name)
