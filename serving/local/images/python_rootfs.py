"""A root filesystem with the Python that runs this program. Blocking.

No registry and no download: interpreter, standard library and the shared libraries that `ldd` names are copied to
`/usr`, without tests, tools and site-packages. The standard library is left as byte code only (next to where the
source would be): half the files, and imports neither look for nor compare a source. Packages of the running
environment can be added under `/app/lib`.
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
from collections.abc import Iterable
from pathlib import Path

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
_TLS_EXTENSIONS = re.compile(r"(_ssl|_hashlib)\.")
_WORTH_STRIPPING = 1 << 20
_LDD_LINE = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")


def assemble(root: Path, *, tls: bool = False, packages: Iterable[str] = ()) -> None:
    """Fill the directory `root`. `tls`: with `ssl` and its 6 MB of libraries, whose import takes time at each
    start. `packages`: distributions, taken with what they require. Raises ImageError."""
    try:
        binaries = [_copy_interpreter(root), *_copy_standard_library(root, tls=tls)]
        binaries += _copy_packages(root / PACKAGES.lstrip("/"), packages)
        _copy_libraries(root, binaries)
        _strip_symbols(root)
        _compile_library(root)
    except (OSError, subprocess.SubprocessError) as error:
        raise pull_failed(f"this machine's Python cannot be put into an image: {error}") from error
    for directory in ("tmp", "etc", "proc", "dev", "sys"):
        (root / directory).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)


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


def _copy_standard_library(root: Path, *, tls: bool) -> list[Path]:
    """Returns the extension modules' sources."""
    extensions: list[Path] = []

    def ignore(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if _is_left_out(directory, name, tls=tls)]

    for path in dict.fromkeys((sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))):
        shutil.copytree(path, _library_dir(root), ignore=ignore, dirs_exist_ok=True)
        dynload = Path(path, "lib-dynload")
        copied = _library_dir(root) / "lib-dynload"
        extensions += [dynload / entry.name for entry in copied.iterdir() if (dynload / entry.name).is_file()]
    return extensions


def _is_left_out(directory: str, name: str, *, tls: bool) -> bool:
    if name in _LEFT_OUT or name.startswith("config-") or name.endswith((".a", ".pyc", ".exe")):
        return True
    if not name.endswith(".so"):
        return False
    return bool(_LEFT_OUT_EXTENSIONS.match(name) or (not tls and _TLS_EXTENSIONS.match(name)))


def _compile_library(root: Path) -> None:
    """Byte code in place of the standard library's sources, beside them elsewhere; trusted without a check."""
    library = _library_dir(root)
    options = {
        "quiet": 2,
        "invalidation_mode": py_compile.PycInvalidationMode.UNCHECKED_HASH,
        "stripdir": str(root),
    }
    compileall.compile_dir(str(library), legacy=True, force=True, prependdir="/", **options)  # type: ignore[arg-type]
    for source in library.rglob("*.py"):
        if source.with_suffix(".pyc").exists():
            source.unlink()
    app = root / "app"
    if app.is_dir():
        compileall.compile_dir(str(app), force=True, prependdir="/", **options)  # type: ignore[arg-type]


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
