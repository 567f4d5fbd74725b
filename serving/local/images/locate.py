"""From a reference to an image record, and to its layers.

Local names come first, then what was pulled or read before, then the registry or the source itself. The caller
holds the content lock (shared).
"""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

import msgspec

from serving.local.images.build import BuildSpec, build_image, tree_fingerprint
from serving.local.images.content import ContentStore
from serving.local.images.errors import invalid_name, never_pull, pull_failed
from serving.local.images.protocol import Credentials
from serving.local.images.records import KEPT_ORIGINS, ImageRecord, Origin
from serving.local.images.reference import Reference
from serving.local.images.registry import Registry
from serving.local.images.sources import (
    Imported,
    file_fingerprint,
    import_archive,
    import_layout,
    layout_digest,
)
from serving.local.images.threads import run


class Found(msgspec.Struct, frozen=True):
    image: ImageRecord
    resolved: str
    """The digest that the reference stands for: an index's, where there is one."""


class Locator:
    def __init__(self, content: ContentStore, registry: Registry, *, architecture: str, workers: Executor) -> None:
        self._content = content
        self._registry = registry
        self._architecture = architecture
        self._workers = workers

    async def resolve(self, parsed: Reference, credentials: Credentials | None) -> str:
        """The digest that a reference without one names now. Raises ImageError."""
        known = await run(None, self._content.name, parsed.name)
        if parsed.transport == "registry":
            if known is not None and known.origin in KEPT_ORIGINS:
                return known.resolved
            return await self._registry.resolve(parsed, credentials=credentials)
        _require_absolute(parsed)
        if parsed.transport == "oci":
            return await run(self._workers, layout_digest, parsed, self._content)
        return (await self._from_source(parsed)).resolved

    async def locate(self, parsed: Reference, pull_policy: str, credentials: Credentials | None) -> Found:
        """The image's record; its layers may be missing. Raises ImageError."""
        known = await run(None, self._known, parsed)
        if parsed.transport != "registry":
            _require_absolute(parsed)
            return known if known is not None and parsed.digest else await self._from_source(parsed)
        if known is not None and (pull_policy != "Always" or parsed.digest or await self._is_kept(parsed)):
            return known
        if pull_policy == "Never":
            raise never_pull(parsed.text)
        pulled = await self._registry.pull_documents(
            parsed, architecture=self._architecture, credentials=credentials
        )
        return await run(None, self._register, parsed, pulled, "pulled")

    async def complete(self, parsed: Reference, image: ImageRecord, credentials: Credentials | None) -> None:
        """Have all layers here. Raises ImageError."""
        if not await run(None, self._content.missing_layers, image):
            return
        if parsed.transport == "registry":
            await self._registry.pull_layers(parsed, image, credentials=credentials)
        else:
            await run(self._workers, self._read_source, parsed, always=True)
        missing = await run(None, self._content.missing_layers, image)
        if missing:
            raise pull_failed(f"{parsed.text}: layer {missing[0]} is no longer to be had")

    def _known(self, parsed: Reference) -> Found | None:
        if parsed.digest:
            image = self._content.by_digest(parsed.digest)
            return None if image is None else Found(image, parsed.digest)
        name = self._content.name(parsed.name)
        image = self._content.image(name.digest) if name is not None else None
        return None if name is None or image is None else Found(image, name.resolved)

    async def _is_kept(self, parsed: Reference) -> bool:
        name = await run(None, self._content.name, parsed.name)
        return name is not None and name.origin in KEPT_ORIGINS

    def _register(self, parsed: Reference, imported: Imported, origin: Origin, fingerprint: str = "") -> Found:
        image = self._content.put_image(imported.digest, what=parsed.text)
        self._content.set_alias(imported.resolved, imported.digest)
        if not parsed.digest:
            self._content.set_name(
                parsed.name,
                digest=imported.digest,
                resolved=imported.resolved,
                origin=origin,
                fingerprint=fingerprint,
            )
        return Found(image, imported.resolved)

    # sources

    async def _from_source(self, parsed: Reference) -> Found:
        return await run(self._workers, self._read_source, parsed)

    def _read_source(self, parsed: Reference, *, always: bool = False) -> Found:
        fingerprint = _fingerprint(parsed)
        name = None if always else self._content.name(parsed.name)
        if name is not None and name.fingerprint == fingerprint:
            image = self._content.image(name.digest)
            if image is not None:
                return Found(image, name.resolved)
        imported = self._import_source(parsed)
        if parsed.digest not in ("", imported.digest, imported.resolved):
            raise pull_failed(
                f"{parsed.text}: manifest unknown: the source has changed, it is now {imported.resolved}",
                permanent=True,
            )
        return self._register(parsed, imported, "source", fingerprint)

    def _import_source(self, parsed: Reference) -> Imported:
        if parsed.transport == "oci":
            return import_layout(self._content, parsed, architecture=self._architecture)
        if parsed.transport == "docker-archive":
            return import_archive(self._content, parsed)
        spec = BuildSpec(directory=Path(parsed.path), keep_metadata=True)
        image = build_image(self._content, spec, architecture=self._architecture)
        return Imported(digest=image.digest, resolved=image.digest)


def _require_absolute(parsed: Reference) -> None:
    """Several processes with several working directories share the store."""
    if not parsed.path.startswith("/"):
        raise invalid_name(parsed.text, f'the path "{parsed.path}" must be absolute')


def _fingerprint(parsed: Reference) -> str:
    path = Path(parsed.path)
    try:
        if parsed.transport == "dir":
            return tree_fingerprint(path)
        return file_fingerprint(path / "index.json" if parsed.transport == "oci" else path)
    except OSError as error:
        raise pull_failed(f"{parsed.text}: {error.filename}: {error.strerror}") from error
