"""`python -m serving.local.network.rootless_launch --data-dir D --ports P,… -- COMMAND…`

Finds or makes the namespaces of a data directory, enters them, executes COMMAND. See `rootless`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from serving.local.network import rootless
from serving.local.network.names import NetworkError

_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000
_BIND = 0x1000
_PASTA_SECONDS = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise NetworkError(f"{what}: {os.strerror(number)}")


def _hold(ready: int, uid: int, gid: int, directory: Path) -> None:
    """In the child: new namespaces, then sleep. Never returns."""
    try:
        os.setsid()
        _check(_libc.unshare(_NEWUSER | _NEWNET | _NEWNS), "user, network and mount namespaces")
        for name, content in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            Path("/proc/self", name).write_text(content)
        _use_forwarded_resolver(directory)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.write(ready, b"+")
        os.execvp("sleep", ["nodeless-namespaces", "infinity"])  # noqa: S606
    except BaseException as error:
        os.write(ready, str(error).encode())
    finally:
        os._exit(1)


def _use_forwarded_resolver(directory: Path) -> None:
    """A resolver on the host's loopback is not on ours: let pasta ask it. In the holder's mount namespace."""
    target = Path("/etc/resolv.conf")
    lines = target.read_text().splitlines() if target.exists() else []
    servers = [line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1]
    if not any(server.startswith("127.") or server == "::1" for server in servers):
        return
    kept = [line for line in lines if not line.startswith("nameserver")]
    own = directory / "resolv.conf"
    own.write_text("\n".join([f"nameserver {rootless.DNS_FORWARD}", *kept, ""]))
    place = os.fsencode(target.resolve())
    _check(_libc.mount(os.fsencode(own), place, None, _BIND, None), "cannot replace /etc/resolv.conf")


def _start_holder(directory: Path) -> int:
    """Its pid. Raises NetworkError."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.set_inheritable(write, False)
        _hold(write, os.getuid(), os.getgid(), directory)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    if answer != b"+":
        os.waitpid(pid, 0)
        raise NetworkError(f"cannot make the stack's namespaces: {answer.decode()}")
    return pid


def _start_pasta(holder: int, ports: tuple[int, ...], data_dir: Path) -> int:
    """Its pid, when it forwards. Raises NetworkError with pasta's own words."""
    pid_file, log = data_dir / "pasta.pid", data_dir / "pasta.log"
    pid_file.unlink(missing_ok=True)
    command = ["pasta", "--config-net", "--quiet", "--foreground", "--no-map-gw", "--pid", str(pid_file)]
    command += ["--dns-forward", rootless.DNS_FORWARD, "-u", "none", "-T", "none", "-U", "none"]
    command += ["-t", "127.0.0.1/" + ",".join(str(port) for port in ports) if ports else "none", str(holder)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + _PASTA_SECONDS
    while not (pid_file.exists() and pid_file.read_text().strip()):  # it has no other way of telling
        if process.poll() is not None:
            raise NetworkError(f"pasta: {log.read_text(errors='replace').strip() or process.returncode}")
        if time.monotonic() > deadline:
            process.kill()
            raise NetworkError(f"pasta was not ready within {_PASTA_SECONDS:g} s")
        time.sleep(0.005)
    return process.pid


def ensure(data_dir: Path, ports: tuple[int, ...]) -> rootless.State:
    """Holder and pasta of this data directory, started where needed. Raises NetworkError."""
    data_dir.mkdir(parents=True, exist_ok=True)
    known = rootless.load(data_dir)
    holder = known.holder if known is not None else _start_holder(data_dir)
    if known is not None:
        running = known.pasta_start != 0 and rootless.start_time(known.pasta) == known.pasta_start
        if running and known.ports == ports:
            return known
        if running:
            os.kill(known.pasta, signal.SIGTERM)
    try:
        pasta = _start_pasta(holder, ports, data_dir)
    except BaseException:
        if known is None:
            os.kill(holder, signal.SIGKILL)
        raise
    state = rootless.State(
        holder=holder,
        holder_start=rootless.start_time(holder),
        pasta=pasta,
        pasta_start=rootless.start_time(pasta),
        ports=ports,
    )
    temporary = data_dir / (rootless.STATE_NAME + ".new")
    temporary.write_bytes(msgspec.json.encode(state))
    os.replace(temporary, data_dir / rootless.STATE_NAME)
    return state


def enter(holder: int) -> None:
    """This process becomes root of the holder's user namespace, in its network and mounts. Raises NetworkError."""
    kinds = (("user", _NEWUSER), ("net", _NEWNET), ("mnt", _NEWNS))
    fds = [(os.open(f"/proc/{holder}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind) for name, kind in kinds]
    where = os.getcwd()
    for fd, kind in fds:
        _check(_libc.setns(fd, kind), "cannot enter the stack's namespaces")
        os.close(fd)
    os.chdir(where)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--ports", default="")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    ports = tuple(int(port) for port in options.ports.split(",") if port)
    try:
        enter(ensure(options.data_dir.absolute(), ports).holder)
    except (NetworkError, OSError) as error:
        sys.exit(f"nodeless: the pod network without root: {error}")
    os.execvp(options.command[0], options.command)  # noqa: S606


if __name__ == "__main__":
    main()
