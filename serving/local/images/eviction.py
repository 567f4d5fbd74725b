"""What may go, and letting it go.

The decision (`choose_victims`) is pure. The sweep is blocking: under the exclusive content lock it only renames
into `trash/`, so nobody waits for the deletion of a large tree.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from serving.local.images.content import ContentStore
from serving.local.images.locks import try_lock
from serving.local.images.records import KEPT_ORIGINS, ImageRecord
from serving.local.images.rootfs import disk_usage

_PARTIAL_SECONDS = 24 * 3600.0
GRACE_SECONDS = 120.0
"""An image used so recently is not evicted: a restarted node agent has not yet pinned what its pods use."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    bytes: int
    last_used: float
    evictable: bool


def choose_victims(candidates: Iterable[Candidate], *, max_bytes: int) -> list[str]:
    """Least recently used first, until the rest fits into `max_bytes`. Pure."""
    known = sorted(candidates, key=lambda candidate: (candidate.last_used, candidate.digest))
    excess = sum(candidate.bytes for candidate in known) - max_bytes
    victims = []
    for candidate in known:
        if excess <= 0:
            break
        if candidate.evictable:
            victims.append(candidate.digest)
            excess -= candidate.bytes
    return victims


def last_used(content: ContentStore, digest: str) -> float:
    try:
        return (content.image_dir(digest) / "used").stat().st_mtime
    except FileNotFoundError:
        return 0.0


def touch(content: ContentStore, digest: str) -> None:
    (content.image_dir(digest) / "used").touch()


def sweep(
    content: ContentStore, *, max_bytes: int, in_use: Collection[str] = (), unwanted: Collection[str] = ()
) -> list[str]:
    """Evict down to `max_bytes`, and what is `unwanted`; drop blobs that nothing needs and garbage of dead
    processes. Returns the digests of images whose root filesystem went. Does nothing while anybody adds content or
    starts to use it: the next sweep will."""
    victims = _choose(content, max_bytes=max_bytes, in_use=in_use, unwanted=unwanted)
    lock = try_lock(content.content_lock, exclusive=True)
    if lock is None:
        return []
    try:
        evicted = [digest for digest in victims if _remove_forms(content, digest)]
        _drop_unnamed(content)
        _drop_blobs(content)
        _drop_scratch(content)
    finally:
        lock.release()
    content.empty_trash()
    return evicted


def _choose(
    content: ContentStore, *, max_bytes: int, in_use: Collection[str], unwanted: Collection[str]
) -> list[str]:
    """Looks before the lock is taken. Who starts to use an image after that holds its pin."""
    sizes = {image.digest: disk_usage(content, image.digest) for image in content.images()}
    if sum(sizes.values()) <= max_bytes and not unwanted:
        return []
    busy = mounted_images(content.root) | set(in_use)
    oldest = time.time() - GRACE_SECONDS
    candidates = []
    for digest, size in sizes.items():
        used = last_used(content, digest)
        free = digest not in busy and (used < oldest or digest in unwanted)
        candidates.append(Candidate(digest=digest, bytes=size, last_used=used, evictable=free))
    refused = {digest for digest in unwanted if digest in busy}
    return [*(set(unwanted) - refused), *choose_victims(candidates, max_bytes=max_bytes)]


def _remove_forms(content: ContentStore, digest: str) -> bool:
    """False when some process has pinned it, or there is nothing to remove."""
    if disk_usage(content, digest) == 0:
        return False
    pin = try_lock(content.pin_lock(digest), exclusive=True)
    if pin is None:
        return False
    try:
        for form in ("erofs", "directory"):
            content.discard(content.image_dir(digest) / form)
    finally:
        pin.release()
    return True


def _drop_unnamed(content: ContentStore) -> None:
    """Forget images that are neither named by a user nor converted, with the cached names that led to them."""
    kept = {name.digest for name in content.names() if name.origin in KEPT_ORIGINS}
    for image in list(content.images()):
        if image.digest in kept or disk_usage(content, image.digest) > 0:
            continue
        pin = try_lock(content.pin_lock(image.digest), exclusive=True)
        if pin is None:
            continue
        content.discard(content.image_dir(image.digest))
        content.pin_lock(image.digest).unlink(missing_ok=True)
        content.convert_lock(image.digest).unlink(missing_ok=True)
        pin.release()
    present = {image.digest for image in content.images()}
    for name in list(content.names()):
        if name.digest not in present:
            content.remove_name(name.name)


def _drop_blobs(content: ContentStore) -> None:
    """Layers of an image that is converted and that no user named serve no purpose any more."""
    kept = {name.digest for name in content.names() if name.origin in KEPT_ORIGINS}
    needed: set[str] = set()
    for image in content.images():
        needed |= {image.digest, image.config_digest}
        if image.digest in kept:
            needed |= _layers(image)
    for path in list(content.blobs()):
        if f"sha256:{path.name}" not in needed:
            content.discard(path)


def _layers(image: ImageRecord) -> set[str]:
    return {layer.digest for layer in image.layers}


def _drop_scratch(content: ContentStore) -> None:
    for path in content.scratches():  # its owner would hold the content lock
        content.discard(path)
    for path in content.partials():
        if path.stat().st_mtime < time.time() - _PARTIAL_SECONDS:
            content.discard(path)


# what is in use although nobody holds a pin


def mounted_images(root: Path) -> set[str]:
    """Digests whose files are mounted, or used as a root or working directory, in any process that we may look
    at: sandboxes outlive the node agent that pinned their image."""
    prefix = f"{root / 'images'}/"
    found: set[str] = set()
    for text in _places():
        start = text.find(prefix)
        while start >= 0:
            start += len(prefix)
            found.add("sha256:" + text[start : start + 64])
            start = text.find(prefix, start)
    return found


def _places() -> Iterator[str]:
    seen: set[str] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            namespace = os.readlink(f"{entry.path}/ns/mnt")
            if namespace not in seen:
                yield Path(entry.path, "mountinfo").read_text(errors="replace")
                seen.add(namespace)
            for link in ("root", "cwd", "exe"):
                yield os.readlink(f"{entry.path}/{link}")
        except OSError:  # gone, a kernel thread, or somebody else's
            continue
