"""A Go module of this repository whose tools are built once, into the user's cache.

The directory in the cache is named after the release and a digest of go.mod and go.sum, so another pin never meets
old binaries. Binaries are put into place by a rename: an interrupted build leaves no half program.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from platformdirs import user_cache_path

from tests.cluster.assets import go


class Unavailable(Exception):
    """Modules or the toolchain are not to be had here."""


class GoModule(msgspec.Struct, frozen=True, kw_only=True):
    """`directory` holds go.mod; `pinned` is the module whose version names the cache."""

    directory: Path
    name: str
    pinned: str
    tags: str = ""

    def version(self, module: str = "") -> str:
        """The version of a module that go.mod requires, e.g. `v0.51.0`. Raises LookupError."""
        module = module or self.pinned
        text = (self.directory / "go.mod").read_text()
        found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", text, re.MULTILINE)
        if found is None:
            raise LookupError(f"{self.directory / 'go.mod'} does not require {module}")
        return found[1]

    def tools(self) -> dict[str, str]:
        """The packages of go.mod's `tool` directives by the name of their binary."""
        text = (self.directory / "go.mod").read_text()
        packages = re.findall(r"^\s*(?:tool )?([\w.-]+\.\w+/[\w./-]+)$", text, re.MULTILINE)
        return {package.rpartition("/")[2]: package for package in packages}

    @property
    def cache(self) -> Path:
        recipe = hashlib.sha256()
        for name in ("go.mod", "go.sum"):
            recipe.update((self.directory / name).read_bytes())
        return user_cache_path("nodeless") / self.name / f"{self.version()}-{recipe.hexdigest()[:8]}"

    def fetch(self, packages: Sequence[str]) -> None:
        """Download what building these packages and their tests takes. Raises Unavailable."""
        try:
            self._go(["list", "-deps", "-test", f"-tags={self.tags}", *packages], stdout=subprocess.PIPE)
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"the modules of {self.pinned} {self.version()} cannot be downloaded") from error

    def build(self, packages: Sequence[str]) -> None:
        """Build programs. Raises CalledProcessError (the compiler's words are on stderr), Unavailable."""
        self._into_cache(["build", "-trimpath", "-ldflags", "-s -w"], packages)

    def build_tests(self, package: str, *, name: str) -> None:
        """Build the test binary of a package. Raises as `build` does."""
        self._into_cache(["test", "-c", "-trimpath", "-ldflags", "-s -w"], [package], name=name)

    def copy(self, source: str, name: str) -> None:
        """Copy a directory of the pinned module into the cache. Raises as `build` does."""
        listed = self._go(["list", "-m", "-f", "{{.Dir}}", self.pinned], stdout=subprocess.PIPE)
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".build-") as scratch:
            # The module cache is read-only; what is copied need not be.
            shutil.copytree(
                Path(listed.decode().strip()) / source, f"{scratch}/{name}", copy_function=shutil.copyfile
            )
            for directory, _, _ in os.walk(scratch):
                Path(directory).chmod(0o755)
            Path(scratch, name).rename(self.cache / name)

    def _into_cache(self, command: Sequence[str], packages: Sequence[str], *, name: str = "") -> None:
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache, prefix=".build-") as scratch:
            self._go([*command, f"-tags={self.tags}", "-o", f"{scratch}/{name}", *packages])
            for built in Path(scratch).iterdir():
                built.replace(self.cache / built.name)

    def _go(self, arguments: Sequence[str], *, stdout: int | None = None) -> bytes:
        try:
            program = go()
        except FileNotFoundError as error:
            raise Unavailable(str(error)) from error
        done = subprocess.run(
            [program, *arguments],
            cwd=self.directory,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
            stdout=stdout,
            check=True,
        )
        return done.stdout or b""
