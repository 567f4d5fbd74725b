"""The `nodeless` command against a running stack, as the tutorial uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.stack import Stack


def text_of(stack: Stack, *arguments: str) -> str:
    done = stack.cli(*arguments)
    assert done.returncode == 0, f"nodeless {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def test_a_service_from_deploy_to_delete(stack: Stack, name: str, python_image: str) -> None:
    port = stack.facts["url"].rpartition(":")[2]
    url = f"http://{name}.default.{stack.facts['domain']}:{port}"
    options = ("--image", python_image, "--env", "TARGET=cli", "--window", "30s", "--concurrency", "10")
    assert text_of(stack, "deploy", name, *options).splitlines()[-1] == url
    listed = json.loads(text_of(stack, "--output", "json", "list"))
    assert name in json.dumps(listed)
    assert url in text_of(stack, "list")
    described = text_of(stack, "describe", name)
    assert f"{name}-00001" in described
    assert "hello: listening on" in text_of(stack, "logs", name)
    text_of(stack, "delete", name)
    assert name not in text_of(stack, "list")


def test_status_names_every_process(stack: Stack) -> None:
    status = json.loads(text_of(stack, "--output", "json", "status"))
    assert status["running"] is True
    running = {row["name"]: row["pid"] for row in status["processes"]}
    assert running.keys() == {"apiserver", "webhook", "controller", "gateway", "node", "envoy"}
    assert running["envoy"] == stack.envoy().pid
    assert stack.facts["url"].rpartition(":")[2] in text_of(stack, "status")


def test_env_points_kubectl_at_the_stack(stack: Stack, kubectl_binary: str | None) -> None:
    if kubectl_binary is None:
        pytest.skip("no kubectl on PATH and no Go to build it")
    script = f"{text_of(stack, 'env')}\nexec {kubectl_binary} get namespaces -o name"
    shell = shutil.which("sh") or "/bin/sh"
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert "namespace/default" in done.stdout.split()


def test_errors_are_one_line_with_the_fix(stack: Stack, tmp_path: Path, name: str) -> None:
    missing = stack.cli("describe", name)
    assert missing.returncode == 1
    assert missing.stderr.startswith("Error: ")
    assert name in missing.stderr
    assert len(missing.stderr.splitlines()) == 1
    nothing = Stack(tmp_path / "nothing").cli("list")
    assert nothing.returncode == 1
    assert "start it with `nodeless up`" in nothing.stderr
    assert len(nothing.stderr.splitlines()) == 1
