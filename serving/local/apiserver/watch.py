"""Serves a Feed over HTTP: chunked JSON lines, flushed at once, ended cleanly."""

from __future__ import annotations

import asyncio
import random

import msgspec
from aiohttp import web

from serving.local.apiserver.encoders import line
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.feed import Feed
from serving.local.apiserver.storage import Storage

BOOKMARK_SECONDS = 60.0
_MIN_TIMEOUT_SECONDS = 1800.0


def default_timeout() -> float:
    """Thirty to sixty minutes, so that watches do not all end together."""
    return _MIN_TIMEOUT_SECONDS * (1 + random.random())  # noqa: S311


class Watches:
    """All running watches of a server; `stop` ends them as if their time was over."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._running: set[asyncio.Event] = set()
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True
        for changed in self._running:
            changed.set()

    async def serve(
        self,
        request: web.Request,
        feed: Feed,
        first: list[bytes],
        *,
        storage: str,
        timeout: float,
        bookmarks: bool,
        content_type: str,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        """`first` is `feed.initial()`; no event between that and this call may be missed, so both are made in one
        turn of the loop."""
        changed = asyncio.Event()
        self._storage.subscribe(storage, changed.set)
        self._running.add(changed)
        try:
            response = web.StreamResponse(headers={"Content-Type": content_type, **headers})
            response.enable_chunked_encoding()
            await response.prepare(request)
            if first:
                await response.write(b"".join(first))
            await self._follow(response, feed, changed, timeout=timeout, bookmarks=bookmarks)
            await response.write_eof()
            return response
        except ConnectionResetError:
            return response
        finally:
            self._storage.unsubscribe(storage, changed.set)
            self._running.discard(changed)

    async def _follow(
        self, response: web.StreamResponse, feed: Feed, changed: asyncio.Event, *, timeout: float, bookmarks: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        next_bookmark = loop.time() + BOOKMARK_SECONDS if bookmarks else deadline
        while True:
            changed.clear()
            try:
                chunks = feed.advance()
            except StatusError as error:
                await response.write(line("ERROR", msgspec.json.encode(error.status())))
                return
            now = loop.time()
            over = self._stopping or now >= deadline
            if bookmarks and (over or now >= next_bookmark):
                chunks.append(feed.bookmark())
                next_bookmark = now + BOOKMARK_SECONDS
            if chunks:
                await response.write(b"".join(chunks))
            if over:
                return
            if changed.is_set():
                continue
            try:
                async with asyncio.timeout_at(min(deadline, next_bookmark)):
                    await changed.wait()
            except TimeoutError:
                continue
