"""Image references to digests, once per Revision, so that every pod of it runs the same bytes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from serving.api.config.deployment import DeploymentConfig
from serving.api.pod import Container
from serving.api.v1 import ContainerImageStatus, Revision
from serving.controller.revision import Images


class DigestError(Exception):
    """A reference cannot be resolved; the text is what the registry said."""


class DigestResolver(Protocol):
    async def resolve(self, reference: str) -> str:
        """`repository@sha256:…`. Raises DigestError."""
        ...


def stored_digests(revision: Revision) -> Images | None:
    """What an earlier run resolved and stored in the status, or None."""
    status = revision.status
    view = revision.view()
    if len(status.container_statuses) != len(view.containers):
        return None
    if len(status.init_container_statuses) != len(view.init_containers):
        return None
    return Images(containers=status.container_statuses, init_containers=status.init_container_statuses)


async def resolve_digests(revision: Revision, *, resolver: DigestResolver, config: DeploymentConfig) -> Images:
    """Resolve every container's image; a failure is in the result, never raised."""
    view = revision.view()
    timeout = config.digest_resolution_timeout
    try:
        async with asyncio.timeout(timeout):
            return Images(
                containers=await _resolve(view.containers, resolver, config),
                init_containers=await _resolve(view.init_containers, resolver, config),
            )
    except TimeoutError:
        images = ", ".join(container.image for container in (*view.containers, *view.init_containers))
        return Images(
            error=f'Unable to fetch image "{images}": failed to resolve image to digest: '
            f"no answer within {timeout:g} s"
        )
    except _Failed as failed:
        return Images(error=f'Unable to fetch image "{failed.image}": failed to resolve image to digest: {failed}')


class _Failed(Exception):
    def __init__(self, image: str, text: str) -> None:
        super().__init__(text)
        self.image = image


async def _resolve(
    containers: tuple[Container, ...], resolver: DigestResolver, config: DeploymentConfig
) -> tuple[ContainerImageStatus, ...]:
    found = []
    for container in containers:
        digest = ""
        if not _skipped(container.image, config):
            try:
                digest = await resolver.resolve(container.image)
            except DigestError as error:
                raise _Failed(container.image, str(error)) from error
        found.append(ContainerImageStatus(name=container.name, image_digest=digest))
    return tuple(found)


def _skipped(image: str, config: DeploymentConfig) -> bool:
    """Registries whose tags are used as they are; images given by digest need no resolution either."""
    registry = image.split("/", 1)[0]
    return registry in config.registries_skipping_tag_resolving
