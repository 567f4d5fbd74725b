"""The shell scripts: POSIX, from anywhere, and clear when they cannot go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_syntax(script: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    subprocess.run([shell, "-n", str(script)], check=True)


def copy(directory: Path) -> Path:
    """A checkout with a space in its path, without the code."""
    checkout = directory / "check out"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    for name in ("pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, checkout)
    return checkout


def run(script: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        ["sh", str(script)], env=plain | environment, cwd="/", capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["demo", "test"])
def test_a_directory_that_is_no_environment_is_left_alone(name: str, tmp_path: Path) -> None:
    precious = tmp_path / "mine"
    precious.mkdir()
    (precious / "file").write_text("keep")
    done = run(copy(tmp_path) / "scripts" / name, NODELESS_VENV=str(precious))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {precious} is no virtual environment")
    assert (precious / "file").read_text() == "keep"


def test_an_environment_that_is_current_is_used_as_it_is(tmp_path: Path) -> None:
    """The stamp decides: nothing is installed, and the command gets the arguments."""
    checkout = copy(tmp_path)
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$*" "$PWD"\n')
    python.chmod(0o755)
    with (checkout / "pyproject.toml").open() as project:
        sums = subprocess.run(["cksum"], stdin=project, capture_output=True, text=True, check=True)
    (checkout / ".venv" / ".nodeless-run").write_text(f"{checkout} {sums.stdout.strip()}\n")
    done = run(checkout / "scripts" / "demo", CI="1")
    assert done.stderr == ""
    assert done.stdout == f"-m serving.cli.main demo {checkout}\n"
