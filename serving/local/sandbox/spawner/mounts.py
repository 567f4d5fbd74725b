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

_BENEATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
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
    sources = [(_open_source(item["source"], exact=item.get("exact", False)), item) for item in spec["mounts"]]
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


def _open_source(path: str, *, exact: bool) -> int:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    # Below a volume that a container writes to, what was a directory when it was looked at may be a link by now.
    if exact and os.readlink(f"/proc/self/fd/{fd}") != path:
        raise OSError(errno.ELOOP, f"{path}: leads elsewhere")
    return fd


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
    place, leaf = _make_target(target, is_directory=stat.S_ISDIR(os.fstat(fd).st_mode))
    try:
        mount(source, f"/proc/self/fd/{leaf}", "", MS_BIND | MS_REC)
    finally:
        os.close(leaf)
    if read_only:
        remount_read_only(place)


def _make_target(target: str, *, is_directory: bool) -> tuple[str, int]:
    """Where `target` leads inside the new root, made when it is missing, and a descriptor of it.

    The old root still lies over the new one, and the kernel takes `/..` for it. So dots and links are resolved
    here, where nothing leads above `/`, and what was found is opened without following any link that somebody
    who shares a volume with us may put there meanwhile.
    """
    place = os.path.realpath(target)
    if not is_directory and not os.path.exists(place):
        link = os.path.join(os.path.realpath(os.path.dirname(target)), os.path.basename(target))
        if os.path.islink(link):
            os.unlink(link)  # a dangling link, as some images have for resolv.conf
            place = link
    names = [name for name in place.split("/") if name]
    at = os.open("/", _BENEATH | os.O_DIRECTORY)
    for depth, name in enumerate(names, 1):
        parent, at = at, -1
        try:
            at = _make(parent, name, is_directory=is_directory or depth < len(names))
        finally:
            os.close(parent)
    return place, at


def _make(parent: int, name: str, *, is_directory: bool) -> int:
    flags = _BENEATH | (os.O_DIRECTORY if is_directory else 0)
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if is_directory:
            os.mkdir(name, dir_fd=parent)
        else:
            os.close(os.open(name, _NEW_FILE, 0o644, dir_fd=parent))
        fd = os.open(name, flags, dir_fd=parent)
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, f"{name}: became a link meanwhile")
    return fd
