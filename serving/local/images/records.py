"""What the store knows of images and names, as it is on disk (JSON)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from serving.local.images.manifest import Descriptor
from serving.local.images.protocol import ImageConfig

Origin: TypeAlias = Literal["built", "imported", "pulled", "source"]
KEPT_ORIGINS: frozenset[Origin] = frozenset({"built", "imported"})
"""Names that a user gave: never evicted, only removed by him."""

Form: TypeAlias = Literal["erofs", "directory"]


class NameRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One name of one image. `pulled` and `source` names are a cache of what a registry or a path said."""

    name: str
    """Canonical, as `Reference.name`."""
    digest: str
    """Of the image's manifest for this machine's architecture."""
    resolved: str
    """What the name resolves to for others: the index's digest when there is one, else `digest`."""
    origin: Origin
    fingerprint: str = ""
    """Of a source when it was read; another fingerprint means that it has to be read again."""
    updated_at: float


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    config_digest: str
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    config: ImageConfig
    size_bytes: int
    """Manifest, configuration and layers as stored."""
    created_at: float


class RootfsRecord(msgspec.Struct, frozen=True, kw_only=True):
    form: Form
    entries: int
    size_bytes: int
    """On disk."""
    boot_id: str
    """Boot in which it was made: after a power loss the directory form is looked at before it is trusted."""
