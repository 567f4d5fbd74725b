"""The process rung: the same contract without isolation."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.local.images.protocol import Rootfs
from serving.local.sandbox import ports
from serving.local.sandbox.process import ProcessRuntime
from serving.local.sandbox.protocol import Sandbox, SandboxError
from tests.local.sandbox import support


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(tmp_path, support.instance())
    await runtime.start()
    yield runtime
    for sandbox in runtime.held():
        await sandbox.destroy()
    await runtime.stop()


@pytest.fixture
async def sandbox(runtime: ProcessRuntime, tmp_path: Path) -> Sandbox:
    return await runtime.create(support.pod(tmp_path))


async def test_output_and_exit(sandbox: Sandbox, tmp_path: Path) -> None:
    container = support.shell(tmp_path, "cat; echo out; echo err >&2; exit 9", rootfs=support.machine_root())
    exit, lines = await support.run(sandbox, container)
    assert exit.exit_code == 9
    assert sorted(lines) == ["err", "out"]


async def test_each_pod_has_a_port_of_its_own(runtime: ProcessRuntime, tmp_path: Path) -> None:
    sandboxes = await asyncio.gather(*(runtime.create(support.pod(tmp_path)) for _ in range(5)))
    given = [sandbox.address.port for sandbox in sandboxes]
    assert len(set(given)) == 5
    for port in given:
        assert port is not None
        assert ports.is_free(port)
    assert {sandbox.address.ip for sandbox in sandboxes} == {"127.0.0.1"}


async def test_ports_in_use_are_not_given_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not ports.is_free(server.getsockname()[1])
    first = ports.choose(frozenset(), after=25000)
    assert ports.choose({first}, after=25000) != first
    with pytest.raises(LookupError, match="every port from 20000 to 29999 is taken"):
        ports.choose(range(20000, 30000), after=20000)


def _image_with_a_shell(root: Path) -> None:
    """Its own /bin/sh, loader and libraries: nothing of it is the machine's."""
    shell = os.path.realpath("/bin/sh")
    listed = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"(/\S+) \(", listed)
    (root / "bin").mkdir(parents=True)
    shutil.copy(shell, root / "bin/sh")
    for library in libraries:
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(library), target)


@pytest.mark.skipif(shutil.which("ldd") is None, reason="needs ldd to copy a shell with its libraries")
async def test_program_of_an_unpacked_image(sandbox: Sandbox, tmp_path: Path) -> None:
    root = tmp_path / "image"
    _image_with_a_shell(root)
    (root / "app").mkdir()
    (root / "app/run").write_text(
        "#!/usr/bin/env sh\necho $0 $1 in $PWD\nwhile read line; do echo $line; done < /proc/$$/maps\n"
    )
    (root / "app/run").chmod(0o755)
    container = support.command(tmp_path, ("./run", "arg"), cwd="/app", rootfs=Rootfs(directory=root), mounts=())
    exit, lines = await support.run(sandbox, container)
    assert exit.exit_code == 0
    assert lines[0] == f"{root}/app/run arg in {root}/app"
    mapped = {line.split()[-1] for line in lines[1:] if "/" in line}
    assert mapped
    assert all(path.startswith(str(root)) for path in mapped)  # shell, loader and libraries are the image's


async def test_stop_takes_children_and_daemons(sandbox: Sandbox, tmp_path: Path) -> None:
    script = "sleep 61 & echo $!; (setsid sleep 62 & echo $!); exec sleep 63"
    container = support.shell(tmp_path, script, rootfs=support.machine_root())
    await sandbox.start_container(container)
    await support.wait_for_text(container.log_path, "\n")
    async with asyncio.timeout(support.SECONDS):
        while len(pids := [int(text) for text in support.texts(container.log_path)]) < 2:
            await asyncio.sleep(0.005)
    await sandbox.signal("main", signal.SIGTERM)
    exit = await support.next_exit(sandbox)
    assert (exit.exit_code, exit.signal) == (143, 15)
    await sandbox.destroy()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_errors_name_the_program(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match='exec: "/none": stat /none: no such file or directory'):
        await sandbox.start_container(support.command(tmp_path, ("/none",), rootfs=support.machine_root()))
    with pytest.raises(SandboxError, match="needs an unpacked image"):
        await sandbox.start_container(support.command(tmp_path, ("/x",), rootfs=Rootfs(erofs=tmp_path / "i")))


async def test_exec_and_stats(sandbox: Sandbox, tmp_path: Path) -> None:
    await sandbox.start_container(support.shell(tmp_path, "sleep 60", rootfs=support.machine_root()))
    result = await sandbox.exec("main", ("sh", "-c", "echo hi; exit 2"), timeout_seconds=10)
    assert (result.exit_code, result.stdout) == (2, b"hi\n")
    stats = await sandbox.stats()
    assert stats.pids >= 1
    assert stats.memory_bytes > 0


async def test_proof(runtime: ProcessRuntime) -> None:
    report = await runtime.prove()
    assert report.works, report.why
    assert report.isolates == ()
    assert any("isolation: none" in note for note in report.reduced)
