"""A root filesystem with the Python that runs this program. Blocking.

No registry and no download: interpreter, standard library and the shared libraries that `ldd` names are copied to
`/usr`, without tests, tools and site-packages. The standard library is left as byte code only (next to where the
source would be): half the files, and imports neither look for nor compare a source. An application goes on top,
in a layer of its own, with packages of the running environment under `/app/lib`.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving.local.images.errors import pull_failed

INTERPRETER = "/usr/bin/python3"
PACKAGES = "/app/lib"

_LEFT_OUT = frozenset(
    {
        *("__pycache__", "config", "dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "msilib"),
        *("pydoc_data", "site-packages", "test", "tests", "tkinter", "turtledemo", "turtle.py", "venv"),
    }
)
_LEFT_OUT_EXTENSIONS = re.compile(
    r"(_tkinter|_test\w*|_ctypes_test|_xxtestfuzz|xxlimited\w*|_codecs_\w+|nis|ossaudiodev|readline|_curses\w*)\."
)
_WORTH_STRIPPING = 1 << 20
_LDD_LINE = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")


def assemble_python(root: Path) -> None:
    """Fill the directory `root`. Raises ImageError."""
    with _explained():
        binaries = [_copy_interpreter(root), *_copy_standard_library(root)]
        _copy_libraries(root, binaries)
        _strip_symbols(root)
        _compile_library(root)
        for directory in ("tmp", "etc", "proc", "dev", "sys"):
            (root / directory).mkdir(exist_ok=True)
        (root / "tmp").chmod(0o1777)


def assemble_application(root: Path, source: Path, *, packages: Iterable[str]) -> str:
    """Put a program at `/app`, and distributions with what they require at `/app/lib`; to be built on
    `assemble_python`. Returns the program's path in the image. Raises ImageError."""
    with _explained():
        program = root / "app" / source.name
        program.parent.mkdir(parents=True)
        shutil.copyfile(source, program)
        _copy_libraries(root, _copy_packages(root / PACKAGES.lstrip("/"), packages))
        _strip_symbols(root)
        compileall.compile_dir(str(program.parent), force=True, **_compile_options(root))
    return f"/app/{source.name}"


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise pull_failed(f"this machine's Python cannot be put into an image: {error}") from error


def _copy_interpreter(root: Path) -> Path:
    source = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    target = root / "usr/bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    target.parent.mkdir(parents=True)
    shutil.copy2(source, target)
    target.chmod(0o755)
    (root / INTERPRETER.lstrip("/")).symlink_to(target.name)
    return source


def _library_dir(root: Path) -> Path:
    """Where the interpreter looks, beside its own `bin`."""
    return root / "usr" / sys.platlibdir / f"python{sys.version_info.major}.{sys.version_info.minor}"


def _copy_standard_library(root: Path) -> list[Path]:
    """Returns the extension modules' sources."""
    extensions: list[Path] = []

    def ignore(_: str, names: list[str]) -> list[str]:
        return [name for name in names if _is_left_out(name)]

    for path in dict.fromkeys((sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))):
        shutil.copytree(path, _library_dir(root), ignore=ignore, dirs_exist_ok=True)
        dynload = Path(path, "lib-dynload")
        copied = _library_dir(root) / "lib-dynload"
        extensions += [dynload / entry.name for entry in copied.iterdir() if (dynload / entry.name).is_file()]
    return extensions


def _is_left_out(name: str) -> bool:
    if name in _LEFT_OUT or name.startswith("config-") or name.endswith((".a", ".pyc", ".exe")):
        return True
    return bool(_LEFT_OUT_EXTENSIONS.match(name))


def _compile_library(root: Path) -> None:
    """Byte code in place of the sources."""
    library = _library_dir(root)
    compileall.compile_dir(str(library), legacy=True, force=True, **_compile_options(root))
    for source in library.rglob("*.py"):
        if source.with_suffix(".pyc").exists():
            source.unlink()


def _compile_options(root: Path) -> dict[str, Any]:
    """Trusted without a look at the source: images are read-only, and their files' times are zero."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    return {"quiet": 2, "invalidation_mode": mode, "stripdir": str(root), "prependdir": "/"}


# shared libraries


def _copy_libraries(root: Path, binaries: Iterable[Path]) -> None:
    """What the dynamic linker would load, put where it looks first: beside the C library."""
    needed: set[Path] = set()
    for binary in binaries:
        needed |= _dependencies(binary)
    home = next((path.parent for path in needed if re.match(r"libc[.-]", path.name)), Path("/usr/lib"))
    for path in needed:
        directory = path.parent if path.name.startswith(("ld-", "ld.so")) else home
        target = root / str(directory).lstrip("/") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(path.resolve(), target)


def _dependencies(binary: Path) -> set[Path]:
    done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False, timeout=30)
    return {Path(name) for name in _LDD_LINE.findall(done.stdout)}


def _strip_symbols(root: Path) -> None:
    """Debug symbols are two thirds of a self-built Python. Without `strip`, or where it refuses, they stay."""
    strip = shutil.which("strip")
    large = [
        str(path) for path in root.rglob("*.so*") if path.is_file() and path.stat().st_size > _WORTH_STRIPPING
    ]
    if strip and large:
        subprocess.run([strip, "--strip-debug", *large], capture_output=True, check=False, timeout=60)


# packages


def _copy_packages(target: Path, packages: Iterable[str]) -> list[Path]:
    """Returns the extension modules' sources."""
    extensions = []
    for name in sorted(_with_requirements(packages)):
        for file in importlib.metadata.files(name) or ():
            source = Path(os.path.abspath(file.locate()))
            if file.parts[0] == ".." or "__pycache__" in file.parts or not source.is_file():
                continue
            copy = target.joinpath(*file.parts)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
            if re.search(r"\.so(\.|$)", source.name):
                extensions.append(source)
    return extensions


def _with_requirements(packages: Iterable[str]) -> set[str]:
    """Distributions with all that they require in this environment; optional extras are not followed."""
    found: set[str] = set()
    pending = list(packages)
    while pending:
        name = pending.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            if name in packages:
                raise pull_failed(
                    f"the package {name} is not installed in {sys.prefix} (pip install {name})"
                ) from None
            continue  # required only elsewhere: another system or another Python
        found.add(key)
        for requirement in requirements:
            match = _REQUIREMENT.match(requirement)
            if match and "extra ==" not in requirement:
                pending.append(match.group(1))
    return found
