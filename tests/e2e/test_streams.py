"""kubectl exec, cp, attach, run -it, port-forward and logs on the embedded API server, over both protocols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import streams, toolbox
from tests.e2e.stack import Stack
from tests.e2e.streams import Streams

NODE = "local"
BOX = "box"


@pytest.fixture(scope="module")
def command(stack: Stack, kubectl_binary: str | None, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    if kubectl_binary is None:
        pytest.skip("no kubectl on PATH and no Go to build it")
    directory = tmp_path_factory.mktemp("toolbox")
    done = stack.cli(
        "image", "build", str(toolbox.make(directory)), "-t", streams.TOOLBOX, "--entrypoint", "/bin/sh"
    )
    assert done.returncode == 0, done.stderr
    return [kubectl_binary, f"--kubeconfig={stack.data_dir / 'kubeconfig'}", f"--cache-dir={directory / 'cache'}"]


@pytest.fixture(params=["websocket", "spdy"])
def kubectl(request: pytest.FixtureRequest, command: list[str]) -> Streams:
    return Streams(command, websockets=request.param == "websocket")


@pytest.fixture(scope="module")
def box(command: list[str]) -> Iterator[str]:
    """A pod with a shell in it."""
    kubectl = Streams(command, websockets=True)
    yield kubectl.start_pod(streams.pod(BOX, NODE, "echo up; sleep 100000"))
    kubectl.delete(BOX)


def test_exec(kubectl: Streams, box: str) -> None:
    streams.check_exec(kubectl, box)


def test_a_shell_in_a_terminal(kubectl: Streams, box: str) -> None:
    streams.check_terminal(kubectl, box)


def test_copy_both_ways(kubectl: Streams, box: str, tmp_path: Path) -> None:
    streams.check_copy(kubectl, box, tmp_path)


def test_attach(kubectl: Streams) -> None:
    streams.check_attach(kubectl, NODE, "attached")


def test_run_in_a_terminal(kubectl: Streams, box: str) -> None:
    streams.check_run_in_terminal(kubectl, NODE, "interactive")


def test_port_forward(kubectl: Streams) -> None:
    streams.check_port_forward(kubectl, NODE, "forwarded")


def test_logs(command: list[str]) -> None:
    streams.check_logs(Streams(command, websockets=True), NODE, "logged")
