"""Limits of pods: cgroup v1, v2 and hybrid behind one interface.

Layout in every hierarchy used: `nodeless-<instance>/<pod uid>/<container>-<attempt>`. The freezer and the pids
limit belong to the pod, cpu and memory to each container (and to the pod where it asks for them).

Each container gets its own cgroup per attempt, so its OOM counter starts at zero.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000
_MIN_QUOTA = 1_000
_SETTLE_SECONDS = 2.0
_TICK = 0.001


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """None = unlimited. `cpu_shares` is Kubernetes' v1 scale, 2–262144."""

    cpu_millis: int | None = None
    cpu_shares: int | None = None
    memory_bytes: int | None = None
    pids: int | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    cpu_seconds: float
    memory_bytes: int
    pids: int


class Cgroups(Protocol):
    """All methods block for microseconds to milliseconds: call them in a thread."""

    missing: tuple[str, ...]
    """Limits that this machine cannot enforce, each with the reason."""

    def create_pod(self, pod: str, limits: Limits) -> None: ...
    def create_container(self, pod: str, container: str, limits: Limits) -> dict[str, Any]:
        """What the shim needs: files to join, directories to show inside, the OOM counter's file."""
        ...

    def freeze(self, pod: str, *, frozen: bool) -> None: ...
    def usage(self, pod: str) -> Usage | None:
        """None when there is nothing to ask."""
        ...

    def kill(self, pod: str, container: str = "") -> None:
        """SIGKILL every process in it, frozen or not. No error when it does not exist."""
        ...

    def remove(self, pod: str) -> None:
        """Kill what is left and remove. Idempotent."""
        ...

    def pods(self) -> set[str]:
        """Every pod that has a cgroup of this instance."""
        ...

    def remove_all(self) -> None:
        """The instance's own cgroup, when no pod is left in it."""
        ...


def quota(cpu_millis: int) -> int:
    """Microseconds per period of 100 ms; the kernel's minimum is 1 ms."""
    return max(_MIN_QUOTA, cpu_millis * _PERIOD // 1000)


def weight(cpu_shares: int) -> int:
    """v2 weight (1–10000) of v1 shares (2–262144), Kubernetes' conversion."""
    return max(1, min(10_000, 1 + (cpu_shares - 2) * 9999 // 262_142))


def _write(path: Path, value: object) -> None:
    try:
        path.write_text(str(value))
    except OSError as error:
        raise OSError(error.errno, f"cgroup: {path} = {value}: {error.strerror}") from error


def _read_int(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _tree(directory: Path) -> Iterator[Path]:
    """Sub-directories first."""
    try:
        with os.scandir(directory) as entries:
            inner = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for path in inner:
        yield from _tree(path)
    yield directory


def _kill_members(directory: Path) -> None:
    for group in _tree(directory):
        with contextlib.suppress(OSError):
            for word in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(word), signal.SIGKILL)


def _remove_tree(directory: Path) -> None:
    """A killed process leaves its cgroup some microseconds after its parent learned of its death."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while directory.exists():
        try:
            for group in _tree(directory):
                group.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            if time.monotonic() > deadline:
                raise
            _kill_members(directory)
            time.sleep(_TICK)


class V1:
    """Also the v1 controllers of a hybrid machine. `mounts` maps controller to its hierarchy's mount point."""

    def __init__(self, instance: str, mounts: dict[str, Path]) -> None:
        self._name = f"nodeless-{instance}"
        self._mounts = mounts
        self._bases = {controller: mount / self._name for controller, mount in mounts.items()}
        wanted = {"cpu": "cpu limits", "memory": "memory limits", "pids": "process limits", "freezer": "freezing"}
        self.missing = tuple(
            f"{what}: no cgroup v1 controller {name}" for name, what in wanted.items() if name not in mounts
        )

    def _directories(self, pod: str, container: str = "") -> dict[str, Path]:
        return {name: base / pod / container if container else base / pod for name, base in self._bases.items()}

    def create_pod(self, pod: str, limits: Limits) -> None:
        directories = self._directories(pod)
        for directory in set(directories.values()):
            directory.mkdir(parents=True, exist_ok=True)
        self._apply(directories, limits)

    def create_container(self, pod: str, container: str, limits: Limits) -> dict[str, Any]:
        nested = {"cpu", "cpuacct", "memory"}
        directories = self._directories(pod)
        for name in nested & directories.keys():
            directories[name] /= container
            directories[name].mkdir(exist_ok=True)
        self._apply(directories, limits)
        groups = sorted(set(directories.values()))
        return {
            "join": [str(group / "cgroup.procs") for group in groups],
            "binds": [[str(directory), name] for name, directory in sorted(directories.items())],
            "oom": str(directories["memory"] / "memory.oom_control") if "memory" in directories else "",
        }

    def _apply(self, directories: dict[str, Path], limits: Limits) -> None:
        cpu, memory, pids = directories.get("cpu"), directories.get("memory"), directories.get("pids")
        if cpu is not None:
            if limits.cpu_shares is not None:
                _write(cpu / "cpu.shares", max(2, limits.cpu_shares))
            if limits.cpu_millis is not None:
                _write(cpu / "cpu.cfs_period_us", _PERIOD)
                _write(cpu / "cpu.cfs_quota_us", quota(limits.cpu_millis))
        if memory is not None and limits.memory_bytes is not None:
            _write(memory / "memory.limit_in_bytes", limits.memory_bytes)
            if (memory / "memory.memsw.limit_in_bytes").exists():
                _write(memory / "memory.memsw.limit_in_bytes", limits.memory_bytes)
        if pids is not None and limits.pids is not None:
            _write(pids / "pids.max", limits.pids)

    def freeze(self, pod: str, *, frozen: bool) -> None:
        if "freezer" not in self._bases:
            raise OSError("freezing: no cgroup v1 controller freezer")
        state = self._bases["freezer"] / pod / "freezer.state"
        wanted = "FROZEN" if frozen else "THAWED"
        _write(state, wanted)
        deadline = time.monotonic() + _SETTLE_SECONDS
        while state.read_text().strip() != wanted:  # v1 has no event for it; it takes microseconds
            if time.monotonic() > deadline:
                raise TimeoutError(f"{state} did not become {wanted}")
            time.sleep(_TICK)
            _write(state, wanted)

    def usage(self, pod: str) -> Usage:
        directories = self._directories(pod)
        cpu = directories["cpuacct"] / "cpuacct.usage" if "cpuacct" in directories else Path("/nonexistent")
        memory = directories["memory"] if "memory" in directories else Path("/nonexistent")
        inactive = 0
        with contextlib.suppress(OSError):
            for line in (memory / "memory.stat").read_text().splitlines():
                if line.startswith("total_inactive_file "):
                    inactive = int(line.split()[1])
        pids = directories["pids"] / "pids.current" if "pids" in directories else Path("/nonexistent")
        return Usage(
            cpu_seconds=_read_int(cpu) / 1e9,
            memory_bytes=max(0, _read_int(memory / "memory.usage_in_bytes") - inactive),
            pids=_read_int(pids),
        )

    def kill(self, pod: str, container: str = "") -> None:
        nested = self._directories(pod, container)
        for name in ("memory", "pids", "freezer", "cpu"):
            if name in nested and nested[name].exists():
                _kill_members(nested[name])
                break
        freezer = self._bases.get("freezer")
        if freezer is not None and not container:
            with contextlib.suppress(OSError):  # a frozen process dies only when it is thawed
                (freezer / pod / "freezer.state").write_text("THAWED")

    def remove(self, pod: str) -> None:
        self.kill(pod)
        for directory in set(self._directories(pod).values()):
            _remove_tree(directory)

    def pods(self) -> set[str]:
        return {
            entry.name
            for base in self._bases.values()
            if base.is_dir()
            for entry in base.iterdir()
            if entry.is_dir()
        }

    def remove_all(self) -> None:
        for base in set(self._bases.values()):
            with contextlib.suppress(OSError):
                base.rmdir()


class V2:
    """`base` is our own cgroup, in which controllers can be enabled (root's, or a delegated one)."""

    def __init__(self, base: Path, instance: str) -> None:
        self._base = base / f"nodeless-{instance}"
        self._parent = base
        have = set((base / "cgroup.controllers").read_text().split())
        self._controllers = [name for name in ("cpu", "memory", "pids") if name in have]
        what = {"cpu": "cpu limits", "memory": "memory limits", "pids": "process limits"}
        self.missing = tuple(
            f"{text}: no cgroup v2 controller {name} in {base}" for name, text in what.items() if name not in have
        )

    def _enable(self, directory: Path) -> None:
        if self._controllers:
            _write(directory / "cgroup.subtree_control", " ".join(f"+{name}" for name in self._controllers))

    def prepare(self) -> None:
        """Raises OSError when the cgroup is not ours to divide."""
        self._enable(self._parent)
        self._base.mkdir(exist_ok=True)
        self._enable(self._base)

    def create_pod(self, pod: str, limits: Limits) -> None:
        if not self._base.is_dir():
            self.prepare()
        directory = self._base / pod
        directory.mkdir(exist_ok=True)
        self._enable(directory)
        self._apply(directory, limits)

    def create_container(self, pod: str, container: str, limits: Limits) -> dict[str, Any]:
        directory = self._base / pod / container
        directory.mkdir(exist_ok=True)
        self._apply(directory, limits)
        return {
            "join": [str(directory / "cgroup.procs")],
            "binds": [[str(directory), ""]],
            "oom": str(directory / "memory.events"),
        }

    def _apply(self, directory: Path, limits: Limits) -> None:
        if "cpu" in self._controllers:
            if limits.cpu_shares is not None:
                _write(directory / "cpu.weight", weight(limits.cpu_shares))
            if limits.cpu_millis is not None:
                _write(directory / "cpu.max", f"{quota(limits.cpu_millis)} {_PERIOD}")
        if "memory" in self._controllers and limits.memory_bytes is not None:
            _write(directory / "memory.max", limits.memory_bytes)
            if (directory / "memory.swap.max").exists():
                _write(directory / "memory.swap.max", 0)
        if "pids" in self._controllers and limits.pids is not None:
            _write(directory / "pids.max", limits.pids)

    def freeze(self, pod: str, *, frozen: bool) -> None:
        directory = self._base / pod
        _write(directory / "cgroup.freeze", int(frozen))
        deadline = time.monotonic() + _SETTLE_SECONDS
        while f"frozen {int(frozen)}" not in (directory / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{directory} did not reach frozen {int(frozen)}")
            time.sleep(_TICK)

    def usage(self, pod: str) -> Usage:
        directory = self._base / pod
        cpu, inactive = 0.0, 0
        with contextlib.suppress(OSError):
            stat = dict(line.split(" ", 1) for line in (directory / "cpu.stat").read_text().splitlines())
            cpu = int(stat.get("usage_usec", 0)) / 1e6
        with contextlib.suppress(OSError):
            stat = dict(line.split(" ", 1) for line in (directory / "memory.stat").read_text().splitlines())
            inactive = int(stat.get("inactive_file", 0))
        memory = max(0, _read_int(directory / "memory.current") - inactive)
        return Usage(cpu_seconds=cpu, memory_bytes=memory, pids=_read_int(directory / "pids.current"))

    def kill(self, pod: str, container: str = "") -> None:
        directory = self._base / pod / container if container else self._base / pod
        with contextlib.suppress(FileNotFoundError):
            if (directory / "cgroup.kill").exists():
                _write(directory / "cgroup.kill", 1)
            else:
                _kill_members(directory)

    def remove(self, pod: str) -> None:
        self.kill(pod)
        _remove_tree(self._base / pod)

    def pods(self) -> set[str]:
        return {entry.name for entry in self._base.iterdir() if entry.is_dir()} if self._base.is_dir() else set()

    def remove_all(self) -> None:
        with contextlib.suppress(OSError):
            self._base.rmdir()


class Without:
    """No cgroups for us: nothing is limited, processes are found by their shim."""

    missing: tuple[str, ...]

    def __init__(self, reason: str) -> None:
        self.missing = (f"cpu, memory and process limits, freezing: {reason}",)
        self._reason = reason

    def create_pod(self, pod: str, limits: Limits) -> None: ...

    def create_container(self, pod: str, container: str, limits: Limits) -> dict[str, Any]:
        return {"join": [], "binds": [], "oom": ""}

    def freeze(self, pod: str, *, frozen: bool) -> None:
        raise OSError(f"freezing: {self._reason}")

    def usage(self, pod: str) -> Usage | None:
        return None

    def kill(self, pod: str, container: str = "") -> None: ...
    def remove(self, pod: str) -> None: ...

    def pods(self) -> set[str]:
        return set()

    def remove_all(self) -> None: ...
