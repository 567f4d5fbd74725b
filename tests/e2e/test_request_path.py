"""What a request goes through: headers, protocols, time-outs; warm, and where it matters as the one that wakes."""

from __future__ import annotations

import asyncio
import re
import socket
from urllib.parse import urlsplit

import pytest

from serving.api.meta import JsonObject
from tests.e2e.cluster import Cluster
from tests.e2e.contract import ask, contract
from tests.e2e.http import Gateway

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def _raw(gateway: Gateway, request: bytes, *, until: bytes = b"") -> bytes:
    """The bytes that come back, to the end of the connection or up to `until`."""
    address = urlsplit(gateway.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await (reader.readuntil(until) if until else reader.read())
    finally:
        writer.close()


async def test_headers(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    await cluster.deploy(contract(name, image=python_image))
    sent = {
        "X-Own": 'a,b; c="d"  e',
        "traceparent": TRACE,
        "tracestate": "x=y",
        "x-request-id": "mine",
        "Knative-Serving-Revision": "forged",
        "K-Proxy-Request": "forged",
        "X-Large": "y" * 60_000,
    }
    answer = await gateway.get(name, "/request", headers=sent)
    assert answer.status == 200
    seen = dict(
        (await ask(gateway, name, "/request", **{k.replace("-", "_"): v for k, v in sent.items()}))["headers"]
    )
    assert seen["host"] == gateway.host(name)
    assert seen["x-own"] == sent["X-Own"]
    assert seen["x-large"] == sent["X-Large"]
    assert (seen["traceparent"], seen["tracestate"], seen["x-request-id"]) == (TRACE, "x=y", "mine")
    assert seen["x-forwarded-proto"] == "http"
    assert all(re.fullmatch(r"[0-9.]+|[0-9a-f:]+", part.strip()) for part in seen["x-forwarded-for"].split(","))
    assert re.fullmatch(r'for="[^"]+";host="[^"]+";proto=http', seen["forwarded"])
    assert not seen.keys() & {"knative-serving-revision", "k-proxy-request", "x-envoy-external-address"}
    assert not any(key.startswith(("x-envoy", "x-nodeless")) for key in seen)
    first = dict((await ask(gateway, name, "/request"))["headers"])
    assert re.fullmatch(r"[0-9a-f-]{36}", first["x-request-id"])


async def test_a_proxy_in_front_is_kept_in_forwarded(
    cluster: Cluster, gateway: Gateway, name: str, python_image: str
) -> None:
    await cluster.deploy(contract(name, image=python_image))
    seen = (await ask(gateway, name, "/request", Forwarded="for=192.0.2.7;proto=https"))["headers"]
    assert dict(seen)["forwarded"] == "for=192.0.2.7;proto=https"


async def test_old_and_careful_clients(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    await cluster.deploy(contract(name, image=python_image))
    host = gateway.host(name).encode()
    old = await _raw(gateway, b"GET /request HTTP/1.0\r\nHost: " + host + b"\r\n\r\n")
    assert old.startswith(b"HTTP/1.0 200")
    assert b'"version": "HTTP/1.1"' in old
    careful = b"POST / HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    assert (await _raw(gateway, careful, until=b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    trailers = b"POST / HTTP/1.1\r\nHost: " + host + b"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = await _raw(gateway, trailers + b"0\r\nX-Trailer: t\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "from zero"])
async def test_timeouts(cluster: Cluster, gateway: Gateway, name: str, python_image: str, cold: bool) -> None:
    spec = {"timeoutSeconds": 8, "responseStartTimeoutSeconds": 4, "idleTimeoutSeconds": 3}
    await cluster.deploy(contract(name, image=python_image, spec=spec))

    async def answer(path: str) -> tuple[int, str]:
        if cold:
            await cluster.at_zero(name)
        found = await gateway.get(name, path)
        return found.status, found.text

    assert await answer("/wait?before=0.5&after=1&parts=3") == (200, "part part part ")
    if cold:
        return
    assert await answer("/wait?before=3.7") == (504, "request timeout")  # idle: nothing moves for 3 s
    assert await answer("/wait?before=0&after=2&parts=6") == (200, "part " * 6)  # longer than timeoutSeconds


async def test_a_response_that_starts_too_late(
    cluster: Cluster, gateway: Gateway, name: str, python_image: str
) -> None:
    spec = {"timeoutSeconds": 8, "responseStartTimeoutSeconds": 2}
    await cluster.deploy(contract(name, image=python_image, spec=spec))
    late = await gateway.get(name, "/wait?before=4")
    assert (late.status, late.text) == (504, "request timeout")
    assert 1.9 <= late.seconds < 3.9
    assert (await gateway.get(name, "/wait?before=0&after=3&parts=2")).status == 200


async def test_a_port_named_http1(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    container: JsonObject = {"ports": [{"name": "http1", "containerPort": 8080}]}
    await cluster.deploy(contract(name, image=python_image, container=container))
    assert (await ask(gateway, name, "/request"))["version"] == "HTTP/1.1"


async def test_http2_with_prior_knowledge_reaches_an_http1_app(
    cluster: Cluster, gateway: Gateway, name: str, python_image: str
) -> None:
    """Connection preface and an empty SETTINGS frame are answered with SETTINGS."""
    await cluster.deploy(contract(name, image=python_image))
    address = urlsplit(gateway.url)
    with socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=10) as wire:
        wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        frame = wire.recv(9)
    assert frame[3] == 4
