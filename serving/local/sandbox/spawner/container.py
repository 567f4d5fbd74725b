"""What a forked child does between fork and exec: join cgroups, build its root, give up privileges, execute.

A failure is written as JSON to `report_fd`, which closes by itself when the program is executed.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import struct
import time
from collections.abc import Callable
from typing import Any

from serving.local.sandbox.spawner import accounts, linux, mounts, plain, seccomp, terminal
from serving.local.sandbox.spawner.stage import Stage

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NOT_EXECUTED = 127
_LENGTH = struct.Struct("!Q")
_MACHINE = os.uname().machine


class StartError(Exception):
    """`reason` is a container's waiting reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def child(*, stdio: tuple[int, int, int], report_fd: int, run: Callable[[], None]) -> None:
    """Never returns. `run` executes the program; stdin is /dev/null when its fd is negative."""
    try:
        os.setsid()
        _reset_signals()
        os.umask(0o022)
        _standard_streams(stdio)
        run()
    except StartError as error:
        _report(report_fd, error.reason, str(error))
    except OSError as error:
        _report(report_fd, "CreateContainerError", str(error.strerror or error))
    except (LookupError, ValueError) as error:
        _report(report_fd, "CreateContainerConfigError", str(error.args[0] if error.args else error))
    except BaseException as error:  # the parent must learn of it whatever it is
        _report(report_fd, "CreateContainerError", f"{type(error).__name__}: {error}")
    finally:
        os._exit(_NOT_EXECUTED)


def _report(fd: int, reason: str, message: str) -> None:
    os.write(fd, json.dumps({"reason": reason, "message": message}).encode() + b"\n")


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _standard_streams(stdio: tuple[int, int, int]) -> None:
    stdin, stdout, stderr = stdio
    if stdin < 0:
        stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)


def receive_spec(fd: int) -> dict[str, Any]:
    """What to run. Ends the process when nobody is left to say it."""
    header = os.read(fd, _LENGTH.size)
    if not header:
        os._exit(_NOT_EXECUTED)
    (missing,) = _LENGTH.unpack(header)
    data = bytearray()
    while missing and (chunk := os.read(fd, missing)):
        data += chunk
        missing -= len(chunk)
    spec: dict[str, Any] = json.loads(data)
    return spec


def send_spec(fd: int, spec: dict[str, Any]) -> None:
    """The reader is a child that does nothing but read: this does not block for long."""
    data = json.dumps(spec).encode()
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(fd, view) :]


def isolated(
    cgroup: dict[str, Any], *, stage: str, rootless: bool, spec_fd: int, report_fd: int, link: int = -1
) -> None:
    """The namespace rung. The caller has put us into new pid and mount namespaces. `link`: see `terminal.take`.

    Everything up to `receive_spec` can happen long before there is something to run.
    """
    began = time.monotonic()
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # of the shim, which never dies with its own parents
    join_cgroups(cgroup["join"])
    _try_oom_score(500)
    linux.unshare(linux.CLONE_NEWCGROUP)
    last_capability = linux.last_capability()
    parts = Stage(stage, cgroup["binds"], rootless=rootless)
    waiting = time.monotonic()
    spec = receive_spec(spec_fd)
    received = time.monotonic()
    mounts.build(spec, parts, rootless=rootless)
    account = accounts.resolve(spec["user"], spec["groups"], users_file="/etc/passwd", groups_file="/etc/group")
    if link >= 0:
        terminal.take(link)
        spec["env"] = [["TERM", "xterm"], *spec["env"]]
    _own_streams(account.uid)
    _enter_directory(spec["cwd"])
    mounted = time.monotonic()
    stages = {"prepare": waiting - began, "mounts": mounted - received}
    os.write(report_fd, json.dumps({"stages": stages}).encode() + b"\n")
    give_up_privileges(spec, account, last_capability)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user has reset it
    execute(spec["argv"], environment(spec["env"], home=account.home))


def unisolated(spec: dict[str, Any], *, report_fd: int, link: int = -1) -> None:
    """The process rung: only a session, a cgroup where there is one, and limits."""
    join_cgroups(spec["cgroup"]["join"])
    if link >= 0:
        terminal.take(link)
        spec["env"] = [["TERM", "xterm"], *spec["env"]]
    os.write(report_fd, json.dumps({"stages": {}}).encode() + b"\n")
    command = plain.command(spec["rootfs"], spec["argv"], dict(spec["env"]), cwd=spec["cwd"])
    os.chdir(command.cwd)
    if spec["no_new_privs"]:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    execute(command.argv, environment(spec["env"], home=command.cwd))


def inside(spec: dict[str, Any], argv: list[str], last_capability: int) -> None:
    """Execute one more program in a running container, whose namespaces we have joined."""
    account = accounts.resolve(spec["user"], spec["groups"], users_file="/etc/passwd", groups_file="/etc/group")
    _own_streams(account.uid)
    _enter_directory(spec["cwd"])
    give_up_privileges(spec, account, last_capability)
    execute(argv, environment(spec["env"], home=account.home))


def join_cgroups(files: list[str]) -> None:
    for path in files:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)


def _try_oom_score(score: int) -> None:
    """The system's own processes should survive a pod that fills the machine; not ours to insist on."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError:
        return


def _own_streams(uid: int) -> None:
    """A program of another user must be able to reopen /dev/stdout (images' logging often does)."""
    if uid:
        for fd in (1, 2):
            if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):  # and not what others use as well
                os.fchown(fd, uid, -1)


def _enter_directory(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
        os.chdir(path)
    except OSError as error:
        raise StartError("RunContainerError", f'workingDir "{path}": {error.strerror}') from error


def give_up_privileges(spec: dict[str, Any], account: accounts.Account, last_capability: int) -> None:
    """Filter, capabilities, groups, user: after this the process is what the image's program will be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    names = frozenset(spec["capability_names"])
    if spec["no_new_privs"]:
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if _MACHINE in seccomp.ARCHITECTURES and spec.get("seccomp", True):
        linux.install_seccomp(seccomp.cached_program(_MACHINE, names))
    keep = spec["capabilities"] & linux.effective_capabilities()
    linux.drop_bounding_set(keep, last_capability)
    try:
        os.setgroups(account.groups)
    except PermissionError:
        if account.groups:
            raise StartError("CreateContainerConfigError", _one_user("supplementary groups")) from None
    try:
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise StartError("CreateContainerConfigError", _one_user(f"user {account.uid}:{account.gid}")) from None
    if account.uid == 0:
        linux.set_capabilities(keep)


def _one_user(what: str) -> str:
    return f"{what} cannot be had: without root only the container's user 0 exists (your own user outside)"


def environment(pairs: list[list[str]], *, home: str) -> dict[str, str]:
    result = {"PATH": DEFAULT_PATH, "HOME": home}
    result.update((name, value) for name, value in pairs)
    return result


def execute(argv: list[str], env: dict[str, str]) -> None:
    """Raises StartError with the words that container runtimes use."""
    program = argv[0]
    if "/" in program:
        candidates = [program]
    else:
        candidates = [os.path.join(part or ".", program) for part in env.get("PATH", DEFAULT_PATH).split(":")]
    failure: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, argv, env)  # noqa: S606
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) or os.path.exists(candidate):
                failure = _prefer(failure, error)
    raise StartError("RunContainerError", _exec_message(program, failure))


def _prefer(first: OSError | None, second: OSError) -> OSError:
    return first if first is not None else second


def _exec_message(program: str, failure: OSError | None) -> str:
    if failure is None:
        if "/" in program:
            return f'exec: "{program}": stat {program}: no such file or directory'
        return f'exec: "{program}": executable file not found in $PATH'
    if failure.errno == errno.ENOENT:
        return f'exec: "{program}": its interpreter or loader is missing in the image'
    if failure.errno == errno.ENOEXEC:
        return f'exec: "{program}": exec format error (not a program for {_MACHINE})'
    return f'exec: "{program}": {(failure.strerror or str(failure)).lower()}'
