"""System calls that Python 3.11 has no function for, by ctypes. Every failure is an OSError."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2

_MACHINE = os.uname().machine
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}.get(_MACHINE, 155)
_CAPSET = {"x86_64": 126, "aarch64": 91}.get(_MACHINE, 126)
_MOVE_MOUNT = 429
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_CAP_VERSION_3 = 0x20080522

_CLONE = {"x86_64": 56, "aarch64": 220}.get(_MACHINE, 56)

# PyDLL keeps the interpreter lock during a call: there is one thread, and `clone` must not return without it.
_libc = ctypes.PyDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            fstype.encode() if fstype else None,
            ctypes.c_ulong(flags),
            data.encode() if data else None,
        ),
        f"mount {fstype or source} on {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def move_mount(fd: int, target: str) -> None:
    """Move the mount that `fd` is the root of. Needs Linux 5.2."""
    result = _libc.syscall(
        ctypes.c_long(_MOVE_MOUNT),
        fd,
        b"",
        _AT_FDCWD,
        os.fsencode(target),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
    )
    _check(result, f"move mount to {target}")


def pivot_root(new: str, old: str) -> None:
    _check(_libc.syscall(ctypes.c_long(_PIVOT_ROOT), os.fsencode(new), os.fsencode(old)), f"pivot_root {new}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind), f"setns {kind:#x}")


def clone(flags: int) -> int:
    """fork(2) whose child starts in new namespaces: 0 in the child, its pid in the parent.

    Skips Python's fork hooks: safe only in a single-threaded process whose child soon executes or exits.
    """
    pid = int(_libc.syscall(ctypes.c_long(_CLONE), ctypes.c_ulong(flags | signal.SIGCHLD), 0, 0, 0, 0))
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"clone {flags:#x}: {os.strerror(number)}")
    return pid


def prctl(option: int, first: int = 0, second: int = 0) -> None:
    unsigned = ctypes.c_ulong
    _check(_libc.prctl(option, unsigned(first), unsigned(second), unsigned(0), unsigned(0)), f"prctl {option}")


def last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def drop_bounding_set(keep: int, last: int) -> None:
    for capability in range(last + 1):
        if not keep >> capability & 1:
            prctl(PR_CAPBSET_DROP, capability)


def set_capabilities(mask: int) -> None:
    """Permitted and effective become `mask`, inheritable and ambient become empty."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _CAP_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    _check(_libc.syscall(ctypes.c_long(_CAPSET), header, data), "capset")


def install_seccomp(program: bytes) -> None:
    """`program` is an array of struct sock_filter (8 bytes each)."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    holder = ctypes.create_string_buffer(fprog, len(fprog))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(holder))


def effective_capabilities() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0
