"""What the node agent asks of the image store."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The part of an OCI image configuration that decides how a container starts."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    """`NAME=value` strings."""
    working_dir: str = ""
    user: str = ""
    """`uid`, `uid:gid`, `name` or `name:group`; empty = root."""
    exposed_ports: tuple[int, ...] = ()
    stop_signal: str = "SIGTERM"


class Rootfs(msgspec.Struct, frozen=True, kw_only=True):
    """A read-only root filesystem, converted once per digest.

    Exactly one of `erofs` (an image file to mount) and `directory` (an unpacked tree) is the preferred form; a
    store may have both.
    """

    erofs: Path | None = None
    directory: Path | None = None


class Image(msgspec.Struct, frozen=True, kw_only=True):
    reference: str
    """As the user wrote it."""
    digest: str
    """`sha256:…` of the image manifest."""
    repo_digest: str
    """`registry/repository@sha256:…`, or `reference` where there is no registry."""
    config: ImageConfig
    rootfs: Rootfs
    size_bytes: int


class ImageError(Exception):
    """An image cannot be had. `reason` is Kubernetes' waiting reason: InvalidImageName, ErrImagePull,
    ErrImageNeverPull, ImageInspectError. `permanent`: asking again without a change is useless."""

    def __init__(self, reason: str, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.permanent = permanent


class Credentials(msgspec.Struct, frozen=True):
    username: str
    password: str


class ImageStore(Protocol):
    """Images by reference: `oci:DIR[:TAG]`, `docker-archive:FILE[:REF]`, `dir:PATH`, names imported or built
    into the store, or a registry reference."""

    async def resolve(self, reference: str, *, credentials: Credentials | None = None) -> str:
        """Digest reference (`repo@sha256:…`) without pulling the layers. Raises ImageError."""
        ...

    async def ensure(
        self, reference: str, *, pull_policy: str = "IfNotPresent", credentials: Credentials | None = None
    ) -> Image:
        """The image, pulled and converted when needed. Concurrent calls for one digest share the work. The
        image is pinned against eviction until `release`. Raises ImageError."""
        ...

    def release(self, digest: str) -> None:
        """Undo one `ensure`: the cache may evict the image when nobody else pins it."""
        ...
