"""Loop devices, for kernels that mount image files only from block devices (before 6.12)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from serving.local.sandbox.spawner.linux import mount

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_READ_ONLY = 1
_AUTOCLEAR = 4
_ATTEMPTS = 32


def mount_file(image: str, target: str, fstype: str, flags: int) -> None:
    """Attach `image` to a free loop device and mount it; the device goes away with the last mount."""
    backing = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        device, path = _attach(backing)
        try:
            mount(path, target, fstype, flags)
        finally:
            os.close(device)
    finally:
        os.close(backing)


def _attach(backing: int) -> tuple[int, str]:
    info = struct.pack(
        "=QQQQQIIII64s64s32sQQ", 0, 0, 0, 0, 0, 0, 0, 0, _READ_ONLY | _AUTOCLEAR, b"", b"", b"", 0, 0
    )
    config = struct.pack("=II", backing, 0) + info + bytes(64)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else took it between the two calls
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device")
