"""Digests of private images, with the pull secrets that Kubernetes keeps."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from serving.controller.digests import DigestError
from serving.local.images.resolver import StoreResolver
from tests.local.images.kit import FakeImage
from tests.local.images.registry import PASSWORD, USER, LocalRegistry


@pytest.mark.parametrize("auth", ["token", "basic"])
async def test_a_pull_secret_opens_a_private_registry(tmp_path: Path, auth: str) -> None:
    resolver = StoreResolver(tmp_path)
    async with LocalRegistry(auth=auth) as registry:
        image = FakeImage([b"layer"])
        registry.push("private/app", "latest", image)
        reference = registry.reference("private/app")
        entry = {"username": USER, "password": PASSWORD}
        secret = msgspec.json.encode({"auths": {registry.address: entry}})
        found = await resolver.resolve(
            reference, secrets=[{".dockerconfigjson": b"{}"}, {".dockerconfigjson": secret}]
        )
        assert found.endswith(image.digest)
        with pytest.raises(DigestError, match=r"401|UNAUTHORIZED"):
            await resolver.resolve(reference)
