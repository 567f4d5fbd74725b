"""Without root the whole stack runs inside one user, network and mount namespace, behind one `pasta`.

Why not `pasta COMMAND`: it would put the command into a process namespace of its own, whose end takes every pod
and Envoy along. Here a sleeping holder keeps the namespaces, so that a killed supervisor can come back to them:
`rootless_reexec_command` starts or finds the holder, and executes the command inside.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

STATE_NAME = "rootless.json"
DNS_FORWARD = "203.0.113.53"
"""Inside, pasta forwards what is sent here to the host's first resolver (which may listen on loopback only)."""
_WHOLE_RANGE = "0 0 4294967295"
_UID_MAP = " ".join(Path("/proc/self/uid_map").read_text().split())
"""A process that uses this module does not change its user namespace but by executing something else."""
_INSTALL = "install pasta (Debian and Ubuntu: apt install passt)"


class Support(msgspec.Struct, frozen=True):
    works: bool
    why: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The processes that make up the namespaces; each named by pid and start time."""

    holder: int
    holder_start: int
    pasta: int
    pasta_start: int
    ports: tuple[int, ...]


def start_time(pid: int) -> int:
    """Clock ticks since boot; 0 when there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def inside() -> bool:
    """Root of a user namespace: already re-executed, or somebody else arranged it."""
    return os.geteuid() == 0 and _UID_MAP != _WHOLE_RANGE


def rootless_support(
    *,
    which: Callable[[str], str | None] = shutil.which,
    read: Callable[[str], str | None] | None = None,
) -> Support:
    """Whether an ordinary user can have the pod network here, and if not what would help."""
    look = read or _read
    if which("pasta") is None:
        return Support(False, f"pasta is missing: {_INSTALL}")
    if look("/proc/sys/user/max_user_namespaces") in (None, "0"):
        return Support(False, "user namespaces are off: sysctl user.max_user_namespaces=10000")
    if look("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return Support(False, "user namespaces are for root only: sysctl kernel.unprivileged_userns_clone=1")
    if look("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return Support(
            False, "AppArmor restricts user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    if not os.path.exists("/dev/net/tun"):
        return Support(False, "/dev/net/tun is missing: modprobe tun")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return Support(False, "/dev/net/tun is for root only: chmod 0666 /dev/net/tun (the usual mode)")
    return Support(True, "user namespaces and pasta")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def rootless_reexec_command(
    argv: Sequence[str], *, published_ports: Sequence[int], data_dir: Path
) -> list[str] | None:
    """The command that runs `argv` inside the stack's namespaces, with `published_ports` (TCP) of the namespace
    open on this machine's loopback. None where there is nothing to enter: with root, when already inside, or when
    this machine does not allow it (`rootless_support` says why)."""
    if os.geteuid() == 0 or inside() or not rootless_support().works:
        return None
    ports = ",".join(str(port) for port in published_ports)
    program = [sys.executable, "-m", "serving.local.network.rootless_launch"]
    return [*program, "--data-dir", str(data_dir), "--ports", ports, "--", *argv]


def load(data_dir: Path) -> State | None:
    """The namespaces of this data directory, when their holder lives."""
    try:
        state = msgspec.json.decode((data_dir / STATE_NAME).read_bytes(), type=State)
    except (OSError, msgspec.DecodeError):
        return None
    return state if start_time(state.holder) == state.holder_start != 0 else None


def release(data_dir: Path) -> None:
    """End the holder and pasta. The caller knows that no pod is left. Idempotent."""
    state = load(data_dir)
    if state is not None:
        for pid, started in ((state.pasta, state.pasta_start), (state.holder, state.holder_start)):
            if started and start_time(pid) == started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
    (data_dir / STATE_NAME).unlink(missing_ok=True)
