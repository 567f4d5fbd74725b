"""`LocalImageStore`: the image store of one machine, shared by the node agent, the controller and the CLI.

Names are looked up in this order: what a user built or imported, what was pulled before, the registry. The whole
of `ensure` runs under the shared content lock, so that nothing it found can be swept before it is pinned.
"""

from __future__ import annotations

import asyncio
import os
import platform
import weakref
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from serving.local.images.build import BuildSpec, build_image
from serving.local.images.content import ContentStore
from serving.local.images.erofs import ErofsReport, probe
from serving.local.images.errors import invalid_name, pull_failed
from serving.local.images.eviction import sweep, touch
from serving.local.images.limits import GIB, Limits
from serving.local.images.locate import Locator
from serving.local.images.locks import FileLock, lock, locked
from serving.local.images.manifest import go_architecture
from serving.local.images.protocol import Credentials, Image, ImageError, Rootfs
from serving.local.images.records import Form, ImageRecord
from serving.local.images.reference import InvalidReferenceError, Reference, parse_reference
from serving.local.images.registry import Registry
from serving.local.images.registry_http import Timeouts
from serving.local.images.rootfs import convert, find_rootfs
from serving.local.images.summary import ImageSummary, summaries, summary
from serving.local.images.threads import run, run_stoppable

DEFAULT_MAX_BYTES = 20 * GIB
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_WORKERS = 2


class _Pin:
    def __init__(self, held: FileLock) -> None:
        self.held = held
        self.count = 1


class LocalImageStore:
    """Implements `ImageStore`. `max_bytes` bounds the converted root filesystems; what is pinned or in use may
    exceed it. `prefer_erofs`: None = when it works here."""

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        prefer_erofs: bool | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._content = ContentStore(root.absolute(), limits=self._limits)
        self._max_bytes = max_bytes
        self._prefer_erofs = prefer_erofs
        self._architecture = go_architecture(platform.machine())
        self._form: Form | None = None
        self._pins: dict[str, _Pin] = {}
        self._flights: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="images")
        self._locator = Locator(
            self._content,
            Registry(self._content, timeouts=timeouts),
            architecture=self._architecture,
            workers=self._workers,
        )
        self._created = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop all pins and threads. Images that sandboxes have mounted stay."""
        for pin in self._pins.values():
            pin.held.release()
        self._pins.clear()
        await asyncio.to_thread(self._workers.shutdown, cancel_futures=True)

    # the protocol

    async def resolve(self, reference: str, *, credentials: Credentials | None = None) -> str:
        """See `ImageStore`. A reference with a digest is answered as it is, without asking anybody."""
        parsed = _parse(reference)
        if parsed.digest:
            return reference
        async with self._writing():
            return parsed.pinned(await self._locator.resolve(parsed, credentials))

    async def ensure(
        self, reference: str, *, pull_policy: str = "IfNotPresent", credentials: Credentials | None = None
    ) -> Image:
        """See `ImageStore`. `pull_policy` is one of Always, IfNotPresent, Never."""
        if pull_policy not in PULL_POLICIES:
            raise invalid_name(reference, f'pull policy "{pull_policy}" is not one of {", ".join(PULL_POLICIES)}')
        parsed = _parse(reference)
        async with self._alone(parsed.name), self._writing():
            found = await self._locator.locate(parsed, pull_policy, credentials)
            rootfs, converted = await self._convert(parsed, found.image, credentials)
            await self._pin(found.image.digest)
        if converted:
            await self.sweep()
        return Image(
            reference=reference,
            digest=found.image.digest,
            repo_digest=parsed.pinned(found.resolved),
            config=found.image.config,
            rootfs=rootfs,
            size_bytes=found.image.size_bytes,
        )

    def release(self, digest: str) -> None:
        """See `ImageStore`. Releasing what is not pinned does nothing."""
        pin = self._pins.get(digest)
        if pin is None:
            return
        pin.count -= 1
        if pin.count == 0:
            del self._pins[digest]
            pin.held.release()

    # management

    async def import_image(
        self, source: str, *, name: str = "", credentials: Credentials | None = None
    ) -> ImageSummary:
        """Copy an image into the store and give it a name, by which `ensure` then finds it. `name` may be left out
        when the source is a registry reference. Raises ImageError."""
        parsed = _parse(source)
        target = _target_name(name or (source if parsed.transport == "registry" else ""), source)
        async with self._writing():
            found = await self._locator.locate(parsed, "IfNotPresent", credentials)
            await self._locator.complete(parsed, found.image, credentials)
            await run(
                None,
                self._content.set_name,
                target.name,
                digest=found.image.digest,
                resolved=found.resolved,
                origin="imported",
            )
            return await run(None, summary, self._content, target.name)

    async def build(
        self, spec: BuildSpec, *, name: str, base: str = "", credentials: Credentials | None = None
    ) -> ImageSummary:
        """Build an image from a directory and give it a name. `base`: any reference. Raises ImageError."""
        target = _target_name(name, str(spec.directory))
        async with self._writing():
            base_image = None
            if base:
                parsed = _parse(base)
                base_image = (await self._locator.locate(parsed, "IfNotPresent", credentials)).image
                await self._locator.complete(parsed, base_image, credentials)
            image = await run(
                self._workers, build_image, self._content, spec, architecture=self._architecture, base=base_image
            )
            await run(None, self._content.set_name, target.name, digest=image.digest, origin="built")
            return await run(None, summary, self._content, target.name)

    async def list_images(self) -> list[ImageSummary]:
        async with self._writing():
            return await run(None, summaries, self._content)

    async def remove(self, name: str) -> None:
        """Forget a name; the image goes when no other name and no pod needs it. Raises ImageError when the store
        does not have the name."""
        parsed = _parse(name)
        async with self._writing():
            known = await run(None, self._content.name, parsed.name)
            if known is None:
                raise pull_failed(f"{name} is not in the image store", permanent=True)
            await run(None, self._content.remove_name, parsed.name)
            left = await run(None, summaries, self._content)
        still_named = any(entry.name and entry.digest == known.digest for entry in left)
        await self.sweep(unwanted=() if still_named else (known.digest,))

    async def sweep(self, *, unwanted: Collection[str] = ()) -> list[str]:
        """Evict down to `max_bytes` and drop garbage; see eviction.sweep."""
        await self._ready()
        pinned = set(self._pins)
        return await run(
            self._workers, sweep, self._content, max_bytes=self._max_bytes, in_use=pinned, unwanted=unwanted
        )

    async def erofs_report(self) -> ErofsReport:
        """For `nodeless doctor`."""
        await self._ready()
        return await run(self._workers, probe, self._content)

    # using

    async def _convert(
        self, parsed: Reference, image: ImageRecord, credentials: Credentials | None
    ) -> tuple[Rootfs, bool]:
        """The root filesystem, and whether it had to be made."""
        form = await self._wanted_form()
        rootfs = await run(None, find_rootfs, self._content, image.digest, wanted=form)
        if rootfs is not None:
            return rootfs, False
        async with locked(self._content.convert_lock(image.digest), exclusive=True):
            rootfs = await run(None, find_rootfs, self._content, image.digest, wanted=form)
            if rootfs is not None:
                return rootfs, False
            await self._locator.complete(parsed, image, credentials)
            converted = await run_stoppable(
                self._workers,
                lambda stop: convert(
                    self._content, image, form=form, own=may_own_files(), what=parsed.text, stop=stop
                ),
            )
            return converted, True

    async def _wanted_form(self) -> Form:
        if self._form is None:
            erofs = self._prefer_erofs
            if erofs is None:
                erofs = (await run(self._workers, probe, self._content)).works
            self._form = "erofs" if erofs else "directory"
        return self._form

    async def _pin(self, digest: str) -> None:
        await run(None, touch, self._content, digest)
        pin = self._pins.get(digest)
        if pin is not None:
            pin.count += 1
            return
        held = await lock(self._content.pin_lock(digest), exclusive=False)
        pin = self._pins.get(digest)
        if pin is None:
            self._pins[digest] = _Pin(held)
        else:  # somebody was faster
            held.release()
            pin.count += 1

    # plumbing

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        await self._ready()
        async with locked(self._content.content_lock, exclusive=False):
            yield

    async def _ready(self) -> None:
        if not self._created:
            await run(None, self._create)
            self._created = True

    def _create(self) -> None:
        try:
            self._content.create()
        except OSError as error:
            message = f"the image store {self._content.root} cannot be used: {error.strerror}"
            raise ImageError("ErrImagePull", message) from error

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """One at a time per name in this process: the second caller finds what the first one pulled."""
        flight = self._flights.get(name)
        if flight is None:
            flight = self._flights[name] = asyncio.Lock()
        async with flight:
            yield


def may_own_files() -> bool:
    """Whether files can be given to any user: root, and not the root of a user namespace."""
    if os.geteuid() != 0:
        return False
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _parse(text: str) -> Reference:
    try:
        return parse_reference(text)
    except InvalidReferenceError as error:
        raise invalid_name(text, str(error)) from error


def _target_name(name: str, source: str) -> Reference:
    if not name:
        raise invalid_name(source, "a name for the image is needed (-t NAME)")
    target = _parse(name)
    if target.transport != "registry" or target.digest:
        raise invalid_name(name, "an image is named like hello or dev.local/hello:latest")
    return target
