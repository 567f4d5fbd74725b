"""The pods' resolver over real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from serving.local.network.resolver import MISSING, Found, Resolver, host_resolvers

NAMES = {
    "hello.default": Found(addresses=("198.18.0.1",)),
    "alias.default": Found(alias="hello.default.svc.cluster.local"),
    "outside.default": Found(alias="example.org"),
    "loop.default": Found(alias="loop.default.svc.cluster.local"),
    "empty.default": Found(),
}


def lookup(name: str) -> Found | None:
    if not name.endswith(".cluster.local"):
        return None
    return NAMES.get(name.removesuffix(".svc.cluster.local"), MISSING)


class _Upstream(asyncio.DatagramProtocol):
    """Answers every question with 192.0.2.7."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "A", "192.0.2.7"))
        self.transport.sendto(reply.to_wire(), addr)


def _bound(kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def _resolver(*, upstream: bool = True) -> AsyncIterator[tuple[tuple[str, int], tuple[str, int]]]:
    loop = asyncio.get_running_loop()
    server_sock = _bound(socket.SOCK_DGRAM)
    address = server_sock.getsockname()
    transport, _ = await loop.create_datagram_endpoint(_Upstream, sock=server_sock)
    if not upstream:
        transport.close()
        await asyncio.sleep(0)
    udp, tcp = _bound(socket.SOCK_DGRAM), _bound(socket.SOCK_STREAM)
    tcp.listen()
    where = udp.getsockname(), tcp.getsockname()
    resolver = Resolver(lookup=lookup, upstreams=[address])
    await resolver.start(udp, tcp)
    try:
        yield where
    finally:
        await resolver.stop()
        transport.close()


async def _ask(where: tuple[str, int], question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with _bound(socket.SOCK_DGRAM) as sock:
        await loop.sock_connect(sock, where)
        await loop.sock_sendall(sock, question)
        async with asyncio.timeout(10):
            return await loop.sock_recv(sock, 4096)


async def _query(where: tuple[str, int], name: str, kind: str = "A") -> dns.message.Message:
    return dns.message.from_wire(await _ask(where, dns.message.make_query(name, kind).to_wire()))


def _addresses(reply: dns.message.Message) -> list[str]:
    return [item.address for rrset in reply.answer for item in rrset if item.rdtype == dns.rdatatype.A]


async def test_local_names_are_answered() -> None:
    async with _resolver() as (udp, _):
        reply = await _query(udp, "Hello.default.svc.cluster.local.")
        assert _addresses(reply) == ["198.18.0.1"]
        assert reply.flags & dns.flags.AA
        reply = await _query(udp, "hello.default.svc.cluster.local", "AAAA")
        assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
        reply = await _query(udp, "none.default.svc.cluster.local")
        assert reply.rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    ("name", "chain", "addresses"),
    [
        ("alias", ["hello.default.svc.cluster.local."], ["198.18.0.1"]),
        ("outside", ["example.org."], ["192.0.2.7"]),
        ("loop", ["loop.default.svc.cluster.local."], []),
        ("empty", [], []),
    ],
)
async def test_aliases(name: str, chain: list[str], addresses: list[str]) -> None:
    async with _resolver() as (udp, _):
        reply = await _query(udp, f"{name}.default.svc.cluster.local")
        assert reply.rcode() == dns.rcode.NOERROR
        aliases = [item.to_text() for r in reply.answer if r.rdtype == dns.rdatatype.CNAME for item in r]
        assert (aliases, _addresses(reply)) == (chain, addresses)


async def test_an_alias_of_a_name_that_nobody_answers_for_is_an_error() -> None:
    async with _resolver(upstream=False) as (udp, _):
        reply = await _query(udp, "outside.default.svc.cluster.local")
        assert reply.rcode() == dns.rcode.SERVFAIL


async def test_other_names_are_forwarded() -> None:
    async with _resolver() as (udp, _):
        assert _addresses(await _query(udp, "example.org")) == ["192.0.2.7"]


async def test_without_an_upstream_the_answer_is_an_error() -> None:
    async with _resolver(upstream=False) as (udp, _):
        assert (await _query(udp, "example.org")).rcode() == dns.rcode.SERVFAIL


async def test_over_tcp() -> None:
    async with _resolver() as (_, tcp):
        reader, writer = await asyncio.open_connection(*tcp)
        for _ in range(2):
            question = dns.message.make_query("hello.default.svc.cluster.local", "A").to_wire()
            writer.write(struct.pack("!H", len(question)) + question)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            reply = dns.message.from_wire(await reader.readexactly(length))
            assert _addresses(reply) == ["198.18.0.1"]
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "garbage", [b"\x01\x02" + bytes(10), b"\x01\x02\x81\x80" + bytes(8), b"\x00" * 11 + b"\xff"]
)
async def test_garbage_gets_an_error(garbage: bytes) -> None:
    async with _resolver() as (udp, _):
        reply = await _ask(udp, garbage)
        assert reply[:2] == garbage[:2]
        assert reply[3] & 0x0F == dns.rcode.FORMERR


def test_resolv_conf() -> None:
    assert host_resolvers("# x\nnameserver 10.0.0.1\nsearch a b\nnameserver ::1\nnameserver\n") == [
        "10.0.0.1",
        "::1",
    ]
