"""Which cgroup hierarchies this process may divide."""

from __future__ import annotations

import os
from pathlib import Path

from serving.local.sandbox.cgroups import V1, V2, Cgroups, Without

_LEAF = "nodeless-stack"
_V1_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "freezer")


def detect(instance: str, *, rootless: bool, mounts: str | None = None, own: str | None = None) -> Cgroups:
    """`mounts` and `own` are the texts of /proc/self/mounts and /proc/self/cgroup."""
    table = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    membership = Path("/proc/self/cgroup").read_text() if own is None else own
    v1, v2 = hierarchies(table)
    if v2 is not None and "memory" in _controllers(v2):
        if not rootless:
            return _root_v2(v2, instance)
        return _delegated_v2(v2, membership, instance)
    if v1 and not rootless and all(os.access(mount, os.W_OK) for mount in v1.values()):
        return V1(instance, v1)
    if rootless:
        return Without(
            "without root they need cgroup v2 and a delegated subtree (systemd-run --user -p Delegate=yes)"
        )
    return Without("no writable cgroup file system is mounted on /sys/fs/cgroup")


def hierarchies(mounts: str) -> tuple[dict[str, Path], Path | None]:
    """v1 controllers that we use with their mount points, and the v2 mount point."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in mounts.splitlines():
        _, target, fstype, options, *_ = line.split()
        if fstype == "cgroup2" and v2 is None:
            v2 = Path(target)
        elif fstype == "cgroup":
            for option in options.split(","):
                if option in _V1_CONTROLLERS:
                    v1.setdefault(option, Path(target))
    return v1, v2


def _controllers(v2: Path) -> set[str]:
    try:
        return set((v2 / "cgroup.controllers").read_text().split())
    except OSError:
        return set()


def _root_v2(v2: Path, instance: str) -> Cgroups:
    try:
        cgroups = V2(v2, instance)
        cgroups.prepare()
    except OSError as error:
        return Without(f"cgroup v2 at {v2} cannot be divided: {error}")
    return cgroups


def _delegated_v2(v2: Path, membership: str, instance: str) -> Cgroups:
    """Our own cgroup, when it was delegated: its processes move to a leaf, so that controllers can be enabled."""
    path = next((line[3:] for line in membership.splitlines() if line.startswith("0::")), "/")
    own = v2 / path.lstrip("/")
    if own.name == _LEAF:
        own = own.parent
    try:
        leaf = own / _LEAF
        leaf.mkdir(exist_ok=True)
        for pid in (own / "cgroup.procs").read_text().split():
            (leaf / "cgroup.procs").write_text(pid)
        cgroups = V2(own, instance)
        cgroups.prepare()
    except OSError as error:
        return Without(
            f"{own} is not delegated to this user ({error.strerror}); systemd-run --user -p Delegate=yes"
        )
    return cgroups
