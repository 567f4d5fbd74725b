"""Who may use the kubelet's API: the permissions, reviews that are remembered, certificates, and TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.api.meta import JsonObject
from serving.api.resources import Resource
from serving.kube.errors import Unreachable
from serving.local.node.kubelet_access import (
    Permission,
    Requester,
    access_review,
    needed,
    requester_of_certificate,
    requester_of_review,
)
from serving.local.node.kubelet_auth import KubeletAuth
from serving.local.node.kubelet_tls import KubeletTls, client_authority, server_context
from tests.local.node.fakes import FakeKube

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresources"),
    [
        ("GET", "/pods", "get", ("pods", "proxy")),
        ("GET", "/healthz", "get", ("healthz", "proxy")),
        ("GET", "/stats/summary", "get", ("stats",)),
        ("GET", "/metrics/resource", "get", ("metrics",)),
        ("GET", "/containerLogs/ns/pod/c", "get", ("proxy",)),
        ("POST", "/exec/ns/pod/c", "create", ("proxy",)),
        ("GET", "/exec/ns/pod/c", "create", ("proxy",)),
        ("GET", "/attach/ns/pod/c", "create", ("proxy",)),
        ("GET", "/portForward/ns/pod", "create", ("proxy",)),
        ("POST", "/run/ns/pod/c", "create", ("proxy",)),
        ("GET", "/execution", "get", ("proxy",)),
        ("BREW", "/pods", "", ("pods", "proxy")),
    ],
)
def test_what_a_request_needs(method: str, path: str, verb: str, subresources: tuple[str, ...]) -> None:
    assert needed(method, path) == Permission(verb, subresources)


def test_reviews() -> None:
    requester = Requester(name="u", groups=("g",), uid="1", extra=(("k", ("v",)),))
    assert access_review(requester, verb="get", subresource="proxy", node="n")["spec"] == {
        "user": "u",
        "groups": ["g"],
        "uid": "1",
        "extra": {"k": ["v"]},
        "resourceAttributes": {
            "verb": "get",
            "group": "",
            "version": "v1",
            "resource": "nodes",
            "subresource": "proxy",
            "name": "n",
        },
    }
    user = {"username": "u", "groups": ["g"], "uid": "1", "extra": {"k": ["v"]}}
    assert requester_of_review({"authenticated": True, "user": user}) == requester
    assert requester_of_review({"authenticated": False, "user": user}) is None
    assert requester_of_review({"authenticated": True}) is None
    assert requester_of_review({}) is None


def test_certificates() -> None:
    subject = ((("organizationName", "system:masters"),), (("commonName", "api"),))
    found = requester_of_certificate({"subject": subject})
    assert found == Requester(name="api", groups=("system:masters", "system:authenticated"))
    assert requester_of_certificate({"subject": subject[:1]}) is None


class Authority(FakeKube):
    """Answers reviews: the token `good` is Alice's, who may `get nodes/metrics`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.broken = False

    async def create(
        self, resource: Resource, body: JsonObject, namespace: str = "", *, dry_run: bool = False
    ) -> JsonObject:
        await asyncio.sleep(0)
        if self.broken:
            raise Unreachable("gone")
        self.asked.append(resource.kind)
        if resource.kind == "TokenReview":
            good = body["spec"]["token"] == "good"
            return {"status": {"authenticated": good, "user": {"username": "alice"} if good else {}}}
        attributes = body["spec"]["resourceAttributes"]
        allowed = body["spec"]["user"] == "api" or (attributes["verb"], attributes["subresource"]) == (
            "get",
            "metrics",
        )
        return {"status": {"allowed": allowed}}


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Pki:
    """An authority and a client's certificate."""

    def __init__(self, directory: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clients")])
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        certificate = _certificate(name, name, key.public_key()).add_extension(constraint, critical=True)
        self.authority = certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        self.client = self._issue(directory / "client.pem", name, key)
        stranger = ec.generate_private_key(ec.SECP256R1())
        self.stranger = self._issue(directory / "stranger.pem", name, stranger)

    def _issue(self, path: Path, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api")])
        certificate = _certificate(subject, issuer, key.public_key()).sign(signer, hashes.SHA256())
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        path.write_bytes(private + certificate.public_bytes(pem))
        return path


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )


class Served:
    def __init__(self, kube: Authority, clock: Clock, port: int) -> None:
        self.kube = kube
        self.clock = clock
        self._port = port

    async def get(self, path: str, token: str = "", certificate: Path | None = None) -> tuple[int, str]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if certificate is not None:
            await asyncio.to_thread(context.load_cert_chain, certificate)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"https://127.0.0.1:{self._port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=context) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def served(directory: Path, authority: str) -> AsyncIterator[Served]:
    kube, clock = Authority(), Clock()
    application = web.Application(middlewares=[KubeletAuth(kube, node="n", now=clock).middleware])

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="served")

    application.router.add_get("/{path:.*}", handler)
    context = await asyncio.to_thread(
        server_context,
        KubeletTls(),
        directory=directory / "tls",
        hosts=("127.0.0.1", "n"),
        client_authority=authority,
        now=datetime.now(UTC),
    )
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield Served(kube, clock, runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def test_tokens(tmp_path: Path) -> None:
    async with served(tmp_path, "") as it:
        assert await it.get("/pods") == (401, "Unauthorized")
        assert await it.get("/pods", "bad") == (401, "Unauthorized")
        assert await it.get("/metrics", "good") == (200, "served")
        forbidden = "Forbidden (user=alice, verb=get, resource=nodes, subresource(s)=[pods proxy])"
        assert await it.get("/pods", "good") == (403, forbidden)
        reviews = ["TokenReview"] * 2 + ["SubjectAccessReview"] * 3
        assert sorted(it.kube.asked, reverse=True) == reviews, "no question is asked twice"
        it.kube.broken = True
        assert await it.get("/metrics", "good") == (200, "served")
        it.clock.now = 121.0
        status, text = await it.get("/metrics", "good")
        assert (status, text.startswith("Authorization error: ")) == (500, True)
        it.kube.broken = False
        assert await it.get("/metrics", "good") == (200, "served")


async def test_client_certificates(tmp_path: Path) -> None:
    pki = await asyncio.to_thread(Pki, tmp_path)
    async with served(tmp_path, pki.authority) as it:
        assert await it.get("/pods", certificate=pki.client) == (200, "served")
        assert await it.get("/pods") == (401, "Unauthorized")
        assert it.kube.asked == ["SubjectAccessReview"]
        with pytest.raises(aiohttp.ClientError):
            await it.get("/pods", certificate=pki.stranger)


async def test_whose_certificates_the_cluster_says() -> None:
    kube = FakeKube()
    assert await client_authority(kube) == ""
    where = Resource("", "v1", "configmaps", "ConfigMap")
    meta: dict[str, Any] = {"name": "extension-apiserver-authentication", "namespace": "kube-system"}
    kube.put(where, {"metadata": meta, "data": {"client-ca-file": "PEM"}})
    assert await client_authority(kube) == "PEM"


def test_an_own_certificate_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        server_context(KubeletTls(), directory=tmp_path, hosts=("127.0.0.1",), client_authority="", now=NOW)
        first = (tmp_path / "server.crt").read_bytes()
    assert (tmp_path / "server.crt").read_bytes() == first
    given = KubeletTls(certificate=tmp_path / "server.crt", key=tmp_path / "server.key")
    server_context(given, directory=tmp_path / "other", hosts=("127.0.0.1",), client_authority="", now=NOW)
    assert not (tmp_path / "other").exists()
