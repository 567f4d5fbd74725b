"""A seccomp filter in classic BPF: a deny list at least as strict as the classic container default.

Denied calls fail with EPERM. `clone3` fails with ENOSYS, because its flags cannot be inspected: C libraries then
fall back to `clone`, whose namespace flags are checked. Other architectures than the machine's own (32-bit
compatibility modes, x32) are refused altogether.
"""

from __future__ import annotations

import errno
import struct

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_EPERM = _ERRNO | errno.EPERM
_ENOSYS = _ERRNO | errno.ENOSYS
_KILL = 0x80000000

_LD_W_ABS = 0x20
_JEQ = 0x15
_JGE = 0x35
_JSET = 0x45
_RET = 0x06

_CLONE_FLAGS = 0x7E020000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}; CLONE_NEWTIME exists only for unshare and clone3."""

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name: (x86_64, aarch64); None where the call does not exist.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "afs_syscall": (183, None),
    "bpf": (321, 280),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "get_kernel_syms": (177, None),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, None),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_SOCKET = {"x86_64": 41, "aarch64": 198}
_AF_ALG, _AF_VSOCK = 38, 40
_X32 = 0x40000000

_ADMIN = (
    "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount "
    "name_to_handle_at open_tree perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns "
    "syslog umount2 unshare"
)
# What a capability in the container's own set gives back, as in the usual container profiles.
_GIVEN_BACK: dict[str, tuple[str, ...]] = {
    "SYS_ADMIN": tuple(_ADMIN.split()),
    "SYS_PTRACE": ("kcmp", "process_vm_readv", "process_vm_writev", "ptrace"),
    "SYS_TIME": ("adjtimex", "clock_adjtime", "clock_settime", "settimeofday"),
    "SYS_NICE": ("mbind", "migrate_pages", "move_pages", "set_mempolicy"),
    "DAC_READ_SEARCH": ("open_by_handle_at", "name_to_handle_at"),
    "SYS_PACCT": ("acct",),
    "SYSLOG": ("syslog",),
    "SYS_TTY_CONFIG": ("vhangup",),
    "BPF": ("bpf",),
    "PERFMON": ("perf_event_open",),
}


def denied(architecture: str, capabilities: frozenset[str] = frozenset()) -> dict[str, int]:
    """Names and numbers of the calls that fail with EPERM whatever their arguments."""
    column = 0 if architecture == "x86_64" else 1
    given_back = {name for capability in capabilities for name in _GIVEN_BACK.get(capability, ())}
    return {
        name: number
        for name, numbers in _NUMBERS.items()
        if (number := numbers[column]) is not None and name not in given_back
    }


def program(architecture: str, capabilities: frozenset[str] = frozenset()) -> bytes:
    """The filter as an array of struct sock_filter. Raises KeyError for an unknown architecture."""
    instructions: list[tuple[int, int, int, int]] = []

    def emit(code: int, value: int, when_true: int = 0, when_false: int = 0) -> None:
        instructions.append((code, when_true, when_false, value))

    emit(_LD_W_ABS, 4)
    emit(_JEQ, ARCHITECTURES[architecture], 1, 0)
    emit(_RET, _KILL)
    emit(_LD_W_ABS, 0)
    if architecture == "x86_64":
        emit(_JGE, _X32, 0, 1)
        emit(_RET, _EPERM)
    for number in sorted(denied(architecture, capabilities).values()):
        emit(_JEQ, number, 0, 1)
        emit(_RET, _EPERM)
    if "SYS_ADMIN" not in capabilities:
        emit(_JEQ, _CLONE3, 0, 1)
        emit(_RET, _ENOSYS)
        emit(_JEQ, _CLONE[architecture], 0, 4)
        emit(_LD_W_ABS, 16)
        emit(_JSET, _CLONE_FLAGS, 0, 1)
        emit(_RET, _EPERM)
        emit(_RET, _ALLOW)
    emit(_JEQ, _SOCKET[architecture], 0, 4)
    emit(_LD_W_ABS, 16)
    emit(_JEQ, _AF_VSOCK, 1, 0)
    emit(_JEQ, _AF_ALG, 0, 1)
    emit(_RET, _EPERM)
    emit(_RET, _ALLOW)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


_cache: dict[tuple[str, frozenset[str]], bytes] = {}


def cached_program(architecture: str, capabilities: frozenset[str]) -> bytes:
    """`program`, computed once in the spawner and inherited by every fork."""
    key = (architecture, capabilities)
    if key not in _cache:
        _cache[key] = program(architecture, capabilities)
    return _cache[key]
