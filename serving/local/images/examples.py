"""The hello images of the demo and of the end-to-end tests.

Sources are in `examples/` of the repository and travel in the wheel as `serving/_examples`. `hello-static` is
compiled with the C compiler of the machine or, without one, with the compiler in the `ziglang` wheel; when there
is neither, `hello-python` takes its place under the same name, and `ExampleImage.note` says so.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from serving.local.images import python_rootfs
from serving.local.images.build import BuildSpec
from serving.local.images.content import remove_tree
from serving.local.images.errors import pull_failed
from serving.local.images.store import LocalImageStore
from serving.local.images.summary import ImageSummary
from serving.local.images.threads import run

Toolchain: TypeAlias = Literal["cc", "zig", "none"]
TOOLCHAINS: tuple[Toolchain, ...] = ("cc", "zig", "none")

PORT = 8080

_PACKAGES = {"hello-aiohttp": ("aiohttp",), "hello-grpc": ("grpcio",)}
_PYTHON_RECIPE = 1
"""Counts changes of python_rootfs that must not be hidden by an image built earlier."""
_COMPILE_SECONDS = 300.0
_FLAGS = ("-static", "-Os", "-s", "-pthread")
_INSTALLED = Path(__file__).resolve().parents[2]


class ExampleImage(msgspec.Struct, frozen=True, kw_only=True):
    image: ImageSummary
    note: str = ""
    """Why it is not quite what was asked for; empty otherwise."""


class _Recipe(msgspec.Struct, frozen=True, kw_only=True):
    entrypoint: tuple[str, ...]
    base: str = ""
    env: tuple[str, ...] = ()


def example_names() -> tuple[str, ...]:
    return ("hello-static", "hello-python", "hello-aiohttp", "hello-grpc")


def default_name(example: str) -> str:
    """Below `dev.local`, which Knative resolves to no digest: the local store is asked instead."""
    return f"dev.local/{example}:latest"


def sources() -> Path:
    """The directory with the examples' sources. Raises ImageError."""
    for path in (_INSTALLED / "_examples", _INSTALLED.parent / "examples"):
        if path.is_dir():
            return path
    raise pull_failed(f"the sources of the examples are not installed with {_INSTALLED}")


async def build_example(
    store: LocalImageStore, example: str, *, name: str = "", toolchain: Toolchain | None = None
) -> ExampleImage:
    """Build one example into the store. `toolchain`: None = the first that works. Raises ImageError."""
    asked = example
    if example not in example_names():
        raise pull_failed(f'example "{example}" is not one of {", ".join(example_names())}', permanent=True)
    recipe, note = None, ""
    async with _temporary_directory() as directory:
        if example == "hello-static":
            why = await run(None, _compile_static, directory, toolchain)
            if why:
                note = f"hello-static is the Python hello here: {why}; install gcc or `pip install ziglang`"
                example = "hello-python"
            else:
                recipe = _Recipe(entrypoint=("/hello",))
        if recipe is None:
            base = await build_python(store)
            recipe = await run(None, _add_application, directory, example, base)
        spec = BuildSpec(
            directory=directory,
            entrypoint=recipe.entrypoint,
            env=("PATH=/usr/local/bin:/usr/bin:/bin", *recipe.env),
            working_dir="/",
            exposed_ports=(PORT,),
        )
        image = await store.build(spec, name=name or default_name(asked), base=recipe.base)
    return ExampleImage(image=image, note=note)


async def build_python(store: LocalImageStore) -> str:
    """The name of an image with this machine's Python, a base for others; built unless the store has it."""
    name = f"dev.local/python:{platform.python_version()}-{_PYTHON_RECIPE}"
    if any(image.name == name for image in await store.list_images()):
        return name
    async with _temporary_directory() as directory:
        await run(None, python_rootfs.assemble_python, directory)
        await store.build(BuildSpec(directory=directory, entrypoint=(python_rootfs.INTERPRETER,)), name=name)
    return name


@asynccontextmanager
async def _temporary_directory() -> AsyncIterator[Path]:
    directory = Path(await run(None, tempfile.mkdtemp, prefix="nodeless-example-"))
    try:
        yield directory
    finally:
        await run(None, remove_tree, directory)


# C


def _compile_static(directory: Path, toolchain: Toolchain | None) -> str:
    """Put `/hello` into the directory. Returns why not, or nothing."""
    problems = []
    for candidate in (toolchain,) if toolchain is not None else TOOLCHAINS:
        command = _compiler(candidate)
        if not command:
            problems.append(_MISSING[candidate])
            continue
        source, target = sources() / "hello-static" / "hello.c", directory / "hello"
        problem = _compile([*command, *_FLAGS, "-o", str(target), str(source)])
        if not problem:
            for name in ("tmp", "etc", "proc", "dev", "sys"):
                (directory / name).mkdir()
            (directory / "tmp").chmod(0o1777)
            return ""
        problems.append(f"{command[0]} failed: {problem}")
    return ", ".join(dict.fromkeys(problems))


_MISSING: dict[Toolchain, str] = {
    "cc": "no C compiler",
    "zig": "no ziglang package",
    "none": "no compiler is used",
}


def _compiler(toolchain: Toolchain) -> list[str]:
    if toolchain == "cc":
        found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        return [found] if found else []
    if toolchain == "zig" and importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc", "-target", f"{platform.machine()}-linux-musl"]
    return []


def _compile(command: list[str]) -> str:
    """Returns the compiler's last words when it failed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_COMPILE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


# Python


def _add_application(directory: Path, example: str, base: str) -> _Recipe:
    packages = _PACKAGES.get(example, ())
    program = python_rootfs.assemble_application(directory, sources() / example / "app.py", packages=packages)
    if packages:
        env = (f"PYTHONPATH={python_rootfs.PACKAGES}", "PYTHONDONTWRITEBYTECODE=1")
        return _Recipe(entrypoint=(python_rootfs.INTERPRETER, "-S", program), base=base, env=env)
    # -I -S: no environment, no site-packages to look for; the start is a third faster.
    return _Recipe(entrypoint=(python_rootfs.INTERPRETER, "-I", "-S", program), base=base)
