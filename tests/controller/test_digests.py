"""Digest resolution: which images are asked for, with which secrets, and what a failure says."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from serving.api.config.deployment import DeploymentConfig
from serving.api.meta import JsonObject
from serving.api.resources import SECRETS, SERVICE_ACCOUNTS
from serving.api.v1 import Revision
from serving.controller.digests import DigestError, registry_of, resolve_digests
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from tests.local.apiserver.harness import running_apiserver

DIGEST = "sha256:" + "0" * 64


@asynccontextmanager
async def api(directory: Path) -> AsyncIterator[KubeClient]:
    async with running_apiserver(directory) as server:
        connection = over_unix_socket(server.socket, token=server.token)
        async with KubeClient(connection) as client:
            yield client


class Registry:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.secrets: list[Mapping[str, bytes]] = []

    async def resolve(self, reference: str, *, secrets: Sequence[Mapping[str, bytes]] = ()) -> str:
        self.asked.append(reference)
        self.secrets = list(secrets)
        if "missing" in reference:
            raise DigestError("HEAD https://registry.test/v2/missing/manifests/latest: 404 Not Found")
        if "slow" in reference:
            await asyncio.sleep(60)
        return f"{reference}@{DIGEST}"


def revision(*images: str, init: tuple[str, ...] = (), **spec: object) -> Revision:
    containers = [{"name": f"c{index}", "image": image} for index, image in enumerate(images)]
    body: JsonObject = {
        "metadata": {"name": "r", "namespace": "default"},
        "spec": {"containers": containers, **spec},
    }
    if init:
        body["spec"]["initContainers"] = [{"name": "init", "image": image} for image in init]
    return msgspec.convert(body, Revision)


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("hello", "index.docker.io"),
        ("team/hello", "index.docker.io"),
        ("dev.local/hello", "dev.local"),
        ("localhost/hello", "localhost"),
        ("localhost:5000/hello:tag", "localhost:5000"),
        ("ghcr.io/team/hello@sha256:x", "ghcr.io"),
    ],
)
def test_registry_of(image: str, registry: str) -> None:
    assert registry_of(image) == registry


async def test_secrets_of_the_pod_and_of_its_account(tmp_path: Path) -> None:
    async with api(tmp_path) as client:
        await _secret(client, "mine", b"1")
        await _secret(client, "account", b"2")
        await client.patch(
            SERVICE_ACCOUNTS,
            "default",
            {"imagePullSecrets": [{"name": "account"}, {"name": "gone"}]},
            "default",
        )
        registry = Registry()
        images = await resolve_digests(
            revision("registry.test/hello", imagePullSecrets=[{"name": "mine"}, {"name": "absent"}]),
            resolver=registry,
            config=DeploymentConfig(queue_sidecar_image="x"),
            client=client,
        )
        assert images.containers[0].image_digest == f"registry.test/hello@{DIGEST}"
        assert registry.secrets == [{".dockerconfigjson": b"1"}, {".dockerconfigjson": b"2"}]


async def _secret(client: KubeClient, name: str, data: bytes) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "data": {".dockerconfigjson": base64.b64encode(data).decode()},
    }
    await client.create(SECRETS, body)


async def test_what_is_skipped_or_a_digest_already_asks_nobody(tmp_path: Path) -> None:
    async with KubeClient(over_unix_socket(tmp_path / "nobody.sock", token="t")) as client:
        registry = Registry()
        pinned = f"registry.test/hello@{DIGEST}"
        images = await resolve_digests(
            revision("dev.local/hello", pinned, init=("kind.local/init",)),
            resolver=registry,
            config=DeploymentConfig(queue_sidecar_image="x"),
            client=client,
        )
        assert [one.image_digest for one in images.containers] == ["", pinned]
        assert [one.image_digest for one in images.init_containers] == [""]
        assert registry.asked == []


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("registry.test/missing", "HEAD https://registry.test/v2/missing/manifests/latest: 404 Not Found"),
        ("registry.test/slow", "no answer within 0.05 s"),
    ],
)
async def test_failures(tmp_path: Path, image: str, why: str) -> None:
    async with api(tmp_path) as client:
        images = await resolve_digests(
            revision(image),
            resolver=Registry(),
            config=DeploymentConfig(queue_sidecar_image="x", digest_resolution_timeout=0.05),
            client=client,
        )
        assert images.error == f'Unable to fetch image "{image}": failed to resolve image to digest: {why}'
