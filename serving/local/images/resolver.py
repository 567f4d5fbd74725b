"""The controller's view of the store: references to digests, with the store's names before the registry's."""

from __future__ import annotations

from pathlib import Path

from serving.controller.digests import DigestError
from serving.local.images.protocol import ImageError
from serving.local.images.store import LocalImageStore


class StoreResolver:
    """Implements `DigestResolver` with the image store at `root`, which is made when it is missing."""

    def __init__(self, root: Path) -> None:
        self._store = LocalImageStore(root)

    async def resolve(self, reference: str) -> str:
        """Raises DigestError."""
        try:
            return await self._store.resolve(reference)
        except ImageError as error:
            raise DigestError(error.message) from error
