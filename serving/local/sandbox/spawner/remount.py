"""Making mounts read-only."""

from __future__ import annotations

import os

from serving.local.sandbox.spawner.linux import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
    mount,
)

_LOCKED_FLAGS = {os.ST_NOSUID: MS_NOSUID, os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: MS_NOEXEC}
_ATIME_FLAGS = {os.ST_NOATIME: 1024, os.ST_NODIRATIME: 2048, os.ST_RELATIME: 1 << 21}


def remount_read_only(target: str, *, extra: int = 0) -> None:
    """Keeps the flags of the source: a user namespace must not clear them."""
    have = os.statvfs(target).f_flag
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | extra
    for seen, flag in (*_LOCKED_FLAGS.items(), *_ATIME_FLAGS.items()):
        if have & seen:
            flags |= flag
    mount("", target, "", flags)
