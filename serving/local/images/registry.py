"""Pulling from a registry by the OCI distribution protocol, into the content store.

A download is written to `partial/<digest>`, can be resumed by any process, and becomes a blob only when its size
and digest are right.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import aiohttp
import tenacity

from serving.local.images.content import ContentStore
from serving.local.images.errors import pull_failed, refused
from serving.local.images.locks import locked
from serving.local.images.manifest import (
    ACCEPT,
    Descriptor,
    Index,
    Manifest,
    choose,
    parse_document,
    sha256,
)
from serving.local.images.protocol import Credentials
from serving.local.images.records import ImageRecord
from serving.local.images.reference import Reference, is_digest
from serving.local.images.registry_errors import TransientError
from serving.local.images.registry_http import RepositoryClient, Timeouts
from serving.local.images.sources import Imported
from serving.local.images.threads import run

_ATTEMPTS = 4
_PARALLEL_LAYERS = 3
_CHUNK = 1 << 20
_T = TypeVar("_T")


class Registry:
    """Everything raises ImageError(ErrImagePull) with the registry's own words."""

    def __init__(self, content: ContentStore, *, timeouts: Timeouts | None = None) -> None:
        self._content = content
        self._limits = content.limits
        self._timeouts = timeouts or Timeouts()

    async def resolve(self, reference: Reference, *, credentials: Credentials | None) -> str:
        """The digest that a tag names now; of an index when there is one, as Knative reports it."""
        async with self._client(reference, credentials) as client:
            return await self._retry(lambda: self._head_or_get(client, reference))

    async def pull_documents(
        self, reference: Reference, *, architecture: str, credentials: Credentials | None
    ) -> Imported:
        """Store the manifest for this machine and its configuration."""
        async with self._client(reference, credentials) as client:
            wanted = reference.digest or reference.tag
            raw, resolved = await self._retry(lambda: self._manifest(client, reference, wanted))
            digest, document = resolved, parse_document(raw, what=reference.text, limits=self._limits)
            if isinstance(document, Index):
                digest = choose(document, architecture=architecture, what=reference.text).digest
                raw, _ = await self._retry(lambda: self._manifest(client, reference, digest))
                document = parse_document(raw, what=reference.text, limits=self._limits)
            if not isinstance(document, Manifest):
                raise refused(f"{reference.text}: indexes are nested too deeply")
            config = document.config
            await self._retry(lambda: self._blob(client, reference, config))
            await run(None, self._content.put_bytes, raw)
        return Imported(digest=digest, resolved=resolved)

    async def pull_layers(
        self, reference: Reference, image: ImageRecord, *, credentials: Credentials | None
    ) -> None:
        """Store the layers that are missing."""
        layers = {layer.digest: layer for layer in image.layers}
        slots = asyncio.Semaphore(_PARALLEL_LAYERS)
        async with self._client(reference, credentials) as client:

            async def pull(layer: Descriptor) -> None:
                async with slots:
                    await self._retry(lambda: self._blob(client, reference, layer))

            try:
                async with asyncio.TaskGroup() as group:
                    for layer in layers.values():
                        group.create_task(pull(layer), name=f"pull {layer.digest}")
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None

    def _client(self, reference: Reference, credentials: Credentials | None) -> RepositoryClient:
        return RepositoryClient(reference, credentials=credentials, timeouts=self._timeouts, limits=self._limits)

    async def _retry(self, action: Callable[[], Awaitable[_T]]) -> _T:
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=self._timeouts.first_retry, max=10),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    return await action()
        except TransientError as failure:
            raise failure.error from failure
        raise AssertionError("tenacity ended without a result or an error")

    # documents

    async def _head_or_get(self, client: RepositoryClient, reference: Reference) -> str:
        """A HEAD does not count against pull limits. Its errors have no body: ask again by GET for the words."""
        path = f"manifests/{reference.tag}"
        async with client.request("HEAD", path, {"Accept": ACCEPT}, seconds=self._timeouts.document) as response:
            digest = response.headers.get("Docker-Content-Digest", "")
            if response.status == 200 and is_digest(digest):
                return digest
        _, digest = await self._manifest(client, reference, reference.tag)
        return digest

    async def _manifest(self, client: RepositoryClient, reference: Reference, wanted: str) -> tuple[bytes, str]:
        raw, headers = await client.document(
            "GET", f"manifests/{wanted}", accept=ACCEPT, limit=self._limits.document_bytes
        )
        digest = sha256(raw)
        promised = wanted if is_digest(wanted) else headers.get("Docker-Content-Digest", digest)
        if is_digest(promised) and promised != digest:
            raise refused(f"{reference.text}: the manifest has digest {digest}, not {promised}")
        return raw, digest

    # blobs

    async def _blob(self, client: RepositoryClient, reference: Reference, wanted: Descriptor) -> None:
        """Store a blob, going on where an earlier attempt stopped."""
        partial = self._content.partial_path(wanted.digest)
        async with locked(partial, exclusive=True):
            if await run(None, self._content.has_blob, wanted.digest):
                await run(None, partial.unlink, True)
                return
            download = await run(None, Download, partial, wanted, reference.text)
            try:
                await self._fetch(client, download)
            finally:
                await run(None, download.close)
            await run(None, download.check)
            await run(None, self._content.commit_blob, partial, wanted.digest)

    async def _fetch(self, client: RepositoryClient, download: Download) -> None:
        if download.count == download.wanted.size:
            return
        async with client.blob(download.wanted.digest, start=download.count) as response:
            if not _continues(response, download.count):
                await run(None, download.restart)
            if response.status == 416:
                raise TransientError(pull_failed(f"GET {response.url}: 416 for a blob that is not complete"))
            async for chunk in response.content.iter_chunked(_CHUNK):
                await run(None, download.write, chunk)
        if download.count < download.wanted.size:
            raise TransientError(
                pull_failed(f"{download.what}: {download.wanted.digest} ended after {download.count} bytes")
            )


class Download:
    """A partial file with its running digest. Blocking."""

    def __init__(self, path: Path, wanted: Descriptor, what: str) -> None:
        self.wanted = wanted
        self.what = what
        self.count = 0
        self._path = path
        self._hasher = hashlib.sha256()
        self._file = path.open("r+b")
        while chunk := self._file.read(_CHUNK):
            self._hasher.update(chunk)
            self.count += len(chunk)
        if self.count > wanted.size:
            self.restart()

    def restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._hasher = hashlib.sha256()
        self.count = 0

    def write(self, chunk: bytes) -> None:
        self.count += len(chunk)
        if self.count > self.wanted.size:
            self.restart()
            raise refused(f"{self.what}: {self.wanted.digest} is larger than {self.wanted.size} bytes")
        self._hasher.update(chunk)
        self._file.write(chunk)

    def close(self) -> None:
        self._file.close()

    def check(self) -> None:
        """Raises when the digest is wrong; the next attempt starts from nothing."""
        found = "sha256:" + self._hasher.hexdigest()
        if found != self.wanted.digest:
            os.truncate(self._path, 0)
            raise TransientError(refused(f"{self.what}: {self.wanted.digest} is corrupt: its digest is {found}"))


def _continues(response: aiohttp.ClientResponse, start: int) -> bool:
    """Whether the body begins at byte `start`."""
    if response.status == 206:
        return response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return start == 0
