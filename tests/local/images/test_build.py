from __future__ import annotations

import compileall
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.local.images.build import BuildSpec
from serving.local.images.protocol import ImageError
from serving.local.images.store import LocalImageStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalImageStore]:
    async with LocalImageStore(tmp_path / "store", prefer_erofs=False) as made:
        yield made


def make_app(path: Path) -> Path:
    (path / "bin").mkdir(parents=True)
    (path / "bin/run").write_text("#!/bin/sh\n")
    (path / "bin/run").chmod(0o755)
    (path / "run").symlink_to("bin/run")
    os.link(path / "bin/run", path / "again")
    os.mkfifo(path / "fifo")
    (path / ("é" * 60)).write_text("long and not ASCII")
    return path


async def test_the_same_files_give_the_same_digest(store: LocalImageStore, tmp_path: Path) -> None:
    one, two = make_app(tmp_path / "one"), make_app(tmp_path / "two")
    for path in two.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    first = await store.build(BuildSpec(directory=one, entrypoint=("/run",)), name="one")
    second = await store.build(BuildSpec(directory=two, entrypoint=("/run",)), name="two")
    assert first.digest == second.digest
    (two / "bin/run").chmod(0o700)
    assert (await store.build(BuildSpec(directory=two, entrypoint=("/run",)), name="two")).digest != first.digest


async def test_everything_arrives(store: LocalImageStore, tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    await store.build(BuildSpec(directory=app, target="/srv/app"), name="app")
    root = (await store.ensure("app")).rootfs.directory
    assert root is not None
    found = root / "srv/app"
    assert stat.S_IMODE((found / "bin/run").stat().st_mode) == 0o755
    assert os.readlink(found / "run") == "bin/run"
    assert (found / "again").stat().st_ino == (found / "bin/run").stat().st_ino
    assert (found / ("é" * 60)).read_text() == "long and not ASCII"
    assert (found / "bin/run").stat().st_mtime == 0
    assert stat.S_ISFIFO((found / "fifo").stat().st_mode)


async def test_configuration_and_base(store: LocalImageStore, tmp_path: Path) -> None:
    app = make_app(tmp_path / "app")
    spec = BuildSpec(
        directory=app,
        entrypoint=("/run", "a b"),
        cmd=("x",),
        env=("A=1", "B=2"),
        working_dir="/bin",
        user="65532:7",
        exposed_ports=(80, 8080),
    )
    await store.build(spec, name="base")
    base = (await store.ensure("base")).config
    assert (base.entrypoint, base.cmd, base.env) == (("/run", "a b"), ("x",), ("A=1", "B=2"))
    assert (base.working_dir, base.user, base.exposed_ports) == ("/bin", "65532:7", (80, 8080))

    more = tmp_path / "more"
    more.mkdir()
    (more / "extra").write_text("x")
    await store.build(BuildSpec(directory=more, env=("B=3", "C=4"), cmd=("y",)), name="top", base="base")
    top = await store.ensure("top")
    assert top.config.entrypoint == ("/run", "a b")
    assert (top.config.cmd, top.config.env) == (("y",), ("A=1", "B=3", "C=4"))
    assert top.rootfs.directory is not None
    assert (top.rootfs.directory / "extra").exists()
    assert (top.rootfs.directory / "run").is_symlink()

    await store.build(BuildSpec(directory=more, entrypoint=("/other",)), name="top", base="base")
    other = (await store.ensure("top")).config
    assert (other.entrypoint, other.cmd) == (("/other",), ())


async def test_byte_code_stays_valid_although_times_are_zero(store: LocalImageStore, tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "fresh.py").write_text("VALUE = 1\n")
    (app / "stale.py").write_text("VALUE = 1\n")
    compileall.compile_dir(str(app), quiet=2)
    os.utime(app / "stale.py", (5, 5))
    await store.build(BuildSpec(directory=app), name="app")
    root = (await store.ensure("app")).rootfs.directory
    assert root is not None
    done = subprocess.run(
        [sys.executable, "-v", "-B", "-c", "import fresh, stale"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "/fresh.cpython" in done.stderr
    assert "bytecode is stale for 'fresh'" not in done.stderr
    assert "bytecode is stale for 'stale'" in done.stderr


async def test_what_cannot_be_built(store: LocalImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nowhere is not a directory"):
        await store.build(BuildSpec(directory=tmp_path / "nowhere"), name="app")
    with pytest.raises(ImageError, match="is named like"):
        await store.build(BuildSpec(directory=tmp_path), name="oci:/x")
    with pytest.raises(ImageError, match="could not parse reference"):
        await store.build(BuildSpec(directory=tmp_path), name="No")
