"""The local store and registries as the controller's digest resolver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serving.controller.digests import DigestError, PullSecret
from serving.local.images.protocol import ImageError
from serving.local.images.store import LocalImageStore
from serving.local.node.pullsecrets import credentials_for


class StoreResolver:
    """Resolves names of the store first, then asks registries. Nothing is pulled."""

    def __init__(self, root: Path) -> None:
        self._store = LocalImageStore(root)

    async def resolve(self, reference: str, *, secrets: Sequence[PullSecret] = ()) -> str:
        """`repository@sha256:…`. Raises DigestError."""
        credentials = credentials_for(reference, secrets)
        try:
            return await self._store.resolve(reference, credentials=credentials)
        except ImageError as error:
            raise DigestError(error.message) from error
