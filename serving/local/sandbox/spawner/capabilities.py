"""Names and bits of Linux capabilities, and the default set of a container.

The default is Kubernetes' (containerd's) without NET_RAW, MKNOD and AUDIT_WRITE: raw sockets could forge the
addresses of other pods, device nodes need a device filter. `ping` works without NET_RAW (ping_group_range).
"""

from __future__ import annotations

NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
BITS = {name: bit for bit, name in enumerate(NAMES)}

DEFAULT = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "SETFCAP",
)


def _bit(name: str) -> int:
    plain = name.upper().removeprefix("CAP_")
    if plain not in BITS:
        raise ValueError(f"capability {name!r} is unknown; allowed: ALL, {', '.join(NAMES)}")
    return 1 << BITS[plain]


def mask(*, add: list[str], drop: list[str]) -> int:
    """The container's set: default, then `drop`, then `add` (so `drop: [ALL]` with `add: [X]` leaves X).

    `ALL` means every known capability. Raises ValueError for an unknown name.
    """
    result = sum(1 << BITS[name] for name in DEFAULT)
    for name in drop:
        result = 0 if name.upper() == "ALL" else result & ~_bit(name)
    for name in add:
        result = (1 << len(NAMES)) - 1 if name.upper() == "ALL" else result | _bit(name)
    return result


def names_in(value: int) -> set[str]:
    return {name for name, bit in BITS.items() if value >> bit & 1}
