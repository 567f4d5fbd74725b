"""One conversation with one repository of a registry: requests with authentication, redirects and time-outs.

- Plain HTTP only to loopback registries, and never by a redirect or a token service of an HTTPS registry.
- Credentials go to the registry and to the token service it names, never to where a blob is redirected.
- Every answer that is kept in memory is bounded.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from yarl import URL

from serving.local.images.errors import pull_failed
from serving.local.images.limits import Limits
from serving.local.images.protocol import Credentials
from serving.local.images.reference import Reference
from serving.local.images.registry_errors import (
    TRANSIENT_STATUS,
    Challenge,
    TransientError,
    answer_error,
    parse_challenges,
    printable,
)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_ERROR_BYTES = 64 * 1024


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds."""

    connect: float = 10.0
    read: float = 30.0
    """Between two pieces of an answer."""
    document: float = 60.0
    """For a manifest, configuration or token as a whole."""
    layer: float = 3600.0
    first_retry: float = 0.25
    """Before the second attempt after an error that may pass; doubled, with jitter, for the next ones."""


class _Token(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None


def is_loopback(registry: str) -> bool:
    """Whether `host[:port]` can only be this machine."""
    host = registry.rpartition(":")[0] if registry.rpartition(":")[2].isdigit() else registry
    host = host.strip("[]").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RepositoryClient:
    """`async with RepositoryClient(…) as client`; paths are relative to `/v2/<repository>/`."""

    def __init__(
        self, reference: Reference, *, credentials: Credentials | None, timeouts: Timeouts, limits: Limits
    ) -> None:
        self._loopback = is_loopback(reference.registry)
        self._base = URL(
            f"{'http' if self._loopback else 'https'}://{reference.registry}/v2/{reference.repository}/"
        )
        self._repository = reference.repository
        self._credentials = credentials
        self._timeouts = timeouts
        self._limits = limits
        self._authorization = ""
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            trust_env=not self._loopback,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "nodeless", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._timeouts.connect, connect=2 * self._timeouts.connect,
                sock_read=self._timeouts.read,
            ),
        )  # fmt: skip
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def document(
        self, method: str, path: str, *, accept: str, limit: int
    ) -> tuple[bytes, Mapping[str, str]]:
        """A whole answer, at most `limit` bytes. Raises ImageError, TransientError."""
        async with self.request(method, path, {"Accept": accept}, seconds=self._timeouts.document) as response:
            if response.status != 200:
                raise await self._failure(response)
            return await self._read(response, limit), response.headers

    @asynccontextmanager
    async def blob(self, digest: str, *, start: int) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer (200, 206 or 416) with a blob from byte `start` on. Raises ImageError, TransientError."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self.request("GET", f"blobs/{digest}", headers, seconds=self._timeouts.layer) as response:
            if response.status not in ((200, 206, 416) if start else (200,)):
                raise await self._failure(response)
            yield response

    @asynccontextmanager
    async def request(
        self, method: str, path: str, headers: Mapping[str, str], *, seconds: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer after authentication and redirects. Network errors inside become TransientError."""
        url = self._base.join(URL(path, encoded=True)) if "://" in path else URL(f"{self._base}{path}")
        try:
            async with asyncio.timeout(seconds):
                response = await self._send(method, url, headers)
                if response.status == 401 and await self._authenticate(response):
                    response.release()
                    response = await self._send(method, url, headers)
                async with response:
                    yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransientError(pull_failed(f"{method} {url}: {_network_problem(error)}")) from error

    async def _send(self, method: str, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("RepositoryClient is used outside of its `async with`")
        target = url
        for _ in range(_MAX_REDIRECTS + 1):
            sent = dict(headers)
            if self._authorization and target.origin() == self._base.origin():
                sent["Authorization"] = self._authorization
            response = await self._session.request(method, target, headers=sent, allow_redirects=False)
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location:
                return response
            response.release()
            target = self._allowed(target.join(URL(location, encoded=True)), f"{method} {url}: redirect")
        raise pull_failed(f"{method} {url}: more than {_MAX_REDIRECTS} redirects")

    def _allowed(self, url: URL, what: str) -> URL:
        """Raises ImageError for a place that this registry may not send us to."""
        if url.scheme == "https" and url.host:
            return url
        if url.scheme == "http" and self._loopback and url.host and is_loopback(url.host):
            return url
        raise pull_failed(f"{what} to {printable(str(url.with_query(None)))} is refused: https is required")

    async def _failure(self, response: aiohttp.ClientResponse) -> Exception:
        body = await self._read(response, _ERROR_BYTES, cut=True)
        error = answer_error(response.method, str(response.url.with_query(None)), response.status, body)
        return TransientError(error) if response.status in TRANSIENT_STATUS else error

    async def _read(self, response: aiohttp.ClientResponse, limit: int, *, cut: bool = False) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit:
                if cut:
                    return bytes(body[:limit])
                raise pull_failed(f"{response.method} {response.url}: more than {limit} bytes", permanent=True)
        return bytes(body)

    # authentication

    async def _authenticate(self, response: aiohttp.ClientResponse) -> bool:
        """Answer a 401; False when there is nothing new to offer."""
        if response.url.origin() != self._base.origin():
            return False
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", ()))
        before = self._authorization
        bearer = next((found for found in challenges if found.scheme == "bearer"), None)
        if bearer is not None:
            self._authorization = f"Bearer {await self._token(bearer)}"
        elif self._credentials is not None and any(found.scheme == "basic" for found in challenges):
            self._authorization = self._basic()
        return self._authorization != before

    def _basic(self) -> str:
        if self._credentials is None:
            return ""
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    async def _token(self, challenge: Challenge) -> str:
        """Ask the token service that the registry names."""
        if self._session is None:
            raise RuntimeError("RepositoryClient is used outside of its `async with`")
        realm = self._allowed(URL(challenge.parameters.get("realm", "")), "token service: going")
        query = {
            "service": challenge.parameters.get("service", ""),
            "scope": challenge.parameters.get("scope", f"repository:{self._repository}:pull"),
        }
        url = realm.update_query({key: value for key, value in query.items() if value})
        headers = {"Authorization": self._basic()} if self._credentials is not None else {}
        async with self._session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise await self._failure(response)
            body = await self._read(response, self._limits.document_bytes)
        try:
            answer = msgspec.json.decode(body, type=_Token)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise pull_failed(f"GET {realm}: not a token answer: {error}") from error
        token = answer.token or answer.access_token or ""
        if not token or not token.isprintable():
            raise pull_failed(f"GET {realm}: the answer holds no token")
        return token


def _network_problem(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"dial tcp {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return printable(str(error)) or type(error).__name__
