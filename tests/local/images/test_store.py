from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.local.images.build import BuildSpec
from serving.local.images.erofs import ErofsReport
from serving.local.images.limits import Limits
from serving.local.images.protocol import Image, ImageError, ImageStore
from serving.local.images.store import LocalImageStore

from .kit import FakeImage, directory, entry, index_of, symlink, tar, write_docker_archive, write_layout

LAYER = tar([directory("bin"), entry("bin/run", b"#!/bin/sh\n", mode=0o755), symlink("run", "bin/run")])
SECOND = tar([entry("bin/.wh.run"), entry("bin/other", b"2")])


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalImageStore]:
    async with LocalImageStore(tmp_path / "store", prefer_erofs=False) as made:
        yield made


def tree(image: Image) -> Path:
    assert image.rootfs.directory is not None
    return image.rootfs.directory


async def build(store: LocalImageStore, path: Path, name: str, content: str = "x") -> str:
    path.mkdir(exist_ok=True)
    (path / "file").write_text(content)
    built = await store.build(BuildSpec(directory=path, entrypoint=("/file",)), name=name)
    return built.digest


def age(store_root: Path, digest: str, seconds: float) -> None:
    """As if the image had been used that long ago."""
    used = store_root / "images" / digest.removeprefix("sha256:") / "used"
    then = time.time() - seconds
    os.utime(used, (then, then))


# sources


async def test_an_oci_layout(store: LocalImageStore, tmp_path: Path) -> None:
    image = FakeImage([LAYER, SECOND], config={"Entrypoint": ["/run"], "User": "65532"})
    layout = write_layout(tmp_path / "layout", {"v1": image, "v2": FakeImage([LAYER])})
    found = await store.ensure(f"oci:{layout}:v1")
    assert found.digest == image.digest
    assert found.repo_digest == f"oci:{layout}:v1@{image.digest}"
    assert found.config.entrypoint == ("/run",)
    assert found.config.user == "65532"
    assert sorted(path.name for path in tree(found).rglob("*")) == ["bin", "other", "run"]
    assert await store.resolve(f"oci:{layout}:v1") == found.repo_digest
    again = await store.ensure(found.repo_digest)
    assert again.rootfs == found.rootfs


async def test_a_layout_with_an_index(store: LocalImageStore, tmp_path: Path) -> None:
    mine, other = FakeImage([LAYER]), FakeImage([SECOND], architecture="s390x")
    index = index_of(other, mine)
    outer = FakeImage([LAYER, LAYER])
    outer.blobs |= mine.blobs | other.blobs
    outer.descriptor = outer.add(index, "application/vnd.oci.image.index.v1+json")
    layout = write_layout(tmp_path / "layout", {"latest": outer})
    found = await store.ensure(f"oci:{layout}")
    assert found.digest == mine.digest
    assert found.repo_digest.endswith(outer.descriptor["digest"])
    assert (await store.ensure(found.repo_digest)).digest == mine.digest


@pytest.mark.parametrize(
    ("suffix", "problem"),
    [
        (":v3", 'no tag "v3"'),
        ("", "2 images, name one: v1, v2"),
        ("@sha256:" + "0" * 64, "the layout has no sha256"),
    ],
)
async def test_what_a_layout_has_not(store: LocalImageStore, tmp_path: Path, suffix: str, problem: str) -> None:
    layout = write_layout(tmp_path / "layout", {"v1": FakeImage([LAYER]), "v2": FakeImage([SECOND])})
    with pytest.raises(ImageError, match=problem):
        await store.ensure(f"oci:{layout}{suffix}")


async def test_a_corrupt_layout_is_refused(store: LocalImageStore, tmp_path: Path) -> None:
    image = FakeImage([LAYER])
    layout = write_layout(tmp_path / "layout", {"v1": image})
    blob = layout / "blobs/sha256" / image.layer_digests[0].removeprefix("sha256:")
    blob.write_bytes(blob.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ImageError, match="is corrupt"):
        await store.ensure(f"oci:{layout}")
    (layout / "index.json").write_text("{")
    with pytest.raises(ImageError, match="not a valid image manifest"):
        await store.ensure(f"oci:{layout}")
    with pytest.raises(ImageError, match="cannot be read: No such file"):
        await store.resolve(f"oci:{tmp_path}/nowhere")


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
async def test_a_docker_archive(store: LocalImageStore, tmp_path: Path, compression: str) -> None:
    archive = write_docker_archive(
        tmp_path / "image.tar", [LAYER, SECOND], ["hello:v1", "team/hello:latest"], compression=compression
    )
    found = await store.ensure(f"docker-archive:{archive}")
    assert found.config.cmd == ("/run",)
    assert (tree(found) / "bin/other").read_bytes() == b"2"
    by_tag = await store.ensure(f"docker-archive:{archive}:team/hello")
    assert by_tag.digest == found.digest
    with pytest.raises(ImageError, match=r'no "other", it has hello:v1, team/hello:latest'):
        await store.ensure(f"docker-archive:{archive}:other")


@pytest.mark.parametrize(
    "data", [b"", b"no archive" * 100, tar([entry("manifest.json", b"[]")]), LAYER], ids=range(4)
)
async def test_what_is_no_docker_archive(store: LocalImageStore, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"docker-archive:.*(not a docker archive|0 images)"):
        await store.ensure(f"docker-archive:{path}")


async def test_a_directory_is_copied_and_noticed_when_it_changes(store: LocalImageStore, tmp_path: Path) -> None:
    source = tmp_path / "app"
    source.mkdir()
    (source / "file").write_text("one")
    first = await store.ensure(f"dir:{source}")
    assert (await store.ensure(f"dir:{source}")).digest == first.digest
    (source / "file").write_text("two")
    second = await store.ensure(f"dir:{source}")
    assert second.digest != first.digest
    assert (tree(first) / "file").read_text() == "one"
    assert (tree(second) / "file").read_text() == "two"
    assert (await store.ensure(first.repo_digest)).digest == first.digest
    with pytest.raises(ImageError, match="the source has changed, it is now"):
        await store.ensure(f"dir:{source}@sha256:{'0' * 64}")


async def test_paths_must_be_absolute(store: LocalImageStore) -> None:
    for reference in ("dir:app", "oci:layout:v1"):
        with pytest.raises(ImageError, match="must be absolute") as caught:
            await store.ensure(reference)
        assert caught.value.reason == "InvalidImageName"


# names


async def test_names_resolve_and_carry_digests(store: LocalImageStore, tmp_path: Path) -> None:
    digest = await build(store, tmp_path / "app", "hello")
    pinned = f"index.docker.io/library/hello@{digest}"
    assert await store.resolve("hello") == pinned
    assert await store.resolve("docker.io/library/hello:latest") == pinned
    assert await store.resolve(pinned) == pinned
    for reference in ("hello", pinned, f"other.io/app@{digest}"):
        for policy in ("Always", "IfNotPresent", "Never"):
            assert (await store.ensure(reference, pull_policy=policy)).digest == digest


async def test_import_gives_a_name(store: LocalImageStore, tmp_path: Path) -> None:
    image = FakeImage([LAYER])
    layout = write_layout(tmp_path / "layout", {"v1": image})
    imported = await store.import_image(f"oci:{layout}", name="dev.local/mine:v1")
    assert (imported.name, imported.origin) == ("dev.local/mine:v1", "imported")
    subprocess.run(["rm", "-r", str(layout)], check=True)
    assert (await store.ensure("dev.local/mine:v1")).digest == image.digest
    with pytest.raises(ImageError, match="a name for the image is needed"):
        await store.import_image(f"oci:{layout}")
    with pytest.raises(ImageError, match="is named like"):
        await store.import_image(f"oci:{layout}", name="dir:/x")


async def test_errors_have_kubernetes_reasons(store: LocalImageStore) -> None:
    with pytest.raises(ImageError, match="could not parse reference: No Such") as caught:
        await store.ensure("No Such")
    assert (caught.value.reason, caught.value.permanent) == ("InvalidImageName", True)
    with pytest.raises(ImageError, match='"absent:v1" is not present with pull policy of Never') as caught:
        await store.ensure("absent:v1", pull_policy="Never")
    assert (caught.value.reason, caught.value.permanent) == ("ErrImageNeverPull", True)
    with pytest.raises(ImageError, match='"Sometimes" is not one of'):
        await store.ensure("absent", pull_policy="Sometimes")
    with pytest.raises(ImageError, match="absent is not in the image store"):
        await store.remove("absent")


# sharing


async def test_concurrent_calls_share_one_conversion(store: LocalImageStore, tmp_path: Path) -> None:
    await build(store, tmp_path / "app", "hello")
    images = await asyncio.gather(*(store.ensure("hello") for _ in range(20)))
    assert len({image.rootfs.directory for image in images}) == 1
    inode = tree(images[0]).stat().st_ino
    assert tree(await store.ensure("hello")).stat().st_ino == inode


async def test_processes_share_a_store(store: LocalImageStore, tmp_path: Path) -> None:
    await build(store, tmp_path / "app", "hello")
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom serving.local.images.store import LocalImageStore\n"
        "async def main():\n"
        "    async with LocalImageStore(Path(sys.argv[1]), prefer_erofs=False) as store:\n"
        "        image = await store.ensure('hello')\n"
        "        print(image.rootfs.directory.stat().st_ino)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    processes = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(2)]
    mine = await store.ensure("hello")
    outputs = [(await process.communicate())[0] for process in processes]
    assert {int(output) for output in outputs} == {tree(mine).stat().st_ino}


async def test_a_cancelled_ensure_leaves_nothing_locked(store: LocalImageStore, tmp_path: Path) -> None:
    source = tmp_path / "app"
    source.mkdir()
    for number in range(300):
        (source / str(number)).write_bytes(bytes(1000))
    await store.build(BuildSpec(directory=source), name="hello")
    for delay in (0.0, 0.001, 0.005, 0.02):
        task = asyncio.create_task(store.ensure("hello"))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    found = await store.ensure("hello")
    assert len(os.listdir(tree(found))) == 300
    async with LocalImageStore(tmp_path / "store", prefer_erofs=False, max_bytes=0) as other:
        assert list((tmp_path / "store" / "tmp").iterdir()) == []
        assert await other.sweep() == []


async def test_garbage_of_a_dead_process_is_swept(store: LocalImageStore, tmp_path: Path) -> None:
    await build(store, tmp_path / "app", "hello")
    left = tmp_path / "store/tmp/dead"
    (left / "closed").mkdir(parents=True)
    (left / "closed" / "file").write_text("x")
    (left / "closed").chmod(0)
    await store.sweep()
    assert not left.exists()
    assert list((tmp_path / "store/trash").iterdir()) == []
    assert (await store.ensure("hello")).digest


# the cache


async def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    root = tmp_path / "store"
    digests = []
    async with LocalImageStore(root, prefer_erofs=False) as store:
        for number in range(4):
            source = tmp_path / f"app{number}"
            source.mkdir()
            (source / "file").write_bytes(bytes([number]) * 1000)
            found = await store.ensure(f"dir:{source}")
            digests.append(found.digest)
            age(root, found.digest, 1000 - number)
    async with LocalImageStore(root, prefer_erofs=False, max_bytes=2500) as store:
        await store.ensure(f"dir:{tmp_path}/app0")
        age(root, digests[0], 2000)
        assert set(await store.sweep()) == {digests[1], digests[2]}
        assert {image.digest for image in await store.list_images()} == {digests[0], digests[3]}
        assert (await store.ensure(f"dir:{tmp_path}/app1")).digest == digests[1]


async def test_what_was_used_just_now_stays(tmp_path: Path) -> None:
    async with LocalImageStore(tmp_path / "store", prefer_erofs=False, max_bytes=0) as store:
        await build(store, tmp_path / "app", "hello")
        store.release((await store.ensure("hello")).digest)
        assert await store.sweep() == []


async def test_pins_of_another_process_count(tmp_path: Path) -> None:
    root = tmp_path / "store"
    async with LocalImageStore(root, prefer_erofs=False, max_bytes=0) as mine:
        digest = await build(mine, tmp_path / "app", "hello")
        async with LocalImageStore(root, prefer_erofs=False) as other:
            await other.ensure("hello")
            await other.ensure("hello")
            age(root, digest, 1000)
            assert await mine.sweep() == []
            other.release(digest)
            assert await mine.sweep() == []
            other.release(digest)
            other.release(digest)
            assert await mine.sweep() == [digest]
        assert (await mine.list_images())[0].rootfs_bytes == 0
        assert (await mine.ensure("hello")).digest == digest


async def test_what_a_process_works_in_stays(tmp_path: Path) -> None:
    """A sandbox that outlived its node agent: no pin, but in use."""
    root = tmp_path / "store"
    async with LocalImageStore(root, prefer_erofs=False, max_bytes=0) as store:
        digest = await build(store, tmp_path / "app", "hello")
        found = await store.ensure("hello")
        store.release(digest)
        age(root, digest, 1000)
        process = await asyncio.create_subprocess_exec("cat", cwd=tree(found), stdin=subprocess.PIPE)
        assert await store.sweep() == []
        await store.remove("hello")
        assert (tree(found) / "file").exists()
        await process.communicate(b"")
        assert await store.sweep() == [digest]


async def test_removing_a_name_frees_the_disk(store: LocalImageStore, tmp_path: Path) -> None:
    digest = await build(store, tmp_path / "app", "hello")
    await build(store, tmp_path / "app", "same")
    store.release((await store.ensure("hello")).digest)
    await store.remove("hello")
    assert [image.name for image in await store.list_images()] == ["index.docker.io/library/same:latest"]
    await store.remove("same")
    assert await store.list_images() == []
    assert list((tmp_path / "store/blobs/sha256").iterdir()) == []
    with pytest.raises(ImageError, match="not present"):
        await store.ensure(f"hello@{digest}", pull_policy="Never")


async def test_sources_give_their_layers_back_after_conversion(store: LocalImageStore, tmp_path: Path) -> None:
    image = FakeImage([LAYER])
    layout = write_layout(tmp_path / "layout", {"v1": image})
    await store.ensure(f"oci:{layout}")
    assert not (tmp_path / "store/blobs/sha256" / image.layer_digests[0].removeprefix("sha256:")).exists()
    base = await store.build(BuildSpec(directory=tmp_path / "layout"), name="on-top", base=f"oci:{layout}")
    found = await store.ensure("on-top")
    assert found.digest == base.digest
    assert (tree(found) / "bin/run").exists()
    assert (tree(found) / "oci-layout").exists()


# crashes and damage


async def test_a_tree_that_a_power_loss_emptied_is_made_again(tmp_path: Path) -> None:
    root = tmp_path / "store"
    async with LocalImageStore(root, prefer_erofs=False) as store:
        digest = await build(store, tmp_path / "app", "hello", "content")
        found = await store.ensure("hello")
    record = tree(found).parent / "rootfs.json"
    record.write_text(record.read_text().replace('"boot_id": "', '"boot_id": "earlier-'))
    (tree(found) / "file").write_text("")
    async with LocalImageStore(root, prefer_erofs=False) as store:
        again = await store.ensure("hello")
    assert again.digest == digest
    assert (tree(again) / "file").read_text() == "content"


async def test_a_damaged_record_is_reported_and_kept(store: LocalImageStore, tmp_path: Path) -> None:
    await build(store, tmp_path / "app", "hello")
    (name,) = (tmp_path / "store/names").iterdir()
    name.write_text("{broken")
    with pytest.raises(ImageError, match=r"names/.*\.json is damaged .*remove it and import or pull"):
        await store.ensure("hello")
    assert name.read_text() == "{broken"


async def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    async with LocalImageStore(tmp_path / "file" / "store") as store:
        with pytest.raises(ImageError, match="cannot be used: Not a directory"):
            await store.ensure("hello")


async def test_a_hostile_image_leaves_nothing(tmp_path: Path) -> None:
    limits = Limits(entries=10)
    layer = tar([entry(str(number)) for number in range(20)])
    layout = write_layout(tmp_path / "layout", {"v1": FakeImage([layer])})
    async with LocalImageStore(tmp_path / "store", prefer_erofs=False, limits=limits) as store:
        with pytest.raises(ImageError, match="more than 10 files") as caught:
            await store.ensure(f"oci:{layout}")
        assert caught.value.permanent
        assert list((tmp_path / "store/tmp").iterdir()) == []


# EROFS


async def erofs(store: LocalImageStore) -> ErofsReport:
    report = await store.erofs_report()
    if not report.works:
        pytest.skip(f"EROFS does not work here: {report.why}")
    return report


@pytest.mark.root
async def test_an_erofs_file_where_it_can_be_mounted(tmp_path: Path) -> None:
    async with LocalImageStore(tmp_path / "store") as store:
        await erofs(store)
        layout = write_layout(tmp_path / "layout", {"v1": FakeImage([LAYER])})
        found = await store.ensure(f"oci:{layout}")
        assert found.rootfs.directory is None
        assert found.rootfs.erofs is not None
        target = tmp_path / "mounted"
        target.mkdir()
        command = f"mount -t erofs -o ro {found.rootfs.erofs} {target} && cat {target}/run"
        done = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("#!/bin/sh\n", "")
    async with LocalImageStore(tmp_path / "store", prefer_erofs=False) as store:
        both = await store.ensure(f"oci:{layout}")
        assert both.rootfs.erofs == found.rootfs.erofs
        assert (tree(both) / "bin/run").exists()


async def test_the_probe_is_made_once_per_boot(tmp_path: Path) -> None:
    async with LocalImageStore(tmp_path / "store") as store:
        first = await store.erofs_report()
        (kept,) = (tmp_path / "store").glob("erofs-probe-*.json")
        before = kept.stat().st_mtime_ns
        assert await store.erofs_report() == first
        assert kept.stat().st_mtime_ns == before
        assert first.why


async def test_it_is_an_image_store(store: LocalImageStore) -> None:
    as_protocol: ImageStore = store
    assert as_protocol is store
