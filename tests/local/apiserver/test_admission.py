"""Admission webhooks, asked over real HTTP and TLS."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import pki
from tests.local.apiserver.objects import config_map, pod, widget
from tests.local.apiserver.requests import CONFIG_MAPS, PODS, WIDGETS, Api

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
Answer = Callable[[JsonObject], JsonObject]


class Webhook:
    """Records what it is asked; `answers[path]` decides."""

    def __init__(self) -> None:
        self.asked: list[JsonObject] = []
        self.queries: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        review = msgspec.json.decode(await request.read())
        self.asked.append(review["request"])
        self.queries.append(request.query_string)
        answer = self.answers[request.path](review["request"])
        if "raw" in answer:
            return web.Response(status=answer.get("status", 200), body=answer["raw"])
        response = {"uid": review["request"]["uid"], "allowed": True, **answer}
        return web.json_response(
            {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
        )


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[Webhook]:
    webhook = Webhook()
    app = web.Application()
    app.router.add_post("/{name}", webhook.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        webhook.url = f"{'https' if context else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        yield webhook
    finally:
        await runner.cleanup()


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    async with serving() as made:
        yield made


def patch(*operations: JsonObject) -> JsonObject:
    data = base64.b64encode(msgspec.json.encode(operations)).decode()
    return {"patchType": "JSONPatch", "patch": data}


def hook(name: str, url: str, *, resources: tuple[str, ...] = ("widgets",), **fields: Any) -> JsonObject:
    rule = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": list(resources)}
    return {
        "name": name,
        "clientConfig": {"url": url},
        "rules": [rule],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **fields,
    }


async def register(api: Api, *hooks: JsonObject, mutating: bool = False, name: str = "test") -> None:
    kind = "Mutating" if mutating else "Validating"
    body = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": list(hooks),
    }
    await api.create(f"{CONFIGURATIONS}/{kind.lower()}webhookconfigurations", body)


async def test_what_a_webhook_is_sent(widgets: Api, webhook: Webhook) -> None:
    webhook.answers["/v"] = lambda asked: {}
    await register(widgets, hook("v.test.dev", f"{webhook.url}/v", resources=("widgets", "widgets/status")))
    made = await widgets.create(WIDGETS, widget("w", size=1))
    changed = await widgets.patch(f"{WIDGETS}/w", {"spec": {"size": 2}})
    await widgets.patch(f"{WIDGETS}/w/status", {"status": {"ready": True}})
    await widgets.delete(f"{WIDGETS}/w")
    create, update, status, delete = webhook.asked
    gvk = {"group": "example.dev", "version": "v1", "kind": "Widget"}
    gvr = {"group": "example.dev", "version": "v1", "resource": "widgets"}
    for asked in webhook.asked:
        assert (asked["kind"], asked["requestKind"], asked["resource"]) == (gvk, gvk, gvr)
        assert (asked["name"], asked["namespace"], asked["dryRun"]) == ("w", "default", False)
        assert asked["userInfo"]["username"] == "nodeless:admin"
    assert (create["operation"], create["oldObject"]) == ("CREATE", None)
    assert create["object"]["metadata"]["uid"] == made["metadata"]["uid"]
    assert create["options"] == {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}
    assert (update["operation"], update["oldObject"], update["object"]["spec"]) == ("UPDATE", made, {"size": 2})
    assert update["object"]["metadata"]["generation"] == changed["metadata"]["generation"] == 2
    assert status["subResource"] == "status"
    assert (delete["operation"], delete["object"], delete["oldObject"]["spec"]) == ("DELETE", None, {"size": 2})
    assert webhook.queries == ["timeout=10s"] * 4


async def test_mutation_defaults_prunes_and_keeps_identity(widgets: Api, webhook: Webhook) -> None:
    webhook.answers["/m"] = lambda asked: patch(
        {"op": "add", "path": "/spec/parts", "value": [{"name": "a", "bogus": 1}]},
        {"op": "replace", "path": "/metadata/uid", "value": "other"},
        {"op": "add", "path": "/metadata/annotations", "value": {"by": asked["userInfo"]["username"]}},
    )
    await register(widgets, hook("m.test.dev", f"{webhook.url}/m"), mutating=True)
    made = await widgets.create(WIDGETS, widget("w"))
    assert made["spec"]["parts"] == [{"name": "a", "weight": 10}]
    assert made["metadata"]["annotations"] == {"by": "nodeless:admin"}
    assert made["metadata"]["uid"] != "other"


async def test_a_mutation_that_breaks_the_schema_is_refused(widgets: Api, webhook: Webhook) -> None:
    webhook.answers["/m"] = lambda asked: patch({"op": "add", "path": "/spec/colour", "value": "green"})
    await register(widgets, hook("m.test.dev", f"{webhook.url}/m"), mutating=True)
    answer = await widgets.send("POST", WIDGETS, widget("w"))
    assert (answer.status, "spec.colour: Unsupported value" in answer.message) == (422, True)


async def test_mutating_webhooks_build_on_each_other(widgets: Api, webhook: Webhook) -> None:
    def append(mark: str) -> Answer:
        def answer(asked: JsonObject) -> JsonObject:
            trail = (asked["object"]["metadata"].get("annotations") or {}).get("trail", "") + mark
            return patch({"op": "add", "path": "/metadata/annotations", "value": {"trail": trail}})

        return answer

    webhook.answers |= {"/a": append("a"), "/b": append("b")}
    await register(widgets, hook("b.dev", f"{webhook.url}/b"), mutating=True, name="2")
    await register(
        widgets, hook("a.dev", f"{webhook.url}/a", reinvocationPolicy="IfNeeded"), mutating=True, name="1"
    )
    made = await widgets.create(WIDGETS, widget("w"))
    assert made["metadata"]["annotations"] == {"trail": "aba"}


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        ({"allowed": False}, 403, 'admission webhook "v.test.dev" denied the request without explanation'),
        (
            {"allowed": False, "status": {"message": "validation failed: x", "code": 400}},
            400,
            'admission webhook "v.test.dev" denied the request: validation failed: x',
        ),
        (
            {"allowed": False, "status": {"message": "wait", "code": 429}},
            429,
            'admission webhook "v.test.dev" denied the request: wait',
        ),
        ({"uid": "other"}, 500, 'failed calling webhook "v.test.dev": expected response.uid='),
        (
            {"raw": b"no json"},
            500,
            'failed calling webhook "v.test.dev": failed to call webhook: the answer is not',
        ),
        ({"raw": b"{}"}, 500, 'failed calling webhook "v.test.dev": webhook response has no response field'),
        ({"raw": b"sorry", "status": 503}, 500, "the server answered 503: sorry"),
    ],
)
async def test_refusals(widgets: Api, webhook: Webhook, answer: JsonObject, code: int, message: str) -> None:
    webhook.answers["/v"] = lambda asked: answer
    await register(widgets, hook("v.test.dev", f"{webhook.url}/v"))
    refused = await widgets.send("POST", WIDGETS, widget("w"))
    assert (refused.status, refused.json["code"]) == (code, code)
    assert message in refused.message
    assert (await widgets.get(WIDGETS))["items"] == []


async def test_warnings_and_ignored_failures(widgets: Api, webhook: Webhook) -> None:
    webhook.answers["/v"] = lambda asked: {"warnings": ['say "so"']}
    await register(
        widgets,
        hook("v.dev", f"{webhook.url}/v"),
        hook("gone.dev", "http://127.0.0.1:1/x", failurePolicy="Ignore"),
        hook("service.dev", "", clientConfig={"service": {"namespace": "a", "name": "b"}}, failurePolicy="Ignore"),
    )
    answer = await widgets.send("POST", WIDGETS, widget("w"))
    assert (answer.status, answer.warnings) == (201, ['299 - "say \\"so\\""'])


async def test_an_unreachable_webhook_fails_the_request(widgets: Api) -> None:
    await register(widgets, hook("v.dev", "http://127.0.0.1:1/x"))
    answer = await widgets.send("POST", WIDGETS, widget("w"))
    assert answer.status == 500
    assert (
        'failed calling webhook "v.dev": failed to call webhook: Post "http://127.0.0.1:1/x?timeout=10s"'
        in answer.message
    )
    await widgets.patch(
        f"{CONFIGURATIONS}/validatingwebhookconfigurations/test",
        [{"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": "http://example.dev/x"}],
        media="application/json-patch+json",
    )
    answer = await widgets.send("POST", WIDGETS, widget("w"))
    assert "must use https, http is for loopback only" in answer.message
    await widgets.delete(f"{CONFIGURATIONS}/validatingwebhookconfigurations/test")
    await widgets.create(WIDGETS, widget("w"))


async def test_timeouts(widgets: Api) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        await register(widgets, hook("slow.dev", f"http://127.0.0.1:{port}/x", timeoutSeconds=1))
        answer = await widgets.send("POST", WIDGETS, widget("w"))
    assert (answer.status, "context deadline exceeded" in answer.message) == (500, True)


async def test_selectors_and_rules(widgets: Api, webhook: Webhook) -> None:
    webhook.answers["/v"] = lambda asked: {"allowed": False}
    url = f"{webhook.url}/v"
    await register(
        widgets,
        hook("a.dev", url, objectSelector={"matchLabels": {"checked": "yes"}}),
        hook("b.dev", url, resources=("configmaps",), namespaceSelector={"matchLabels": {"strict": "yes"}}),
        hook("c.dev", url, resources=("pods/eviction",)),
    )
    await widgets.create(WIDGETS, widget("free"))
    checked = widget("checked")
    checked["metadata"]["labels"] = {"checked": "yes"}
    assert (await widgets.send("POST", WIDGETS, checked)).status == 403
    await widgets.create("/api/v1/namespaces", {"metadata": {"name": "n", "labels": {"strict": "yes"}}})
    await widgets.create(CONFIG_MAPS, config_map("c"))
    assert (await widgets.send("POST", "/api/v1/namespaces/n/configmaps", config_map("c"))).status == 403
    await widgets.create(PODS, pod("p"))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    assert (await widgets.send("POST", f"{PODS}/p/eviction", eviction)).status == 403
    assert webhook.asked[-1]["kind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
    await widgets.delete(f"{PODS}/p")


async def test_dry_run(widgets: Api, webhook: Webhook) -> None:
    webhook.answers["/v"] = lambda asked: {}
    await register(widgets, hook("v.dev", f"{webhook.url}/v"))
    await widgets.create(WIDGETS, widget("w"), dryRun="All")
    assert webhook.asked[0]["dryRun"] is True
    assert webhook.asked[0]["options"]["dryRun"] == ["All"]


async def test_many_requests_at_once(widgets: Api, webhook: Webhook) -> None:
    webhook.answers["/m"] = lambda asked: patch(
        {"op": "add", "path": "/spec/replicas", "value": int(asked["name"].removeprefix("w"))}
    )
    await register(widgets, hook("m.dev", f"{webhook.url}/m"), mutating=True)
    made = await asyncio.gather(*(widgets.create(WIDGETS, widget(f"w{number}")) for number in range(40)))
    assert [obj["spec"]["replicas"] for obj in made] == list(range(40))


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls(widgets: Api, tmp_path: Path, trusted: bool) -> None:
    def certificates(name: str) -> tuple[ssl.SSLContext, str]:
        files = pki.ensure(tmp_path / name, hosts=("127.0.0.1",), now=datetime.now(UTC))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.certificate, files.key)
        return context, base64.b64encode(files.authority.read_bytes()).decode()

    context, bundle = await asyncio.to_thread(certificates, "good")
    _, stranger = await asyncio.to_thread(certificates, "bad")
    async with serving(context) as webhook:
        webhook.answers["/v"] = lambda asked: {}
        config = {"url": f"{webhook.url}/v", "caBundle": bundle if trusted else stranger}
        await register(widgets, hook("v.dev", "", clientConfig=config))
        answer = await widgets.send("POST", WIDGETS, widget("w"))
    assert answer.status == (201 if trusted else 500)
    assert trusted or "failed calling webhook" in answer.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sideEffects": "Some"}, "webhooks[0].sideEffects: Unsupported value"),
        ({"clientConfig": {}}, "exactly one of url or service is required"),
        ({"admissionReviewVersions": []}, "webhooks[0].admissionReviewVersions: Required value"),
        ({"matchConditions": [{"name": "x", "expression": "true"}]}, "webhooks[0].matchConditions: Forbidden"),
    ],
)
async def test_bad_configurations(api: Api, fields: JsonObject, message: str) -> None:
    body = {"metadata": {"name": "x"}, "webhooks": [{**hook("v.dev", "https://127.0.0.1/x"), **fields}]}
    answer = await api.send("POST", f"{CONFIGURATIONS}/validatingwebhookconfigurations", body)
    assert (answer.status, message in answer.message) == (422, True), answer.message


async def test_a_webhook_named_by_its_service(widgets: Api, tmp_path: Path) -> None:
    def made() -> tuple[ssl.SSLContext, str]:
        files = pki.ensure(tmp_path / "tls", hosts=("hooks.system.svc",), now=datetime.now(UTC))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        return context, base64.b64encode(files.authority.read_bytes()).decode()

    context, bundle = await asyncio.to_thread(made)
    target = {"namespace": "system", "name": "hooks", "path": "/v"}
    await register(
        widgets, hook("v.dev", "", clientConfig={"service": target, "caBundle": bundle}, timeoutSeconds=5)
    )
    absent = await widgets.send("POST", WIDGETS, widget("w"))
    assert absent.message == (
        'Internal error occurred: failed calling webhook "v.dev": failed to call webhook: Post '
        '"https://hooks.system.svc:443/v": service "hooks" not found'
    )
    await widgets.create("/api/v1/namespaces", {"metadata": {"name": "system"}})
    service = {"metadata": {"name": "hooks"}, "spec": {"ports": [{"name": "https", "port": 443}]}}
    await widgets.create("/api/v1/namespaces/system/services", service)
    assert "no endpoints available" in (await widgets.send("POST", WIDGETS, widget("w"))).message
    async with serving(context) as webhook:
        webhook.answers["/v"] = lambda asked: {"allowed": False, "status": {"message": "asked"}}
        port = int(webhook.url.rsplit(":", 1)[1])
        endpoints = {
            "metadata": {"name": "hooks-1", "labels": {"kubernetes.io/service-name": "hooks"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }
        await widgets.create("/apis/discovery.k8s.io/v1/namespaces/system/endpointslices", endpoints)
        denied = await widgets.send("POST", WIDGETS, widget("w"))
        assert denied.message == 'admission webhook "v.dev" denied the request: asked'
