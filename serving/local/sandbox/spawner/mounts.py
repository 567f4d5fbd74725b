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
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    mount,
    pivot_root,
    umount,
)
from serving.local.sandbox.spawner.remount import remount_read_only
from serving.local.sandbox.spawner.stage import Stage

_UNMAPPED = 65534
"""How a user namespace shows ids that it does not have."""


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


def ensure_memory(directory: str, size: int) -> None:
    """A memory file system of `size` bytes over an empty directory of the pod, with its mode and group. Only the
    pod's containers see it; it goes when the directory is removed."""
    if os.path.ismount(directory):
        return
    found = os.stat(directory)
    group = "" if found.st_gid == _UNMAPPED else f",gid={found.st_gid}"
    options = f"size={size},mode={stat.S_IMODE(found.st_mode):o}{group}"
    mount("tmpfs", directory, "tmpfs", MS_NODEV | MS_NOSUID, options)


def release_image(point: str) -> None:
    """Forget an image that no new container needs; running ones keep their own reference."""
    if os.path.ismount(point):
        umount(point, MNT_DETACH)


def build(spec: dict[str, Any], stage: Stage, *, rootless: bool) -> None:
    """Assemble the container's root and make it the process's root. Raises OSError naming the mount."""
    mount("", "/", "", MS_PRIVATE | MS_REC)
    sources = [(_open_source(item["source"]), item) for item in spec["mounts"]]
    root = os.path.join(spec["directory"], "root")
    _overlay(spec, root, rootless=rootless)
    os.chdir(root)
    pivot_root(".", ".")
    stage.move()
    if not os.path.lexists("/tmp"):  # noqa: S108
        os.mkdir("/tmp")  # noqa: S108
        os.chmod("/tmp", 0o1777)  # noqa: S108, S103
    for fd, item in sources:
        _bind(fd, item["target"], read_only=item["read_only"])
        os.close(fd)
    umount(".", MNT_DETACH)
    if spec["read_only"]:
        remount_read_only("/")
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


def _bind(fd: int, target: str, *, read_only: bool) -> None:
    source = f"/proc/self/fd/{fd}"
    _create_target(target, is_directory=stat.S_ISDIR(os.fstat(fd).st_mode))
    mount(source, target, "", MS_BIND | MS_REC)
    if read_only:
        remount_read_only(target)


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
