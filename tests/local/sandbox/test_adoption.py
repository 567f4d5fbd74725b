"""Pods outlive their node agent and their spawner, and a later agent takes them over."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving.local.network.service import PodNetwork
from serving.local.sandbox import privileges
from serving.local.sandbox.namespace import NamespaceRuntime
from serving.local.sandbox.process import ProcessRuntime
from serving.local.sandbox.protocol import Sandbox
from serving.local.sandbox.spawner.processes import start_time
from tests.local.sandbox import support

RUNGS = [
    pytest.param("namespace", marks=[pytest.mark.root, support.needs_root]),
    "process",
]
Runtime = NamespaceRuntime | ProcessRuntime


def _runtime(rung: str, directory: Path, instance: str) -> Runtime:
    if rung == "process":
        return ProcessRuntime(directory, instance)
    return NamespaceRuntime(directory, instance, PodNetwork(data_dir=directory, instance=instance), spare=0)


class _Killed:
    def __init__(self, pod: str, pid: int, shim: int, instance: str) -> None:
        self.pod = pod
        self.pid = pid
        self.shim = shim
        self.shim_start = 0
        self.instance = instance


_started: list[_Killed] = []


@pytest.fixture(autouse=True)
def no_pod_outlives_a_failed_test() -> Iterator[None]:
    yield
    while _started:
        killed = _started.pop()
        if killed.shim_start == start_time(killed.shim) != 0:
            os.kill(killed.shim, signal.SIGKILL)


async def _agent_killed(rung: str, directory: Path, script: str) -> _Killed:
    """Start a pod in another process, then kill -9 that process and its spawner."""
    instance = support.instance()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.local.sandbox.agent", rung, str(directory), instance, script),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(support.SECONDS):
        words = (await process.stdout.readline()).split()
    process.kill()
    os.kill(int(words[2]), signal.SIGKILL)
    await process.wait()
    _started.append(_Killed(words[0].decode(), int(words[1]), int(words[3]), instance))
    _started[-1].shim_start = await asyncio.to_thread(start_time, int(words[3]))
    return _started[-1]


@asynccontextmanager
async def _adopted(rung: str, directory: Path, instance: str) -> AsyncIterator[list[Sandbox]]:
    runtime = _runtime(rung, directory, instance)
    await runtime.start()
    try:
        yield list(await runtime.adopt())
    finally:
        for sandbox in runtime.held():
            await sandbox.destroy()
        await runtime.stop()


def _left_behind(instance: str) -> list[str]:
    links = [line for line in Path("/proc/net/dev").read_text().splitlines() if instance in line]
    return links + [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/nodeless-{instance}")]


@pytest.mark.parametrize("rung", RUNGS)
async def test_a_running_pod_is_adopted(rung: str, tmp_path: Path) -> None:
    script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done"
    killed = await _agent_killed(rung, tmp_path, script)
    log = tmp_path / "main.log"
    before = len(support.texts(log))
    await support.wait_for_text(log, f" {before + 5}\n")  # nobody of ours is alive, the pod and its log are
    async with _adopted(rung, tmp_path, killed.instance) as sandboxes:
        (sandbox,) = sandboxes
        assert sandbox.spec.pod_uid == killed.pod
        (state,) = sandbox.containers()
        assert (state.name, state.attempt, state.pid, state.exit) == ("main", 0, killed.pid, None)
        if rung == "namespace":
            await _network_works(sandbox)
        result = await sandbox.exec("main", ("/bin/sh", "-c", "echo in"), timeout_seconds=10)
        assert result.stdout == b"in\n"
        await sandbox.kill("main")
        exit = await support.next_exit(sandbox)
        assert (exit.exit_code, exit.signal) == (137, 9)
        numbers = [int(text) for text in support.texts(log)]
        assert numbers == list(range(len(numbers)))
    assert _left_behind(killed.instance) == []


async def _network_works(sandbox: Sandbox) -> None:
    with pytest.raises(ConnectionRefusedError):
        async with asyncio.timeout(5):
            await asyncio.open_connection(sandbox.address.ip, 9)


@pytest.mark.parametrize("rung", RUNGS)
async def test_an_exit_while_nobody_looked_is_not_lost(rung: str, tmp_path: Path) -> None:
    killed = await _agent_killed(rung, tmp_path, "sleep 0.1; exit 7")
    exit_file = next(tmp_path.glob("pods/*")) / "containers" / "main-0" / "exit.json"
    async with asyncio.timeout(support.SECONDS):
        while not exit_file.exists():
            await asyncio.sleep(0.01)
    runtime = _runtime(rung, tmp_path, killed.instance)
    await runtime.start()
    (first,) = await runtime.adopt()
    exits = first.exits()
    exit = await anext(exits)
    assert exit.exit_code == 7
    await runtime.stop()  # stopped before it was dealt with: the next agent hears of it again
    async with _adopted(rung, tmp_path, killed.instance) as sandboxes:
        assert (await support.next_exit(sandboxes[0])).exit_code == 7


@pytest.mark.parametrize("rung", RUNGS)
async def test_a_pod_whose_shim_was_killed_is_removed(rung: str, tmp_path: Path) -> None:
    killed = await _agent_killed(rung, tmp_path, "sleep 60")
    os.kill(killed.shim, signal.SIGKILL)
    async with asyncio.timeout(support.SECONDS):
        while Path(f"/proc/{killed.pid}").exists() and " Z " not in Path(f"/proc/{killed.pid}/stat").read_text():
            await asyncio.sleep(0.005)
    async with _adopted(rung, tmp_path, killed.instance) as sandboxes:
        assert sandboxes == []
        assert list((tmp_path / "pods").iterdir()) == []
        assert list((tmp_path / "sandboxes").iterdir()) == []
    assert _left_behind(killed.instance) == []


async def test_a_killed_shim_ends_its_containers_with_an_exit(tmp_path: Path) -> None:
    runtime = ProcessRuntime(tmp_path, support.instance())
    await runtime.start()
    sandbox = await runtime.create(support.pod(tmp_path))
    state = await sandbox.start_container(support.shell(tmp_path, "sleep 60", rootfs=support.machine_root()))
    os.kill(_parent(state.pid), signal.SIGKILL)
    exit = await support.next_exit(sandbox)
    assert (exit.exit_code, exit.signal) == (137, 9)
    await sandbox.destroy()
    await runtime.stop()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


async def test_a_killed_spawner_is_replaced(tmp_path: Path) -> None:
    runtime = ProcessRuntime(tmp_path, support.instance())
    await runtime.start()
    first = await runtime.create(support.pod(tmp_path))
    await first.start_container(support.shell(tmp_path, "sleep 60", rootfs=support.machine_root()))
    os.kill(runtime.spawner_pid, signal.SIGKILL)
    second = await runtime.create(support.pod(tmp_path))
    container = support.shell(tmp_path, "exit 4", name="b", rootfs=support.machine_root())
    exit, _ = await support.run(second, container)
    assert exit.exit_code == 4
    assert first.containers()[0].exit is None
    for sandbox in (first, second):
        await sandbox.destroy()
    await runtime.stop()


async def test_a_pod_of_another_rung_is_removed(tmp_path: Path) -> None:
    killed = await _agent_killed("process", tmp_path, "sleep 60")
    if not privileges.is_root():
        pytest.skip("needs root: the namespace rung")
    async with _adopted("namespace", tmp_path, killed.instance) as sandboxes:
        assert sandboxes == []
        assert not Path(f"/proc/{killed.pid}").exists()
    assert _left_behind(killed.instance) == []
