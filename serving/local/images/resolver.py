"""The local store and registries as the controller's digest resolver."""

from __future__ import annotations

from pathlib import Path

from serving.controller.digests import DigestError
from serving.local.images.protocol import ImageError
from serving.local.images.store import LocalImageStore


class StoreResolver:
    """Resolves names of the store first, then asks registries. Nothing is pulled."""

    def __init__(self, root: Path) -> None:
        self._store = LocalImageStore(root)

    async def resolve(self, reference: str) -> str:
        """`repository@sha256:…`. Raises DigestError."""
        try:
            return await self._store.resolve(reference)
        except ImageError as error:
            raise DigestError(error.message) from error
