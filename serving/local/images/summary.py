"""What `nodeless image list` shows. Blocking."""

from __future__ import annotations

import msgspec

from serving.local.images.content import ContentStore
from serving.local.images.eviction import last_used
from serving.local.images.records import NameRecord, Origin
from serving.local.images.rootfs import disk_usage


class ImageSummary(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """Empty for an image that nothing names any more."""
    digest: str
    origin: Origin | None
    size_bytes: int
    rootfs_bytes: int
    """0 while it is not converted."""
    created_at: float
    """When the name was last set. Unix seconds."""
    last_used: float
    """0 when it never was."""


def summaries(content: ContentStore) -> list[ImageSummary]:
    """One entry for each name, and for each image without one; by name."""
    names: dict[str, list[NameRecord | None]] = {}
    for record in content.names():
        if not record.name.startswith("@"):  # aliases of indexes
            names.setdefault(record.digest, []).append(record)
    found = [
        ImageSummary(
            name=name.name if name else "",
            digest=image.digest,
            origin=name.origin if name else None,
            size_bytes=image.size_bytes,
            rootfs_bytes=disk_usage(content, image.digest),
            created_at=name.updated_at if name else image.created_at,
            last_used=last_used(content, image.digest),
        )
        for image in content.images()
        for name in names.get(image.digest, [None])
    ]
    return sorted(found, key=lambda summary: (summary.name == "", summary.name, summary.digest))


def summary(content: ContentStore, name: str) -> ImageSummary:
    return next(found for found in summaries(content) if found.name == name)
