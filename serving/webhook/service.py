"""The admission webhook process: an HTTP(S) server that answers AdmissionReviews.

`/defaulting`, `/resource-validation` and `/config-validation` as upstream's webhook; `/healthz` is 200 once the
ConfigMaps are known. The ConfigMaps of the system namespace are followed live; a bad edit keeps the last good
value and is logged. Everything that decides is in `admission`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from serving.api.config.errors import ConfigError
from serving.api.config.store import ApiConfig, Store
from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.meta import JsonObject
from serving.api.resources import CONFIG_MAPS, PODS
from serving.api.v1 import ConfigMap
from serving.kube.client import KubeClient
from serving.kube.errors import ApiError, KubeError
from serving.kube.informer import Informer
from serving.webhook import admission
from serving.webhook.admission import AdmissionRequest, AdmissionReview
from serving.webhook.configurations import CONFIG_PATH, DEFAULTING_PATH, VALIDATION_PATH

log = logging.getLogger(__name__)

_MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Two objects of the API server's own limit (1.5 MiB in etcd, 3 MiB per request) and the envelope."""
_SYNC_TIMEOUT_SECONDS: Final = 8.0
"""How long a request waits for the ConfigMaps after a start; below the API server's 10 s for a webhook."""
_SHUTDOWN_SECONDS: Final = 5.0

_decoder = msgspec.json.Decoder(AdmissionReview)
_encoder = msgspec.json.Encoder()


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen. With `certificate` and `key` (PEM files) it speaks TLS, as a real API server demands."""

    host: str = "127.0.0.1"
    port: int = 0
    """0 = any free port."""
    certificate: Path | None = None
    key: Path | None = None

    def tls(self) -> ssl.SSLContext | None:
        """Raises ValueError when only one of the two files is given, OSError when they cannot be read."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key: give both or neither")
        if self.certificate is None or self.key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


async def run(
    settings: WebhookSettings,
    *,
    client: KubeClient,
    tls: ssl.SSLContext | None = None,
    on_started: Callable[[str], None] | None = None,
) -> None:
    """Serve until cancelled. `on_started` gets the base URL once the server listens. `tls`: instead of the files
    in the settings.

    Raises OSError when the address is taken, ValueError for half a key pair.
    """
    configs = Informer(client, CONFIG_MAPS, ConfigMap, namespace=SYSTEM_NAMESPACE)
    webhook = Webhook(client, configs)
    tls = tls or settings.tls()
    runner = web.AppRunner(webhook.app(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, ssl_context=tls, backlog=1024)
        await site.start()
        host, port = runner.addresses[0][:2]
        url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("webhook: listening on %s", url)
        if on_started is not None:
            on_started(url)
        await configs.run()
    finally:
        await runner.cleanup()


class Webhook:
    """The handlers, over the live configuration."""

    def __init__(self, client: KubeClient, configs: Informer[ConfigMap]) -> None:
        self._client = client
        self._configs = configs
        self._store = Store()
        configs.subscribe(self._on_config_map)

    @property
    def config(self) -> ApiConfig:
        return self._store.config

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_post(DEFAULTING_PATH, self._default)
        app.router.add_post(VALIDATION_PATH, self._validate)
        app.router.add_post(CONFIG_PATH, self._validate_config)
        app.router.add_get("/healthz", self._health)
        return app

    def _on_config_map(self, key: str, old: ConfigMap | None, new: ConfigMap | None) -> None:
        name = key.rpartition("/")[2]
        try:
            changed = self._store.update(name, None if new is None else new.data)
        except ConfigError as error:
            log.error("webhook: %s keeps its last good value: %s=%r: %s", name, error.key, error.value, error)
            return
        if changed:
            log.info("webhook: %s changed", name)

    async def _default(self, http: web.Request) -> web.Response:
        review = await _read(http)
        await self._wait_for_config()
        return _answer(review, admission.defaulting_response(review.request, self.config))

    async def _validate(self, http: web.Request) -> web.Response:
        review = await _read(http)
        await self._wait_for_config()
        response = admission.validation_response(review.request, self.config)
        if response["allowed"]:
            denial = await self._try_pod(review.request)
            if denial is not None:
                response = {**response, **denial}
        return _answer(review, response)

    async def _validate_config(self, http: web.Request) -> web.Response:
        # Needs no configuration of its own, so that the ConfigMaps can be created before anything else runs.
        review = await _read(http)
        return _answer(review, admission.config_response(review.request))

    async def _health(self, http: web.Request) -> web.Response:
        if self._configs.synced.is_set():
            return web.Response(text="ok")
        return web.Response(status=503, text="the ConfigMaps of knative-serving are not known yet")

    async def _wait_for_config(self) -> None:
        if self._configs.synced.is_set():
            return
        try:
            async with asyncio.timeout(_SYNC_TIMEOUT_SECONDS):
                await self._configs.synced.wait()
        except TimeoutError:
            text = "the ConfigMaps of knative-serving are not known yet; is the API server reachable?"
            raise web.HTTPServiceUnavailable(text=text) from None

    async def _try_pod(self, request: AdmissionRequest) -> JsonObject | None:
        """A server-side dry run also asks whether the API server would take the Pod."""
        pod = admission.pod_to_try(request, self.config)
        if pod is None:
            return None
        try:
            await self._client.create(PODS, pod, request.namespace, dry_run=True)
        except ApiError as error:
            # Another webhook on Pods may refuse dry runs; that says nothing about this Pod.
            return (
                None if "does not support dry run" in str(error) else admission.dry_run_denial(request, str(error))
            )
        except KubeError as error:
            return admission.dry_run_denial(request, str(error))
        return None


async def _read(http: web.Request) -> AdmissionReview:
    body = await http.read()
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"could not decode body: {error}") from error


def _answer(review: AdmissionReview, response: JsonObject) -> web.Response:
    body: Any = admission.review(response, api_version=review.api_version)
    return web.Response(body=_encoder.encode(body), content_type="application/json")
