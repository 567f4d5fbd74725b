"""A program, not a module: mount an EROFS file in a private mount namespace and look for a file in it.

`python mount_probe.py IMAGE TARGET MARKER`; the last line on standard error says why it does not work. The file is
mounted as it is, without a loop device, as sandboxes do.
"""

import ctypes
import errno
import os
import sys

CLONE_NEWNS = 0x00020000
MS_RDONLY = 1
MS_REC = 16384
MS_PRIVATE = 1 << 18


_REASONS = {
    errno.ENODEV: "this kernel has no EROFS",
    errno.ENOTBLK: "this kernel needs a loop device for it, Linux 6.12 or newer does not",
    errno.EPERM: "not permitted here",
}


def main(image: str, target: str, marker: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def require(result: int, problem: str) -> None:
        if result != 0:
            code = ctypes.get_errno()
            sys.exit(f"{problem}: {_REASONS.get(code) or os.strerror(code)}")

    require(libc.unshare(CLONE_NEWNS), "making a mount namespace")
    require(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "making mounts private")
    mounted = libc.mount(image.encode(), target.encode(), b"erofs", MS_RDONLY, None)
    require(mounted, "mounting an EROFS file")
    if not os.path.exists(os.path.join(target, marker)):
        sys.exit("the mounted EROFS file is empty")


if __name__ == "__main__":
    main(*sys.argv[1:])
