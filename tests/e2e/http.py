"""HTTP as clients of a service send it: a Host header to the gateway's port, and steady load."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec

REQUEST_SECONDS = 60.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    text: str
    headers: Mapping[str, str]
    seconds: float


class Gateway:
    """A client of one gateway's public port."""

    def __init__(self, session: aiohttp.ClientSession, *, url: str, domain: str) -> None:
        self.session = session
        self.url = url
        self.domain = domain

    def host(self, service: str, namespace: str = "default") -> str:
        return service if "." in service else f"{service}.{namespace}.{self.domain}"

    async def get(
        self, service: str, path: str = "/", *, headers: Mapping[str, str] | None = None, seconds: float = 60
    ) -> Answer:
        return await self.send("GET", service, path, headers=headers, seconds=seconds)

    async def send(
        self,
        method: str,
        service: str,
        path: str = "/",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Answer:
        """One request. Raises TimeoutError or aiohttp.ClientError when there is no whole answer."""
        began = time.monotonic()
        async with self.session.request(
            method,
            self.url + path,
            headers={"Host": self.host(service), **(headers or {})},
            data=body,
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as response:
            text = await response.text()
            return Answer(
                status=response.status,
                text=text,
                headers=response.headers.copy(),
                seconds=time.monotonic() - began,
            )


@asynccontextmanager
async def open_gateway(url: str, domain: str) -> AsyncIterator[Gateway]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Gateway(session, url=url, domain=domain)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a load. `problem` is empty for a 2xx answer that arrived whole."""

    began: float
    ended: float
    text: str = ""
    problem: str = ""


class Load:
    """A number of users that each send one request after the other. Use as an async context manager.

    A user whose connection is refused tries again and nothing is counted: no request was sent.
    """

    def __init__(self, gateway: Gateway, service: str, path: str = "/", *, users: int) -> None:
        self._gateway = gateway
        self._service = service
        self._path = path
        self._users = users
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._progress = asyncio.Event()
        self.results: list[Result] = []
        self.refused = 0

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._user(), name=f"user {n}") for n in range(self._users)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Let each user finish its request."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def more(self, count: int, *, seconds: float = 60) -> None:
        """Until `count` more requests have been answered well."""
        wanted = self.answered + count
        async with asyncio.timeout(seconds):
            while self.answered < wanted:
                self._progress.clear()
                await self._progress.wait()

    @property
    def answered(self) -> int:
        return sum(not result.problem for result in self.results)

    @property
    def failures(self) -> list[Result]:
        return [result for result in self.results if result.problem]

    def summary(self) -> str:
        counted = Counter(result.problem for result in self.failures)
        return f"{self.answered} answered, {len(self.failures)} failed: {dict(counted)}"

    async def _user(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                answer = await self._gateway.get(self._service, self._path)
            except aiohttp.ClientConnectorError:
                self.refused += 1
                await asyncio.sleep(0.02)
                continue
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._add(Result(began=began, ended=time.monotonic(), problem=f"{type(error).__name__}: {error}"))
                continue
            problem = "" if 200 <= answer.status < 300 else f"{answer.status} {answer.text.strip()}"
            self._add(Result(began=began, ended=time.monotonic(), text=answer.text, problem=problem))

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self._progress.set()
