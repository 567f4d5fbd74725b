"""kubectl as a user has it: from PATH, else built once from its Go module into the user's cache."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Final

import platformdirs
import yaml

from serving.api.meta import JsonObject

VERSION: Final = "v0.34.1"
_BUILD_SECONDS: Final = 900.0
_PROGRAM: Final = """package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
)

func main() { os.Exit(cli.Run(cmd.NewDefaultKubectlCommand())) }
"""


def find_kubectl() -> str | None:
    """The path of a kubectl; None when there is none and no Go to build it with."""
    found = shutil.which("kubectl")
    if found is not None:
        return found
    target = platformdirs.user_cache_path("nodeless-tests") / f"kubectl-{VERSION}-{platform.machine()}"
    if target.exists():
        return str(target)
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    return _build(go, target) if go is not None else None


def _build(go: str, target: Path) -> str | None:
    module = target.with_name(f"build-{os.getpid()}")
    module.mkdir(parents=True)
    try:
        (module / "main.go").write_text(_PROGRAM)
        steps: list[list[str]] = [
            ["mod", "init", "kubectl"],
            ["get", f"k8s.io/kubectl@{VERSION}", f"k8s.io/component-base@{VERSION}"],
            ["mod", "tidy"],
            ["build", "-trimpath", "-ldflags", "-s -w", "-o", "kubectl", "."],
        ]
        for step in steps:
            done = subprocess.run(
                [go, *step],
                cwd=module,
                capture_output=True,
                timeout=_BUILD_SECONDS,
                check=False,
                env=os.environ | {"CGO_ENABLED": "0"},
            )
            if done.returncode != 0:
                return None
        (module / "kubectl").replace(target)
    except (OSError, subprocess.TimeoutExpired):
        return None
    finally:
        shutil.rmtree(module, ignore_errors=True)
    return str(target)


class Refused(Exception):
    """The API server said no. The text is what a user reads."""


class Kubectl:
    """Runs one kubectl against one API server, with a discovery cache of its own."""

    def __init__(self, binary: str, *, kubeconfig: Path, cache: Path) -> None:
        self._base = [binary, f"--kubeconfig={kubeconfig}", f"--cache-dir={cache}"]

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """A command that goes on, e.g. `get -w`; the caller ends it."""
        return await asyncio.create_subprocess_exec(
            *self._base,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, stdin: str = "", seconds: float = 60) -> str:
        """Its standard output. Raises Refused with its standard error when it fails."""
        process = await self.start(*arguments)
        try:
            async with asyncio.timeout(seconds):
                out, errors = await process.communicate(stdin.encode())
        except TimeoutError:
            process.kill()
            await process.communicate()
            raise AssertionError(f"kubectl {' '.join(arguments)} took more than {seconds:g} s") from None
        if process.returncode != 0:
            raise Refused(errors.decode())
        return out.decode()

    async def apply(self, *objects: JsonObject) -> str:
        return await self("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    async def json(self, *arguments: str) -> JsonObject:
        """`get ARGUMENTS -o json`."""
        found: JsonObject = json.loads(await self("get", *arguments, "-o", "json"))
        return found


def columns(text: str) -> list[list[str]]:
    """A table's rows, split at its columns (two or more spaces), heading first."""
    rows = text.splitlines()
    return [[cell.strip() for cell in row.replace("\t", "  ").split("  ") if cell.strip()] for row in rows]
