"""The supervisor with real children: none is left behind, whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from serving.local.layout import open_layout
from serving.local.supervisor import (
    READY_FD_VARIABLE,
    ChildError,
    ChildSpec,
    Supervisor,
    kill_leftovers,
    living_children,
    notify_ready,
)


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop() -> None:
    """Not here: the supervisor serves nobody, and its small files need no threads."""


def spec(name: str, order: str, directory: Path) -> ChildSpec:
    argv = [sys.executable, "-m", "tests.local.child", order, str(directory)]
    return ChildSpec(name=name, argv=lambda facts: argv)


def supervisor(directory: Path, *orders: str) -> Supervisor:
    specs = [spec(f"child{number}", order, directory) for number, order in enumerate(orders)]
    return Supervisor(specs, logs=directory / "logs", records=directory / "children.json")


@asynccontextmanager
async def running(made: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    started = asyncio.Event()
    task = asyncio.ensure_future(made.run(started=started.set))
    async with asyncio.timeout(20):
        await started.wait()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not check():
            await asyncio.sleep(0.02)


def pid_of(made: Supervisor, name: str) -> int:
    return int(made.facts[name]["pid"])


async def test_a_child_that_dies_is_started_again_and_all_stop_at_the_end(tmp_path: Path) -> None:
    made = supervisor(tmp_path, "runs", "runs")
    async with running(made):
        first = pid_of(made, "child0")
        os.kill(first, signal.SIGKILL)
        await until(lambda: pid_of(made, "child0") != first)
        pids = [pid_of(made, name) for name in ("child0", "child1")]
        assert {record.pid for record, _ in living_children(tmp_path / "children.json")} == set(pids)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (tmp_path / "children.json").exists()


async def test_a_second_signal_while_stopping_leaves_nobody_behind(tmp_path: Path) -> None:
    made = supervisor(tmp_path, "slow to stop")
    async with running(made) as task:
        pid = pid_of(made, "child0")
        task.cancel()
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.gather(task, return_exceptions=True)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("order", "text"), [("fails", "no luck today"), ("babbles", "said b'hello\\n' instead of its facts")]
)
async def test_a_child_that_does_not_start_is_explained(tmp_path: Path, order: str, text: str) -> None:
    made = supervisor(tmp_path, "runs", order)
    with pytest.raises(ExceptionGroup) as caught:
        await made.run(started=lambda: None)
    (error,) = caught.value.exceptions
    assert isinstance(error, ChildError)
    assert text in str(error)
    assert living_children(tmp_path / "children.json") == []
    assert not psutil.pid_exists(pid_of(made, "child0"))


async def test_a_restart_that_the_system_refuses_is_tried_again(tmp_path: Path) -> None:
    made = supervisor(tmp_path, "runs")
    async with running(made) as task:
        first = pid_of(made, "child0")
        logs, away = tmp_path / "logs", tmp_path / "away"
        logs.rename(away)
        logs.touch()  # no directory: the log cannot be opened
        os.kill(first, signal.SIGKILL)
        await until(lambda: made.restarts.get("child0", 0) >= 2)
        assert not task.done()
        logs.unlink()
        away.rename(logs)
        await until(lambda: pid_of(made, "child0") != first)


def test_leftovers_of_a_damaged_file_are_none(tmp_path: Path) -> None:
    records = tmp_path / "children.json"
    records.write_bytes(b"")
    assert kill_leftovers(records) == []
    assert not records.exists()


def test_who_is_ready_late_serves_all_the_same() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.environ[READY_FD_VARIABLE] = str(writer)
    notify_ready(port=1)
    assert READY_FD_VARIABLE not in os.environ


def test_an_empty_instance_file_is_filled(tmp_path: Path) -> None:
    (tmp_path / "instance").touch()
    layout = open_layout(tmp_path)
    assert len(layout.instance) == 8
    assert open_layout(tmp_path) == layout
    layout.run_dir.rmdir()
