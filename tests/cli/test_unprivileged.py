"""What `up` does about its namespaces, as far as it can be seen without making any."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from serving.cli import unprivileged
from serving.local.layout import RUN_DIR_VARIABLE, Layout, open_layout
from serving.local.network.rootless import State, start_time


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(data_dir=tmp_path, run_dir=tmp_path / "run", instance="0123abcd")


def note(layout: Layout, *, holder: int, holder_start: int) -> None:
    directory = layout.data_dir / "sandboxes"
    directory.mkdir()
    state = State(holder=holder, holder_start=holder_start, pasta=0, pasta_start=0, ports=(16443, 8080, 8081))
    (directory / "rootless.json").write_bytes(msgspec.json.encode(state))


def test_nothing_to_come_back_to(layout: Layout) -> None:
    assert not unprivileged.exists(layout)
    assert unprivileged.forwarded_ports(layout) == ()
    unprivileged.leave(layout)


def test_namespaces_whose_holder_lives_keep_their_ports(layout: Layout) -> None:
    note(layout, holder=os.getpid(), holder_start=start_time(os.getpid()))
    assert unprivileged.exists(layout)
    assert unprivileged.forwarded_ports(layout) == (16443, 8080, 8081)


def test_a_reused_pid_is_no_holder(layout: Layout) -> None:
    note(layout, holder=os.getpid(), holder_start=start_time(os.getpid()) + 1)
    assert not unprivileged.exists(layout)


@pytest.mark.skipif(os.geteuid() != 0, reason="with root there is nothing to enter")
def test_root_stays_where_it_is(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    unprivileged.enter(layout, ["up"], ports=(1, 2, 3))
    assert capsys.readouterr().err == ""


def test_run_directory_is_the_same_under_another_user_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside, this user has the id 0, and would look for a directory of root's."""
    outside = open_layout(tmp_path / "data")
    given = outside.run_dir.with_name("as-seen-outside" + outside.run_dir.name[outside.run_dir.name.rindex("-") :])
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(given))
    assert open_layout(tmp_path / "data").run_dir == given
    given.rmdir()


def test_run_directory_of_another_stack_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = open_layout(tmp_path / "data")
    monkeypatch.setenv(RUN_DIR_VARIABLE, "/tmp/nodeless-1000-ffffffffffff")
    assert open_layout(tmp_path / "data") == outside
    outside.run_dir.rmdir()
