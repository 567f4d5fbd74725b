"""The tutorial works as it is written: every command of docs/tutorial.md, in order, in a shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.stack import NODELESS, poll

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 600
BUILD_SECONDS: Final = 1800
"""kn may have to be built."""
SAID: Final = (
    "Hello blue!",
    "server-timing:",
    "Hello green!",
    "greeter-00002",
    "Service 'hello' created to latest revision 'hello-00001' is available at URL:",
    "Hello World!",
    "Domain mapping 'hello.example.com' created",
    "condition met",
    "Hello ",
    "Service 'hello' successfully deleted",
    "Service 'hello' imported",
)
"""What a reader sees, in this order. Which revision answers under a split is left to chance."""


def blocks() -> list[str]:
    """The shell commands, without the demo: it is the other way to start a stack."""
    found = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/tutorial.md").read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in found if block != "scripts/demo\n"]


@pytest.fixture
def desk(tmp_path: Path, kubectl_binary: str | None, kn_program: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A directory like a checkout with its tools, and an environment. The stack is stopped afterwards."""
    if kubectl_binary is None or shutil.which("curl") is None:
        pytest.skip("the tutorial needs kubectl and curl")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "kubectl").symlink_to(kubectl_binary)
    (tools / "kn").symlink_to(kn_program)
    data = tmp_path / "data"
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "NODELESS_DATA_DIR": str(data),
        "LANG": "C.UTF-8",
    }
    try:
        yield tmp_path, environment
    finally:
        subprocess.run([*NODELESS, "--data-dir", str(data), "down"], capture_output=True, timeout=60, check=False)


@pytest.mark.timeout(BUILD_SECONDS)
def test_every_command_of_the_tutorial(desk: tuple[Path, dict[str, str]]) -> None:
    directory, environment = desk
    first, *others = blocks()
    assert first.endswith("nodeless up\n"), "the first terminal"
    log = directory / "up.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["bash", "-ec", first],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as up,
    ):
        try:
            poll(lambda: "Ctrl-C" in log.read_text() or up.poll() is not None, seconds=90, what=log.read_text)
            text = run("".join(others), directory, environment)
        finally:
            subprocess.run([*NODELESS, "down"], env=environment, capture_output=True, timeout=60, check=False)
    position = 0
    for expected in SAID:
        assert expected in text[position:], f"{expected!r} is not after what was said before it:\n{text}"
        position = text.index(expected, position)


def run(commands: str, directory: Path, environment: dict[str, str]) -> str:
    """What the second terminal shows. The first command that fails fails the test."""
    # A pod that has gone already is what the reader is told about.
    script = re.sub(r"^(kubectl wait --for=delete .*)$", r"\1 || true", commands, flags=re.MULTILINE)
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"a command of the tutorial failed:\n{done.stdout}"
    return done.stdout
