"""One try of one probe over a fresh connection: HTTP, TCP or gRPC. Shell.

HTTP is written by hand: a probe is one GET of which only the status line matters, and a fresh request of a
full client costs ten times the CPU, every few milliseconds, just while pods start. What is kept strict: the
pod's own address and nothing else is connected to, `host` is only a header, redirects are not followed, at
most `BODY_BYTES` are read. 200 to 399 is success, as for the kubelet.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from enum import Enum

import grpc

from serving.activator.probe_schedule import Kind, ProbeTarget

BODY_BYTES = 10_240
"""Most that is read of an answer; the kubelet's limit."""

LINGER_SECONDS = 0.1
"""How long the rest of an answer is read, so that the server does not see a reset."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: [^\r\n]*)?\r?\n")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")
_SERVING = 1


class Outcome(Enum):
    """SILENT: nothing came in time, which asks for patience; REFUSED: not listening, which is cheap to retry."""

    ANSWERED = "answered"
    FAILED = "failed"
    REFUSED = "refused"
    SILENT = "silent"


async def probe(target: ProbeTarget, *, within: float, told: Callable[[Outcome], None]) -> None:
    """Try once, for at most `within` seconds, and call `told` once, the moment the outcome is known; closing
    the connection politely may take a little longer. Never raises for what a pod does."""
    if target.kind is Kind.HTTP:
        await _http(target, within=within, told=told)
        return
    try:
        async with asyncio.timeout(within):
            outcome = await (_tcp(target) if target.kind is Kind.TCP else _grpc(target, within=within))
    except OSError as error:
        outcome = _outcome(error)
    told(outcome)


def _outcome(error: OSError | UnicodeError) -> Outcome:
    if isinstance(error, TimeoutError):
        return Outcome.SILENT
    return Outcome.FAILED if isinstance(error, (ssl.SSLError, UnicodeError)) else Outcome.REFUSED


async def _connect(target: ProbeTarget) -> socket.socket:
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (target.host, target.port))
    except BaseException:
        connection.close()
        raise
    return connection


async def _tcp(target: ProbeTarget) -> Outcome:
    (await _connect(target)).close()
    return Outcome.ANSWERED


def http_request(target: ProbeTarget) -> bytes:
    """The GET of a probe. Headers of the probe replace ours."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    headers = {
        "host": ("Host", f"{host}:{target.port}"),
        "user-agent": ("User-Agent", "kube-probe/nodeless"),
        "accept": ("Accept", "*/*"),
        "connection": ("Connection", "close"),
    }
    for name, value in target.headers:
        headers[name.lower()] = (name, value)
    lines = [f"GET {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.values())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def http_status(answer: bytes) -> int | None:
    """Final status of an answer so far; None while more is needed. 0 when it is not HTTP/1.

    Interim answers (1xx) are passed over.
    """
    position = 0
    while True:
        line = _STATUS_LINE.match(answer, position)
        if line is None:
            start = answer[position:]
            whole = b"\n" in start or not b"HTTP/1.".startswith(start[:7])
            return 0 if whole else None
        status = int(line[1])
        if status >= 200:
            return status
        end = _HEADERS_END.search(answer, line.end() - 2)
        if end is None:
            return None
        position = end.end()


async def _http(target: ProbeTarget, *, within: float, told: Callable[[Outcome], None]) -> None:
    writer = None
    try:
        async with asyncio.timeout(within):
            reader, writer = await _open(target)
            writer.write(http_request(target))
            answer, status = await _read_status(reader)
    except (OSError, UnicodeError) as error:
        told(_outcome(error))
    else:
        told(Outcome.ANSWERED if 200 <= status < 400 else Outcome.FAILED)
        await _read_rest(reader, BODY_BYTES - len(answer))
    finally:
        if writer is not None:
            writer.close()


async def _open(target: ProbeTarget) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    connection = await _connect(target)
    context = _insecure_tls() if target.tls else None
    name = "" if context else None
    try:
        return await asyncio.open_connection(sock=connection, ssl=context, server_hostname=name, limit=BODY_BYTES)
    except BaseException:
        connection.close()
        raise


async def _read_status(reader: asyncio.StreamReader) -> tuple[bytes, int]:
    """What was read, and the status in it; 0 when there is none."""
    answer = b""
    while (status := http_status(answer)) is None and len(answer) < BODY_BYTES:
        chunk = await reader.read(4096)
        if not chunk:
            break
        answer += chunk
    return answer, status or 0


async def _read_rest(reader: asyncio.StreamReader, most: int) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while most > 0 and (chunk := await reader.read(4096)):
                most -= len(chunk)
    except OSError:
        return  # the outcome is known; how the connection ends does not matter


def _insecure_tls() -> ssl.SSLContext:
    """The kubelet does not verify certificates of HTTPS probes either: there is no name to verify."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _grpc(target: ProbeTarget, *, within: float) -> Outcome:
    """grpc.health.v1. A plain connect comes first: a channel that finds the port closed would back off by
    itself, and setting one up costs milliseconds."""
    (await _connect(target)).close()
    host = f"[{target.host}]" if ":" in target.host else target.host
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(f"{host}:{target.port}", options=options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_request,
            response_deserializer=health_is_serving,
        )
        try:
            serving = await check(target.service, timeout=within)
        except grpc.aio.AioRpcError as error:
            silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            return Outcome.SILENT if silent else Outcome.FAILED
        return Outcome.ANSWERED if serving else Outcome.FAILED


def health_request(service: str) -> bytes:
    """`grpc.health.v1.HealthCheckRequest`: one string, field 1. Names are at most 127 bytes long here."""
    name = service.encode()[:127]
    return bytes((0x0A, len(name))) + name if name else b""


def health_is_serving(answer: bytes) -> bool:
    """`grpc.health.v1.HealthCheckResponse`: one enum, field 1."""
    return answer[:2] == bytes((0x08, _SERVING))
