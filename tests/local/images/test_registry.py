from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.local.images.limits import Limits
from serving.local.images.protocol import Credentials, ImageError
from serving.local.images.registry_http import Timeouts, is_loopback
from serving.local.images.store import LocalImageStore

from .kit import FakeImage, digest_of, entry, index_of, tar
from .registry import PASSWORD, USER, LocalRegistry

FAST = Timeouts(connect=2.0, read=2.0, document=3.0, layer=5.0, first_retry=0.001)
LAYER = tar([entry("run", b"#!/bin/sh\n", mode=0o755)])
NOISE = os.urandom(300_000)
BIG = tar([entry("noise", NOISE)])
ANN = Credentials(USER, PASSWORD)


@pytest.fixture
async def registry() -> AsyncIterator[LocalRegistry]:
    async with LocalRegistry() as started:
        yield started


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalImageStore]:
    async with LocalImageStore(tmp_path / "store", prefer_erofs=False, timeouts=FAST) as made:
        yield made


def partials(tmp_path: Path) -> list[int]:
    return [path.stat().st_size for path in (tmp_path / "store/partial").iterdir()]


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
async def test_pull(store: LocalImageStore, registry: LocalRegistry, docker: bool, compression: str) -> None:
    image = FakeImage([LAYER, BIG, LAYER], compression=compression, docker=docker)
    registry.push("team/app", "v1", image)
    reference = registry.reference("team/app", "v1")
    found = await store.ensure(reference)
    assert (found.digest, found.reference) == (image.digest, reference)
    assert found.repo_digest == f"{registry.address}/team/app@{image.digest}"
    assert found.rootfs.directory is not None
    assert (found.rootfs.directory / "noise").read_bytes() == NOISE
    assert found.size_bytes == sum(len(image.blobs[digest]) for digest in image.layer_digests) + len(
        image.blobs[image.digest]
    ) + len(next(data for data in image.blobs.values() if b'"diff_ids"' in data))


async def test_an_index_is_what_resolves_and_its_fitting_manifest_is_what_runs(
    store: LocalImageStore, registry: LocalRegistry
) -> None:
    mine, other = FakeImage([LAYER]), FakeImage([BIG], architecture="s390x")
    digest = registry.push("app", "latest", other, mine, index=index_of(other, mine))
    pinned = f"{registry.address}/app@{digest}"
    assert await store.resolve(registry.reference("app")) == pinned
    found = await store.ensure(registry.reference("app"))
    assert (found.digest, found.repo_digest) == (mine.digest, pinned)
    before = registry.requests.total()
    again = await store.ensure(pinned)
    assert (again.digest, again.repo_digest) == (mine.digest, pinned)
    assert registry.requests.total() == before
    with pytest.raises(ImageError, match=f"{registry.address}/app2.*NAME_UNKNOWN|v2/app2/.*NAME_UNKNOWN"):
        await store.resolve(registry.reference("app2"))


async def test_resolve_asks_by_head_and_fetches_nothing(store: LocalImageStore, registry: LocalRegistry) -> None:
    image = FakeImage([LAYER])
    registry.push("app", "latest", image)
    assert await store.resolve(registry.reference("app")) == f"{registry.address}/app@{image.digest}"
    assert dict(registry.requests) == {"HEAD manifest": 1}
    pinned = f"{registry.address}/app@sha256:{'0' * 64}"
    assert await store.resolve(pinned) == pinned
    assert dict(registry.requests) == {"HEAD manifest": 1}


async def test_resolve_without_digest_header(store: LocalImageStore, registry: LocalRegistry) -> None:
    registry.content_digest = False
    image = FakeImage([LAYER])
    registry.push("app", "latest", image)
    assert (await store.resolve(registry.reference("app"))).endswith(image.digest)


async def test_what_is_there_is_not_pulled_again(store: LocalImageStore, registry: LocalRegistry) -> None:
    reference = registry.reference("app")
    registry.push("app", "latest", FakeImage([LAYER]))
    first = await store.ensure(reference)
    before = registry.requests.total()
    assert (await store.ensure(reference)).digest == first.digest
    assert (await store.ensure(first.repo_digest, pull_policy="Always")).digest == first.digest
    assert registry.requests.total() == before
    moved = FakeImage([BIG])
    registry.push("app", "latest", moved)
    assert (await store.ensure(reference)).digest == first.digest
    assert (await store.ensure(reference, pull_policy="Always")).digest == moved.digest
    assert (await store.ensure(reference, pull_policy="Never")).digest == moved.digest


async def test_concurrent_pulls_share_the_download(store: LocalImageStore, registry: LocalRegistry) -> None:
    registry.push("app", "latest", FakeImage([LAYER, BIG]))
    found = await asyncio.gather(*(store.ensure(registry.reference("app")) for _ in range(10)))
    assert len({image.rootfs.directory for image in found}) == 1
    assert registry.requests["GET blob"] == 3


async def test_an_image_is_a_base_although_its_layers_were_dropped(
    store: LocalImageStore, registry: LocalRegistry, tmp_path: Path
) -> None:
    reference = registry.reference("app")
    registry.push("app", "latest", FakeImage([LAYER], config={"Entrypoint": ["/run"], "Env": ["A=1", "B=2"]}))
    await store.ensure(reference)
    imported = await store.import_image(reference)
    assert (imported.name, imported.origin) == (reference, "imported")
    registry.manifests.clear()
    registry.blobs.clear()
    assert (await store.ensure(reference, pull_policy="Always")).config.entrypoint == ("/run",)


# authentication


@pytest.mark.parametrize("auth", ["token", "basic"])
async def test_credentials(store: LocalImageStore, auth: str) -> None:
    async with LocalRegistry(auth=auth) as registry:
        image = FakeImage([LAYER])
        registry.push("private/app", "latest", image)
        reference = registry.reference("private/app")
        assert (await store.resolve(reference, credentials=ANN)).endswith(image.digest)
        assert (await store.ensure(reference, credentials=ANN)).digest == image.digest


async def test_anonymous_tokens(store: LocalImageStore) -> None:
    async with LocalRegistry(auth="anonymous") as registry:
        image = FakeImage([LAYER])
        registry.push("app", "latest", image)
        assert (await store.ensure(registry.reference("app"))).digest == image.digest


@pytest.mark.parametrize(
    ("auth", "credentials", "problem"),
    [
        ("token", None, "/token: unexpected status code 401 Unauthorized"),
        ("token", Credentials("ann", "wrong"), "/token: unexpected status code 401 Unauthorized"),
        ("basic", None, r"GET .*/manifests/latest: UNAUTHORIZED: authentication required; \[map\[Action:pull"),
        ("basic", Credentials("ann", "wrong"), "UNAUTHORIZED: authentication required"),
    ],
)
async def test_refused_credentials(
    store: LocalImageStore, auth: str, credentials: Credentials | None, problem: str
) -> None:
    async with LocalRegistry(auth=auth) as registry:
        registry.push("app", "latest", FakeImage([LAYER]))
        for action in (store.ensure, store.resolve):
            with pytest.raises(ImageError, match=problem) as caught:
                await action(registry.reference("app"), credentials=credentials)
            assert caught.value.reason == "ErrImagePull"
            assert "wrong" not in caught.value.message


async def test_credentials_do_not_follow_redirects(store: LocalImageStore) -> None:
    async with LocalRegistry(auth="token", redirect_blobs=True) as registry:
        image = FakeImage([LAYER])
        registry.push("app", "latest", image)
        assert (await store.ensure(registry.reference("app"), credentials=ANN)).digest == image.digest
        assert not registry.storage_saw_authorization


@pytest.mark.parametrize("place", ["http://192.0.2.1/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
async def test_redirects_elsewhere_are_refused(
    store: LocalImageStore, registry: LocalRegistry, place: str
) -> None:
    registry.push("app", "latest", FakeImage([LAYER]))
    registry.redirect_to = place
    with pytest.raises(ImageError, match="is refused: https is required"):
        await store.ensure(registry.reference("app"))
    registry.redirect_to = "/v2/app/blobs/again"
    with pytest.raises(ImageError, match="more than 5 redirects"):
        await store.ensure(registry.reference("app"))


async def test_a_token_service_elsewhere_is_refused(store: LocalImageStore) -> None:
    async with LocalRegistry(auth="token") as registry:
        registry.realm = "http://192.0.2.1/token"
        registry.push("app", "latest", FakeImage([LAYER]))
        with pytest.raises(ImageError, match=r"going to http://192.0.2.1/token is refused"):
            await store.ensure(registry.reference("app"), credentials=ANN)


# what goes wrong


async def test_unknown_names_have_the_registrys_words(store: LocalImageStore, registry: LocalRegistry) -> None:
    registry.push("app", "latest", FakeImage([LAYER]))
    for action in (store.resolve, store.ensure):
        with pytest.raises(ImageError) as caught:
            await action(registry.reference("app", "nope"))
        assert caught.value.reason == "ErrImagePull"
        assert not caught.value.permanent
        url = f"http://{registry.address}/v2/app/manifests/nope"
        assert caught.value.message == f"GET {url}: MANIFEST_UNKNOWN: manifest unknown; map[Tag:nope]"


async def test_no_registry(store: LocalImageStore, registry: LocalRegistry) -> None:
    async with LocalRegistry() as gone:
        reference = gone.reference("app")
    with pytest.raises(ImageError, match=r"HEAD http://127.0.0.1:.*: dial tcp 127.0.0.1:\d+: Connect call failed"):
        await store.resolve(reference)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_passing_failures_are_retried(store: LocalImageStore, registry: LocalRegistry, status: int) -> None:
    image = FakeImage([LAYER])
    registry.push("app", "latest", image)
    registry.failures = {"manifest": [status, status], "blob": [status]}
    assert (await store.ensure(registry.reference("app"))).digest == image.digest
    registry.failures = {"manifest": [status] * 4}
    with pytest.raises(ImageError, match="UNAVAILABLE: try again"):
        await store.ensure(registry.reference("app"), pull_policy="Always")
    assert registry.failures["manifest"] == []


async def test_a_broken_download_is_resumed(
    store: LocalImageStore, registry: LocalRegistry, tmp_path: Path
) -> None:
    image = FakeImage([BIG])
    registry.push("app", "latest", image)
    size = len(image.blobs[image.layer_digests[0]])
    config = 1_000_000  # never cut
    registry.cut_blobs_after = [config, 100_000, 100_000, 50_000]
    found = await store.ensure(registry.reference("app"))
    assert found.rootfs.directory is not None
    assert (found.rootfs.directory / "noise").stat().st_size == len(NOISE)
    assert registry.requests["GET blob"] == 1 + 1 + 4 - 1
    assert partials(tmp_path) == []
    assert size > 250_000


async def test_a_server_without_ranges(store: LocalImageStore, registry: LocalRegistry, tmp_path: Path) -> None:
    registry.push("app", "latest", FakeImage([BIG]))
    registry.ignore_ranges = True
    registry.cut_blobs_after = [1_000_000, 100_000]
    assert (await store.ensure(registry.reference("app"))).digest
    assert partials(tmp_path) == []


async def test_another_process_goes_on_where_the_first_stopped(
    store: LocalImageStore, registry: LocalRegistry, tmp_path: Path
) -> None:
    registry.push("app", "latest", FakeImage([BIG]))
    registry.cut_blobs_after = [1_000_000, 100_000, 0, 0, 0]
    with pytest.raises(ImageError):
        await store.ensure(registry.reference("app"))
    (kept,) = partials(tmp_path)
    assert 0 < kept <= 100_000
    async with LocalImageStore(tmp_path / "store", prefer_erofs=False, timeouts=FAST) as other:
        assert (await other.ensure(registry.reference("app"))).digest
    assert partials(tmp_path) == []


async def test_corrupt_content_is_never_used(
    store: LocalImageStore, registry: LocalRegistry, tmp_path: Path
) -> None:
    image = FakeImage([BIG])
    registry.push("app", "latest", image)
    layer = image.layer_digests[0]
    good = registry.blobs[layer]
    registry.blobs[layer] = good[:-1] + bytes([good[-1] ^ 1])
    with pytest.raises(ImageError, match=f"{layer} is corrupt: its digest is sha256:"):
        await store.ensure(registry.reference("app"))
    registry.blobs[layer] = good + b"more"
    with pytest.raises(ImageError, match=f"{layer} is larger than {len(good)} bytes"):
        await store.ensure(registry.reference("app"))
    registry.blobs[layer] = good[:1000]
    with pytest.raises(ImageError, match=r"ended after 1000 bytes|416"):
        await store.ensure(registry.reference("app"))
    registry.blobs[layer] = good
    assert (await store.ensure(registry.reference("app"))).digest == image.digest


async def test_a_manifest_must_have_its_digest(store: LocalImageStore, registry: LocalRegistry) -> None:
    image = FakeImage([LAYER])
    registry.push("app", "latest", image)
    other = b'{"manifests": []}'
    registry.manifests["app", image.digest] = (other, image.media_type)
    with pytest.raises(ImageError, match=f"the manifest has digest {digest_of(other)}, not {image.digest}"):
        await store.ensure(f"{registry.address}/app@{image.digest}")


async def test_a_huge_manifest_is_not_read_to_the_end(tmp_path: Path, registry: LocalRegistry) -> None:
    registry.push("app", "latest", FakeImage([LAYER] * 50))
    limits = Limits(document_bytes=1000)
    async with LocalImageStore(tmp_path / "store", timeouts=FAST, limits=limits) as store:
        with pytest.raises(ImageError, match="more than 1000 bytes"):
            await store.ensure(registry.reference("app"))


@pytest.mark.parametrize(
    ("registry", "loopback"),
    [
        *(("localhost", True), ("localhost:5000", True), ("x.localhost:80", True), ("127.0.0.1:5000", True)),
        *(("127.9.9.9", True), ("[::1]:5000", True), ("gcr.io", False), ("10.0.0.1:5000", False)),
        *(("localhost.example.com", False), ("127.0.0.1.nip.io", False), ("[::2]", False)),
    ],
)
def test_only_loopback_speaks_plain_http(registry: str, loopback: bool) -> None:
    assert is_loopback(registry) is loopback
