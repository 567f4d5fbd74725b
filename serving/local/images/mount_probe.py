"""A program, not a module: mount an EROFS file in a private mount namespace and look for a file in it.

`python mount_probe.py IMAGE TARGET MARKER`; the last line on standard error says why it does not work. The file is
mounted as it is, without a loop device, as sandboxes do.
"""

import ctypes
import os
import sys

CLONE_NEWNS = 0x00020000
MS_RDONLY = 1
MS_REC = 16384
MS_PRIVATE = 1 << 18


def main(image: str, target: str, marker: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def require(result: int, problem: str) -> None:
        if result != 0:
            sys.exit(f"{problem}: {os.strerror(ctypes.get_errno())}")

    require(libc.unshare(CLONE_NEWNS), "a private mount namespace is refused")
    require(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "private mounts are refused")
    mounted = libc.mount(image.encode(), target.encode(), b"erofs", MS_RDONLY, None)
    require(mounted, "the kernel does not mount EROFS files (Linux 6.12 or newer does)")
    if not os.path.exists(os.path.join(target, marker)):
        sys.exit("the mounted EROFS file is empty")


if __name__ == "__main__":
    main(*sys.argv[1:])
