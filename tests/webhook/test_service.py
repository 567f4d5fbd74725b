"""The webhook as a real server, over HTTP and TLS, following ConfigMaps of a small API server."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.api.meta import JsonObject
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from serving.webhook.configurations import service_webhook_configurations, webhook_configurations
from serving.webhook.service import WebhookSettings, run


class ConfigMapServer:
    """Lists and watches the ConfigMaps of knative-serving; refuses every Pod whose image is `refused`."""

    def __init__(self) -> None:
        self.items: dict[str, JsonObject] = {}
        self.version = 1
        self.pods: list[JsonObject] = []
        self.answering = asyncio.Event()
        self.answering.set()
        self._changed = asyncio.Event()
        self._events: list[JsonObject] = []

    def set(self, name: str, data: dict[str, str]) -> None:
        self.version += 1
        meta = {"name": name, "namespace": "knative-serving", "resourceVersion": str(self.version)}
        item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
        self._events.append({"type": "MODIFIED" if name in self.items else "ADDED", "object": item})
        self.items[name] = item
        self._changed.set()

    async def config_maps(self, http: web.Request) -> web.StreamResponse:
        await self.answering.wait()
        if "watch" not in http.query:
            listing = {"metadata": {"resourceVersion": str(self.version)}, "items": list(self.items.values())}
            return web.json_response({"kind": "ConfigMapList", "apiVersion": "v1", **listing})
        response = web.StreamResponse()
        await response.prepare(http)
        sent = int(http.query["resourceVersion"])
        while True:
            self._changed.clear()
            for event in self._events:
                version = int(event["object"]["metadata"]["resourceVersion"])
                if version > sent:
                    await response.write(msgspec.json.encode(event) + b"\n")
                    sent = version
            await self._changed.wait()

    async def create_pod(self, http: web.Request) -> web.Response:
        assert http.query["dryRun"] == "All"
        pod = await http.json()
        self.pods.append(pod)
        if pod["spec"]["containers"][0]["image"] == "refused.io/aa":
            status = {"kind": "Status", "message": "pods is forbidden: exceeded quota", "reason": "Forbidden"}
            return web.json_response(status, status=403)
        return web.json_response(pod, status=201)


Post = Callable[[str, Any], Any]


@asynccontextmanager
async def api_server(path: Path) -> AsyncIterator[ConfigMapServer]:
    fake = ConfigMapServer()
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/knative-serving/configmaps", fake.config_maps)
    app.router.add_post("/api/v1/namespaces/default/pods", fake.create_pod)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield fake
    finally:
        await runner.cleanup()


@asynccontextmanager
async def webhook(socket: Path, settings: WebhookSettings) -> AsyncIterator[str]:
    async with KubeClient(over_unix_socket(socket, token="t")) as client:
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(run(settings, client=client, on_started=started.set_result))
        pending: set[asyncio.Future[Any]] = {task, started}
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        try:
            if task.done():
                await task
            yield await started
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def review(obj: Any, **more: Any) -> JsonObject:
    request = {
        "uid": "u-1",
        "operation": "CREATE",
        "kind": {"group": "serving.knative.dev", "version": "v1", "kind": "Service"},
        "namespace": "default",
        "userInfo": {"username": "alice"},
        "object": obj,
        "oldObject": None,
        **more,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def service(image: str = "busybox") -> JsonObject:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "svc", "namespace": "default"},
        "spec": {
            "template": {"spec": {"containers": [{"image": image}]}},
            "traffic": [{"latestRevision": True, "percent": 100}],
        },
    }


async def ask(url: str, path: str, body: Any, tls: ssl.SSLContext | None = None) -> JsonObject:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + path, json=body, ssl=tls or True) as response,
    ):
        assert response.status == 200, await response.text()
        answer = await response.json()
    assert answer["apiVersion"] == "admission.k8s.io/v1"
    assert answer["kind"] == "AdmissionReview"
    assert answer["response"]["uid"] == "u-1"
    result: JsonObject = answer["response"]
    return result


async def timeout_seconds_given(url: str) -> int:
    response = await ask(url, "/defaulting", review(service()))
    patch = msgspec.json.decode(base64.b64decode(response["patch"]))
    values = {step["path"]: step["value"] for step in patch}
    found: int = values["/spec/template/spec/timeoutSeconds"]
    return found


async def test_it_defaults_validates_and_checks_config_maps(tmp_path: Path) -> None:
    async with api_server(tmp_path / "api"), webhook(tmp_path / "api", WebhookSettings()) as url:
        assert await timeout_seconds_given(url) == 300
        assert (await ask(url, "/resource-validation", review(service())))["allowed"]
        bad = service()
        bad["spec"]["traffic"][0]["percent"] = 99
        denial = await ask(url, "/resource-validation", review(bad))
        assert denial["status"]["message"] == (
            "validation failed: Traffic targets sum to 99, want 100: spec.traffic"
        )
        config_map = {"metadata": {"name": "config-gc"}, "data": {"min-non-active-revisions": "x"}}
        kind = {"group": "", "version": "v1", "kind": "ConfigMap"}
        denial = await ask(url, "/config-validation", review(config_map, kind=kind, namespace="knative-serving"))
        assert denial["status"]["code"] == 400


async def test_config_maps_are_followed_and_a_bad_edit_keeps_the_last_good_value(tmp_path: Path) -> None:
    async with api_server(tmp_path / "api") as api:
        api.set("config-defaults", {"revision-timeout-seconds": "60"})
        async with webhook(tmp_path / "api", WebhookSettings()) as url:
            assert await timeout_seconds_given(url) == 60
            api.set("config-defaults", {"revision-timeout-seconds": "9000"})
            api.set("config-features", {"multi-container": "disabled"})
            api.set("config-defaults", {"revision-timeout-seconds": "70"})
            async with asyncio.timeout(5):
                while await timeout_seconds_given(url) == 60:
                    await asyncio.sleep(0.01)
            assert await timeout_seconds_given(url) == 70


async def test_requests_wait_for_the_config_maps_but_not_those_about_config_maps(tmp_path: Path) -> None:
    async with api_server(tmp_path / "api") as api:
        api.answering.clear()
        api.set("config-defaults", {"revision-timeout-seconds": "60"})
        async with webhook(tmp_path / "api", WebhookSettings()) as url, aiohttp.ClientSession() as session:
            async with session.get(url + "/healthz") as response:
                assert response.status == 503
            kind = {"group": "", "version": "v1", "kind": "ConfigMap"}
            body = review({"metadata": {"name": "config-gc"}}, kind=kind, namespace="knative-serving")
            assert (await ask(url, "/config-validation", body))["allowed"]
            waiting = asyncio.create_task(timeout_seconds_given(url))
            done, _ = await asyncio.wait({waiting}, timeout=0.05)
            assert not done
            api.answering.set()
            assert await waiting == 60
            async with session.get(url + "/healthz") as response:
                assert response.status == 200


async def test_a_dry_run_asks_whether_the_pod_would_be_taken(tmp_path: Path) -> None:
    async with api_server(tmp_path / "api") as api, webhook(tmp_path / "api", WebhookSettings()) as url:
        assert (await ask(url, "/resource-validation", review(service(), dryRun=True)))["allowed"]
        assert len(api.pods) == 1
        denial = await ask(url, "/resource-validation", review(service("refused.io/aa"), dryRun=True))
        assert denial["status"]["message"] == (
            "validation callback failed: dry run failed with pods is forbidden: exceeded quota: spec.template"
        )


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"request": null}', b"[" * 100_000, b'{"request": {}}'])
async def test_a_body_that_is_no_review_is_a_bad_request(tmp_path: Path, body: bytes) -> None:
    async with (
        api_server(tmp_path / "api"),
        webhook(tmp_path / "api", WebhookSettings()) as url,
        aiohttp.ClientSession() as session,
        session.post(url + "/defaulting", data=body) as response,
    ):
        assert response.status == 400
        assert (await response.text()).startswith("could not decode body:")


def certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "webhook")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = directory / "tls.crt", directory / "tls.key"
    certificate_path.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate_path, key_path


async def test_it_speaks_tls(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    settings = WebhookSettings(certificate=cert, key=key)
    async with api_server(tmp_path / "api"), webhook(tmp_path / "api", settings) as url:
        assert url.startswith("https://127.0.0.1:")
        tls = ssl.create_default_context(cafile=str(cert))
        local = url.replace("127.0.0.1", "localhost")
        assert (await ask(local, "/resource-validation", review(service()), tls))["allowed"]


async def test_half_a_key_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="certificate and key"):
        async with webhook(tmp_path / "api", WebhookSettings(certificate=tmp_path / "x")):
            pass


def test_configurations_have_upstreams_names() -> None:
    names = [
        "webhook.serving.knative.dev",
        "validation.webhook.serving.knative.dev",
        "config.webhook.serving.knative.dev",
    ]
    found = webhook_configurations("https://127.0.0.1:1/", "Q0E=")
    assert [item["metadata"]["name"] for item in found] == names
    assert [item["webhooks"][0]["name"] for item in found] == names
    clients = [item["webhooks"][0]["clientConfig"] for item in found]
    assert clients[0] == {"url": "https://127.0.0.1:1/defaulting", "caBundle": "Q0E="}
    assert clients[1]["url"] == "https://127.0.0.1:1/resource-validation"
    assert "caBundle" not in webhook_configurations("http://x", None)[0]["webhooks"][0]["clientConfig"]
    service_client = service_webhook_configurations()[2]["webhooks"][0]["clientConfig"]
    assert service_client == {
        "service": {"name": "webhook", "namespace": "knative-serving", "path": "/config-validation"}
    }
