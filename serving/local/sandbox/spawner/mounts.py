"""The file system that a container sees. Runs in a forked child, in a mount namespace of its own.

Everything below the new root is resolved *after* pivot_root, so that links inside an image can only point into the
image. Host sources of bind mounts are opened before.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Any

from serving.local.sandbox.spawner import loop
from serving.local.sandbox.spawner.linux import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    pivot_root,
    umount,
)

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
_LOCKED_FLAGS = {os.ST_NOSUID: MS_NOSUID, os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: MS_NOEXEC}
_ATIME_FLAGS = {os.ST_NOATIME: 1024, os.ST_NODIRATIME: 2048, os.ST_RELATIME: 1 << 21}


def ensure_image(erofs: str, point: str) -> None:
    """Mount an EROFS file once for all shims that share the spawner's mount namespace."""
    if os.path.ismount(point):
        return
    os.makedirs(point, mode=0o700, exist_ok=True)
    lock = os.open(point + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.ismount(point):
            return
        try:
            mount(erofs, point, "erofs", MS_RDONLY | MS_NODEV)
        except OSError as error:
            if error.errno != errno.ENOTBLK:
                raise
            loop.mount_file(erofs, point, "erofs", MS_RDONLY | MS_NODEV)
    finally:
        os.close(lock)


def release_image(point: str) -> None:
    """Forget an image that no new container needs; running ones keep their own reference."""
    if os.path.ismount(point):
        umount(point, MNT_DETACH)


def build(spec: dict[str, Any], *, rootless: bool) -> None:
    """Assemble the container's root and make it the process's root. Raises OSError naming the mount."""
    mount("", "/", "", MS_PRIVATE | MS_REC)
    sources = [(_open_source(item["source"]), item) for item in spec["mounts"]]
    cgroups = [(os.open(path, os.O_PATH | os.O_CLOEXEC), name) for path, name in spec["cgroup"]["binds"]]
    devices = {name: os.open(f"/dev/{name}", os.O_PATH | os.O_CLOEXEC) for name in _DEVICES}
    root = os.path.join(spec["directory"], "root")
    _overlay(spec, root, rootless=rootless)
    os.chdir(root)
    pivot_root(".", ".")
    _proc_and_sys(cgroups)
    _dev(devices, rootless=rootless)
    if not os.path.lexists("/tmp"):  # noqa: S108
        os.mkdir("/tmp")  # noqa: S108
        os.chmod("/tmp", 0o1777)  # noqa: S108, S103
    for fd, item in sources:
        _bind(fd, item["target"], read_only=item["read_only"])
    _mask()
    umount(".", MNT_DETACH)
    if spec["read_only"]:
        _remount_read_only("/")
    os.chdir("/")


def _open_source(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def _escape(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _overlay(spec: dict[str, Any], root: str, *, rootless: bool) -> None:
    lower = spec["rootfs"]
    directory = spec["directory"]
    os.chdir(directory)
    options = f"lowerdir={_escape(lower)},upperdir=upper,workdir=work"
    if rootless:
        options += ",userxattr"
    flags = MS_NODEV
    for extra in (",volatile", ""):
        try:
            mount("overlay", root, "overlay", flags, options + extra)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
                raise
        else:
            return
    # The data directory's file system cannot be an upper layer (it is itself an overlay): use memory, which is
    # charged to the container.
    mount("tmpfs", directory, "tmpfs", MS_NODEV | MS_NOSUID, "mode=700")
    os.chdir(directory)
    for name in ("root", "upper", "work"):
        os.mkdir(name)
    mount("overlay", root, "overlay", flags, options)


def _proc_and_sys(cgroups: list[tuple[int, str]]) -> None:
    for path in ("/proc", "/sys"):
        os.makedirs(path, exist_ok=True)
    mount("proc", "/proc", "proc", _SAFE)
    mount("sysfs", "/sys", "sysfs", _SAFE | MS_RDONLY)
    if not cgroups:
        return
    base = "/sys/fs/cgroup"
    if cgroups[0][1] == "":
        _bind(cgroups[0][0], base, read_only=True, extra=_SAFE)
        return
    mount("tmpfs", base, "tmpfs", _SAFE, "mode=755,size=64k")
    for fd, name in cgroups:
        os.makedirs(f"{base}/{name}", exist_ok=True)
        _bind(fd, f"{base}/{name}", read_only=True, extra=_SAFE)
    _remount_read_only(base, extra=_SAFE)


def _dev(devices: dict[str, int], *, rootless: bool) -> None:
    os.makedirs("/dev", exist_ok=True)
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k")
    for name, (major, minor) in _DEVICES.items():
        if rootless:
            _bind(devices[name], f"/dev/{name}", read_only=False)
            continue
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
        os.chmod(f"/dev/{name}", 0o666)  # noqa: S103
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"/dev/{name}")
    terminal_group = "" if rootless else ",gid=5"
    mount(
        "devpts",
        "/dev/pts",
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        f"newinstance,ptmxmode=0666,mode=0620{terminal_group}",
    )
    mount("shm", "/dev/shm", "tmpfs", _SAFE, "mode=1777,size=64m")  # noqa: S108
    mount("mqueue", "/dev/mqueue", "mqueue", _SAFE)


def _bind(fd: int, target: str, *, read_only: bool, extra: int = 0) -> None:
    source = f"/proc/self/fd/{fd}"
    _create_target(target, is_directory=stat.S_ISDIR(os.fstat(fd).st_mode))
    mount(source, target, "", MS_BIND | MS_REC)
    if read_only:
        _remount_read_only(target, extra=extra)


def _remount_read_only(target: str, *, extra: int = 0) -> None:
    """Keeps the flags of the source: a user namespace must not clear them."""
    have = os.statvfs(target).f_flag
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | extra
    for seen, flag in (*_LOCKED_FLAGS.items(), *_ATIME_FLAGS.items()):
        if have & seen:
            flags |= flag
    mount("", target, "", flags)


def _create_target(target: str, *, is_directory: bool) -> None:
    if is_directory:
        os.makedirs(target, exist_ok=True)
        return
    if os.path.exists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(target):
        os.unlink(target)  # a dangling link, as some images have for resolv.conf
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def _mask() -> None:
    for path in _MASKED:
        try:
            is_directory = stat.S_ISDIR(os.stat(path).st_mode)
        except OSError:
            continue  # this kernel does not have it
        if is_directory:
            mount("tmpfs", path, "tmpfs", _SAFE | MS_RDONLY, "size=4k")
        else:
            mount("/dev/null", path, "", MS_BIND)
    for path in _READ_ONLY:
        if os.path.exists(path):
            mount(path, path, "", MS_BIND | MS_REC)
            _remount_read_only(path, extra=_SAFE)
