"""Small dealings with processes and files that the shim needs."""

from __future__ import annotations

import os
import signal
import time

from serving.local.sandbox.spawner import container, linux

_ROUNDS = 16
_SETTLE_SECONDS = 0.01
_IGNORED_BY_DEFAULT = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
_NOT_FOR_INIT = {signal.SIGKILL, signal.SIGSTOP}
_NAMESPACES = (("mnt", linux.CLONE_NEWNS), ("pid", linux.CLONE_NEWPID), ("cgroup", linux.CLONE_NEWCGROUP))


def write_atomically(path: str, text: str) -> bool:
    """False when it could not be written (disk full, directory deleted): a shim must survive that, for the sake of
    the pod and of whoever is connected."""
    temporary = path + ".new"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        return False
    return True


def remove_empty_parents(path: str) -> None:
    """The container's, the pod's and the instance's cgroup above a `cgroup.procs` file. The last act of a shim: it
    may wait for the kernel to take a process that has just ended out of its cgroup."""
    path = os.path.dirname(path)
    attempts = _ROUNDS
    while _is_ours(path):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError:
            attempts -= 1
            if attempts < 0:
                return
            time.sleep(_SETTLE_SECONDS)
            continue
        path, attempts = os.path.dirname(path), 0


def _is_ours(path: str) -> bool:
    return any(part.startswith("nodeless-") for part in path.split("/"))


def start_time(pid: int) -> int:
    """Clock ticks since boot at which `pid` started; with the pid it names a process for ever. 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return 0


def record(directory: str, pid: int) -> None:
    """Lets a later node agent find the processes when this shim was killed."""
    write_atomically(os.path.join(directory, "pid"), f"{pid} {start_time(pid)}\n")


def would_ignore_as_init(pid: int, signum: int) -> bool:
    """True when the signal's default would end an ordinary process, but not the first one of a pid namespace."""
    if signum in _NOT_FOR_INIT or signum in _IGNORED_BY_DEFAULT:
        return False
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            masks = dict(line.split(":\t", 1) for line in file if line.startswith(("SigIgn", "SigCgt")))
    except OSError:
        return False
    bit = 1 << (signum - 1)
    return not (int(masks["SigIgn"], 16) | int(masks["SigCgt"], 16)) & bit


def oom_kills(path: str) -> int:
    """The `oom_kill` counter of a cgroup's events file (v1: memory.oom_control, v2: memory.events)."""
    try:
        with open(path, encoding="ascii") as file:
            for line in file:
                words = line.split()
                if words[0] == "oom_kill":
                    return int(words[1])
    except OSError:
        return 0
    return 0


def children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def descendants(pid: int) -> list[int]:
    found = children(pid)
    for child in list(found):
        found += descendants(child)
    return found


def kill_with_descendants(pid: int) -> None:
    """The process first, so that it cannot remark on the end of its children."""
    found = descendants(pid)
    _kill(pid)
    for child in found:
        _kill(child)


def kill_tree(pid: int) -> None:
    """SIGKILL all descendants of `pid`; again while there are new ones, for those forked in between."""
    killed: set[int] = set()
    for _ in range(_ROUNDS):
        found = set(descendants(pid)) - killed
        if not found:
            return
        for child in found:
            _kill(child)
        killed |= found


def kill_session(session: int) -> None:
    """What is left of a container of the process rung: its session and, as we are the subreaper, its orphans."""
    for child in children(os.getpid()):
        try:
            belongs = os.getsid(child) == session
        except ProcessLookupError:
            continue
        if belongs:
            kill_tree(child)
            _kill(child)


def reap(except_for: set[int]) -> None:
    """Collect orphans that ended, but not processes that somebody waits for by pid."""
    for child in children(os.getpid()):
        if child not in except_for:
            try:
                os.waitpid(child, os.WNOHANG)
            except ChildProcessError:
                continue


def enter(pid: int, cgroup_files: list[str], *, rootless: bool) -> None:
    """Join the namespaces of a container's first process. The pid namespace counts for children only."""
    fds = [(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind) for name, kind in _NAMESPACES]
    container.join_cgroups(cgroup_files)
    for fd, kind in fds:
        linux.setns(fd, kind)
    os.chdir("/")


def wait_for_child_in_new_pid_namespace() -> None:
    """Returns in a forked child; the parent becomes its proxy: same exit code, and gone together."""
    pid = linux.clone(0)
    if pid == 0:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)
