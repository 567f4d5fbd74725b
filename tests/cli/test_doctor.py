"""`nodeless doctor`: what it reads from a machine, and its report."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from serving.cli import doctor as command
from serving.cli.machine import Check, tool_checks
from serving.cli.main import cli
from serving.local.sandbox.protocol import RungReport

NAMESPACE = RungReport(rung="namespace", works=True, why="booted", isolates=("network",))
PROCESS = RungReport(rung="process", works=True, why="booted", reduced=("isolation: none",))


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_every_check_that_is_not_ok_says_what_helps(tmp_path: Path) -> None:
    for check in tool_checks(tmp_path, own_ports=()):
        assert check.found
        assert check.status == "ok" or check.fix, check


def test_envoy_of_the_wheel_runs(tmp_path: Path) -> None:
    envoy = named(tool_checks(tmp_path, own_ports=()), "envoy")
    assert envoy.status == "ok"
    assert envoy.found.startswith("1.")


def test_a_missing_data_directory_is_not_made(tmp_path: Path) -> None:
    found = named(tool_checks(tmp_path / "a" / "b", own_ports=()), "data directory")
    assert str(tmp_path / "a" / "b") in found.found
    assert not (tmp_path / "a").exists()


def test_ports_of_the_own_stack_are_fine(tmp_path: Path) -> None:
    assert named(tool_checks(tmp_path, own_ports={8080}), "port 8080").found == "used by the stack that runs"


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 16443))
            taken.listen()
        except OSError:
            pass  # somebody else has it, which is as good
        found = named(tool_checks(tmp_path, own_ports=()), "port 16443")
    assert found.status == "reduced"
    assert "free one" in found.fix


@pytest.mark.parametrize(
    ("reports", "names"),
    [
        ((NAMESPACE, PROCESS), {"nftables": "ok", "cgroups": "ok"}),
        (
            (msgspec.structs.replace(NAMESPACE, reduced=("filter: no nftables", "cpu limits: none")),),
            {"nftables": "reduced", "cgroups": "reduced"},
        ),
        ((msgspec.structs.replace(NAMESPACE, works=False), PROCESS), {"cgroups": "ok"}),
        ((), {}),
    ],
    ids=["full", "reduced", "process", "none"],
)
def test_parts_of_the_best_rung(reports: tuple[RungReport, ...], names: dict[str, str]) -> None:
    assert {check.name: check.status for check in command._from_rungs(reports)} == names


@pytest.mark.timeout(60)
def test_doctor_tries_every_rung_and_leaves_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["--data-dir", str(tmp_path / "none"), "-o", "json", "doctor"])
    report = msgspec.json.decode(result.stdout, type=command.Report)
    assert [rung.rung for rung in report.rungs] == ["namespace", "process"]
    assert all(rung.works or rung.why for rung in report.rungs)
    assert result.exit_code == (0 if report.works else 1)
    assert report.sandbox in {rung.rung for rung in report.rungs if rung.works} | {""}
    assert not (tmp_path / "none").exists()
