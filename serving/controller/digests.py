"""Image references to digests, once per Revision, so that every pod of it runs the same bytes."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from serving.api.config.deployment import DeploymentConfig
from serving.api.pod import Container
from serving.api.resources import SECRETS, SERVICE_ACCOUNTS
from serving.api.v1 import ContainerImageStatus, Revision
from serving.controller.revision import Images
from serving.kube.client import KubeClient
from serving.kube.errors import ApiError

PullSecret: TypeAlias = Mapping[str, bytes]
"""Data of a Secret with registry credentials, as Kubernetes keeps them."""

_DOCKER_HUB = "index.docker.io"


class DigestError(Exception):
    """A reference cannot be resolved; the text is what the registry said."""


class DigestResolver(Protocol):
    async def resolve(self, reference: str, *, secrets: Sequence[PullSecret] = ()) -> str:
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


async def resolve_digests(
    revision: Revision, *, resolver: DigestResolver, config: DeploymentConfig, client: KubeClient
) -> Images:
    """Resolve every container's image with the pull secrets of the Revision and of its service account.

    A failure is in the result, never raised; but KubeError is, when the API server does not tell the secrets.
    """
    view = revision.view()
    containers = (*view.containers, *view.init_containers)
    timeout = config.digest_resolution_timeout
    secrets: list[PullSecret] = []
    if any(_is_asked(container.image, config) for container in containers):
        names = [reference.name for reference in view.image_pull_secrets]
        secrets = await pull_secrets(
            client, revision.metadata.namespace, names=names, account=view.service_account_name or "default"
        )
    try:
        async with asyncio.timeout(timeout):
            return Images(
                containers=await _resolve(view.containers, resolver, config, secrets),
                init_containers=await _resolve(view.init_containers, resolver, config, secrets),
            )
    except TimeoutError:
        images = ", ".join(container.image for container in containers)
        return Images(
            error=f'Unable to fetch image "{images}": failed to resolve image to digest: '
            f"no answer within {timeout:g} s"
        )
    except _Failed as failed:
        return Images(error=f'Unable to fetch image "{failed.image}": failed to resolve image to digest: {failed}')


async def pull_secrets(client: KubeClient, namespace: str, *, names: list[str], account: str) -> list[PullSecret]:
    """Secrets by name, then those of a service account. What does not exist, or may not be read, is left out:
    the image may be public. Raises KubeError when the API server cannot be asked."""
    found: list[PullSecret] = []
    of_account = await _get(client, account, namespace, secret=False)
    listed = (of_account or {}).get("imagePullSecrets") or []
    for name in dict.fromkeys([*names, *(entry.get("name", "") for entry in listed)]):
        secret = await _get(client, name, namespace, secret=True) if name else None
        if secret is not None:
            found.append(_decoded(secret.get("data") or {}))
    return found


async def _get(client: KubeClient, name: str, namespace: str, *, secret: bool) -> dict[str, Any] | None:
    try:
        return await client.get(SECRETS if secret else SERVICE_ACCOUNTS, name, namespace)
    except ApiError as error:
        if error.transient:
            raise
        return None


def _decoded(data: Mapping[str, str]) -> PullSecret:
    decoded = {}
    for key, text in data.items():
        try:
            decoded[key] = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
    return decoded


class _Failed(Exception):
    def __init__(self, image: str, text: str) -> None:
        super().__init__(text)
        self.image = image


async def _resolve(
    containers: tuple[Container, ...],
    resolver: DigestResolver,
    config: DeploymentConfig,
    secrets: Sequence[PullSecret],
) -> tuple[ContainerImageStatus, ...]:
    found = []
    for container in containers:
        digest = container.image if "@" in container.image else ""
        if _is_asked(container.image, config):
            try:
                digest = await resolver.resolve(container.image, secrets=secrets)
            except DigestError as error:
                raise _Failed(container.image, str(error)) from error
        found.append(ContainerImageStatus(name=container.name, image_digest=digest))
    return tuple(found)


def _is_asked(image: str, config: DeploymentConfig) -> bool:
    """An image given by digest is taken by its word, and so is a tag of a registry that is to be skipped."""
    return "@" not in image and registry_of(image) not in config.registries_skipping_tag_resolving


def registry_of(image: str) -> str:
    """Registry of a reference, as config-deployment names it; `index.docker.io` when it names none."""
    head, slash, _ = image.partition("/")
    return head if slash and ("." in head or ":" in head or head == "localhost") else _DOCKER_HUB
