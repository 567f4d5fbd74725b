"""The parts of a container's file system that do not depend on its image: /proc, /sys and /dev.

They are assembled at a place of our own, before anybody knows what will run, and moved into the new root later.
"""

from __future__ import annotations

import os
import stat

from serving.local.sandbox.spawner.linux import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_SLAVE,
    mount,
    move_mount,
)
from serving.local.sandbox.spawner.remount import remount_read_only

_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Stage:
    """Roots of the three assembled trees. Must be made in the container's own mount and pid namespaces."""

    def __init__(self, directory: str, cgroups: list[list[str]], *, rootless: bool) -> None:
        """`directory` exists and is only a place to mount on; nothing of it is visible outside. `cgroups` are
        pairs of a host directory and its name under /sys/fs/cgroup ("" = the whole of it)."""
        # Images that are mounted from now on still arrive here; nothing of ours leaves.
        mount("", "/", "", MS_SLAVE | MS_REC)
        mount("tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700,size=16k")
        for name in ("proc", "sys", "dev"):
            os.mkdir(f"{directory}/{name}")
        _proc_and_sys(directory, cgroups)
        _dev(f"{directory}/dev", rootless=rootless)
        _mask(directory)
        self._roots = {
            f"/{name}": os.open(f"{directory}/{name}", os.O_PATH | os.O_CLOEXEC) for name in ("proc", "sys", "dev")
        }

    def move(self) -> None:
        """To the process's present root."""
        for target, fd in self._roots.items():
            os.makedirs(target, exist_ok=True)
            move_mount(fd, target)
            os.close(fd)


def _proc_and_sys(root: str, cgroups: list[list[str]]) -> None:
    mount("proc", f"{root}/proc", "proc", _SAFE)
    mount("sysfs", f"{root}/sys", "sysfs", _SAFE | MS_RDONLY)
    if not cgroups:
        return
    base = f"{root}/sys/fs/cgroup"
    if cgroups[0][1] == "":
        mount(cgroups[0][0], base, "", MS_BIND)
        remount_read_only(base, extra=_SAFE)
        return
    mount("tmpfs", base, "tmpfs", _SAFE, "mode=755,size=64k")
    for source, name in cgroups:
        os.mkdir(f"{base}/{name}")
        mount(source, f"{base}/{name}", "", MS_BIND)
        remount_read_only(f"{base}/{name}", extra=_SAFE)
    remount_read_only(base, extra=_SAFE)


def _dev(root: str, *, rootless: bool) -> None:
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k")
    for name, (major, minor) in _DEVICES.items():
        if rootless:
            os.close(os.open(f"{root}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666))
            mount(f"/dev/{name}", f"{root}/{name}", "", MS_BIND)
            continue
        os.mknod(f"{root}/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(f"{root}/{name}", 0o666)  # noqa: S103
    for name, target in _LINKS.items():
        os.symlink(target, f"{root}/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{root}/{name}")
    terminal_group = "" if rootless else ",gid=5"
    mount(
        "devpts",
        f"{root}/pts",
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        f"newinstance,ptmxmode=0666,mode=0620{terminal_group}",
    )
    mount("shm", f"{root}/shm", "tmpfs", _SAFE, "mode=1777,size=64m")
    mount("mqueue", f"{root}/mqueue", "mqueue", _SAFE)


def _mask(root: str) -> None:
    for name in _MASKED:
        path = root + name
        try:
            is_directory = stat.S_ISDIR(os.stat(path).st_mode)
        except OSError:
            continue  # this kernel does not have it
        if is_directory:
            mount("tmpfs", path, "tmpfs", _SAFE | MS_RDONLY, "size=4k")
        else:
            mount("/dev/null", path, "", MS_BIND)
    for name in _READ_ONLY:
        path = root + name
        if os.path.exists(path):
            mount(path, path, "", MS_BIND | MS_REC)
            remount_read_only(path, extra=_SAFE)
