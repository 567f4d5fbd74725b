"""The pods' DNS server: cluster-local names through a callback, everything else forwarded to the host's resolvers.

Listens on the bridge's gateway address with sockets made inside the pods' network namespace; questions are
forwarded from the node agent's own namespace. Forwarded answers are passed on byte by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What one of our names stands for. `alias`: another name, ours or not, whose addresses it has. A name that
    exists may have neither."""

    addresses: tuple[str, ...] = ()
    alias: str = ""
    exists: bool = True


MISSING = Found(exists=False)
"""Ours to deny."""

Lookup = Callable[[str], Found | None]
"""A name in lower case without the last dot → what it stands for; None = not ours."""

Upstream = tuple[str, int]
"""Address and port of a resolver to forward to."""

_PORT = 53
_TTL = 5
_UPSTREAM_SECONDS = 2.0
_TCP_IDLE_SECONDS = 10.0
_MAX_UDP = 4096
_MAX_OPEN = 512
"""Questions in flight; more are refused rather than queued."""


class NotAQuestion(dns.exception.DNSException):
    """An answer, or a message without a question."""


def host_resolvers(text: str) -> list[str]:
    """The name servers of a resolv.conf."""
    words = (line.split() for line in text.splitlines())
    return [row[1] for row in words if len(row) >= 2 and row[0] == "nameserver"]


class Ours(msgspec.Struct, frozen=True):
    """A reply that is ours to give. `alias`: a name that is not ours, whose addresses are still to be added."""

    reply: dns.message.Message
    alias: str = ""


def answer(question: bytes, lookup: Lookup) -> Ours | None:
    """None when the question must be forwarded. Raises DNSException for what is no question."""
    query = dns.message.from_wire(question)
    if not query.question or query.flags & dns.flags.QR:
        raise NotAQuestion
    asked = query.question[0]
    found = lookup(asked.name.to_text(omit_final_dot=True).lower())
    if found is None:
        return None
    reply = dns.message.make_response(query, recursion_available=True)
    reply.flags |= dns.flags.AA
    if not found.exists:
        reply.set_rcode(dns.rcode.NXDOMAIN)
        return Ours(reply)
    if asked.rdclass != dns.rdataclass.IN:
        return Ours(reply)
    name, seen = asked.name, {asked.name}
    while found is not None and found.alias:
        target = dns.name.from_text(found.alias.rstrip("."))
        reply.answer.append(dns.rrset.from_text(name, _TTL, "IN", "CNAME", target.to_text()))
        if target in seen or asked.rdtype == dns.rdatatype.CNAME:
            return Ours(reply)
        seen.add(target)
        name = target
        found = lookup(target.to_text(omit_final_dot=True).lower())
    if found is None:
        return Ours(reply, name.to_text())
    if found.addresses and asked.rdtype in (dns.rdatatype.A, dns.rdatatype.ANY):
        reply.answer.append(dns.rrset.from_text_list(name, _TTL, "IN", "A", found.addresses))
    return Ours(reply)


def refusal(question: bytes, code: int) -> bytes:
    """The same question with an error code; only its header is looked at."""
    if len(question) < 12:
        return b""
    identifier, flags = struct.unpack_from("!HH", question)
    reply_flags = (flags & 0x7900) | 0x8080 | code
    return struct.pack("!HHHHHH", identifier, reply_flags, 0, 0, 0, 0)


class _Answer(asyncio.DatagramProtocol):
    """One forwarded question."""

    def __init__(self, question: bytes, reply: asyncio.Future[bytes]) -> None:
        self._question = question
        self._reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.DatagramTransport", transport).sendto(self._question)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[:2] == self._question[:2] and not self._reply.done():
            self._reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self._reply.done():
            self._reply.set_exception(exc)


class Resolver:
    def __init__(self, *, lookup: Lookup, upstreams: Sequence[Upstream] | None = None) -> None:
        self._lookup = lookup
        self._fixed_upstreams = upstreams
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None

    async def start(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Takes ownership of both sockets."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Questions(self), sock=udp)
        self._server = await asyncio.start_server(self._serve_tcp, sock=tcp)

    async def stop(self) -> None:
        """Idempotent. Questions in flight are dropped: their askers ask again."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        """Keep the task until it ends; `stop` cancels what is left."""
        task = asyncio.create_task(work, name="pod-dns")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ask(self, question: bytes, address: Any) -> None:
        if len(self._tasks) >= _MAX_OPEN:
            self._send(refusal(question, dns.rcode.REFUSED), address)
            return
        self._own(self._answer_udp(question, address))

    def _send(self, data: bytes, address: Any) -> None:
        if self._transport is not None and data:
            self._transport.sendto(data, address)

    async def _answer_udp(self, question: bytes, address: Any) -> None:
        self._send(await self.resolve(question, tcp=False), address)

    async def resolve(self, question: bytes, *, tcp: bool) -> bytes:
        """Always a reply: an error code when nobody answers."""
        try:
            ours = answer(question, self._lookup)
        except dns.exception.DNSException:
            return refusal(question, dns.rcode.FORMERR)
        if ours is None:
            return await self._forward(question, tcp=tcp) or refusal(question, dns.rcode.SERVFAIL)
        if ours.alias:
            await self._add_alias(ours, tcp=tcp)
        return ours.reply.to_wire()

    async def _forward(self, question: bytes, *, tcp: bool) -> bytes:
        """The first answer of an upstream; empty when nobody answers."""
        for upstream in self._upstreams():
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_UPSTREAM_SECONDS):
                    return await (_over_tcp if tcp else _over_udp)(question, upstream)
        return b""

    async def _add_alias(self, ours: Ours, *, tcp: bool) -> None:
        """Ask others for what our name is an alias of, and add what they say."""
        query = dns.message.make_query(ours.alias, ours.reply.question[0].rdtype)
        raw = await self._forward(query.to_wire(), tcp=tcp)
        try:
            theirs = dns.message.from_wire(raw)
        except dns.exception.DNSException:
            ours.reply.set_rcode(dns.rcode.SERVFAIL)
            return
        ours.reply.answer.extend(theirs.answer)
        ours.reply.set_rcode(theirs.rcode())

    def _upstreams(self) -> Sequence[Upstream]:
        """Read each time: a laptop changes networks. A small file, already in memory."""
        if self._fixed_upstreams is not None:
            return self._fixed_upstreams
        with contextlib.suppress(OSError):
            return [(address, _PORT) for address in host_resolvers(Path("/etc/resolv.conf").read_text())]
        return []

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while True:
                async with asyncio.timeout(_TCP_IDLE_SECONDS):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    question = await reader.readexactly(length)
                reply = await self.resolve(question, tcp=True)
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class _Questions(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._resolver.ask(data, addr)


async def _over_udp(question: bytes, upstream: Upstream) -> bytes:
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Answer(question, reply), remote_addr=upstream)
    try:
        return await reply
    finally:
        transport.close()


async def _over_tcp(question: bytes, upstream: Upstream) -> bytes:
    reader, writer = await asyncio.open_connection(*upstream)
    try:
        writer.write(struct.pack("!H", len(question)) + question)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()
