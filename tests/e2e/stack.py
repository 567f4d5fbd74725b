"""`nodeless up` as a user starts it: a process, its data directory, and what it left on the machine."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from serving.gateway.envoy import read_boot
from serving.local.supervisor import ChildRecord, living_children

START_SECONDS = 90.0
STOP_SECONDS = 60.0
NODELESS = [sys.executable, "-m", "serving.cli.main"]


class Stack:
    """One stack on one data directory. `start` and `stop` may be called again and again."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.facts: dict[str, Any] = {}
        """What `up --output json` printed: url, local_url, api, domain, sandbox, pid."""
        self.errors = ""
        """What the supervisor last wrote to stderr."""
        self._process: subprocess.Popen[bytes] | None = None

    # life

    def start(self, *options: str) -> None:
        """Run `nodeless up` with free ports until it announces itself. Fails with its words and the logs."""
        self.close()
        self._process = self.spawn_up(*options)
        line = self._first_line(self._process)
        if not line.startswith(b"{"):
            code = self._process.wait(STOP_SECONDS)
            raise AssertionError(f"nodeless up ended with {code}: {self.stderr()}\n{self.log_tails()}")
        self.facts = json.loads(line)

    def spawn_up(self, *options: str) -> subprocess.Popen[bytes]:
        """`nodeless up`, whatever becomes of it."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        ports = [f"--{name}=0" for name in ("port", "local-port", "api-port")]
        with self.stderr_file.open("wb") as errors:
            return subprocess.Popen(
                [*NODELESS, "--data-dir", str(self.data_dir), "--output", "json", "up", *(options or ports)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )

    def _first_line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(START_SECONDS):
                process.kill()
                raise AssertionError(f"nodeless up said nothing for {START_SECONDS:.0f} s\n{self.log_tails()}")
        return process.stdout.readline()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the supervisor and wait for its end; returns its exit code."""
        assert self._process is not None
        with self._process as process:
            process.send_signal(number)
            try:
                return process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise AssertionError(
                    f"nodeless up did not end in {STOP_SECONDS:.0f} s\n{self.log_tails()}"
                ) from None

    def close(self) -> None:
        """Stop it if it runs, and forget it."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        elif self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def cli(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """A `nodeless` command on this data directory."""
        return subprocess.run(
            [*NODELESS, "--data-dir", str(self.data_dir), *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def build_image(self, example: str) -> str:
        """An example image in this stack's store; returns its reference."""
        done = self.cli("image", "build", "--example", example)
        assert done.returncode == 0, done.stderr
        return f"dev.local/{example}:latest"

    # processes

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def child(self, name: str) -> psutil.Process:
        """A child of the supervisor: apiserver, webhook, controller, gateway, node."""
        return self.children()[name]

    def children(self) -> dict[str, psutil.Process]:
        found: list[tuple[ChildRecord, psutil.Process]] = living_children(self.data_dir / "children.json")
        return {record.name: process for record, process in found}

    def envoy(self) -> psutil.Process:
        boot = read_boot(self.data_dir / "gateway")
        assert boot is not None, "no Envoy was started"
        return psutil.Process(boot.pid)

    def spawner(self) -> psutil.Process:
        """The helper that forks sandboxes for the node agent."""
        (found,) = self.child("node").children()
        return found

    def pod_processes(self, name: str = "") -> set[int]:
        """Pids of the containers' processes of this stack's pods, or of one pod, by their host name."""
        found = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                groups = Path(f"/proc/{process.pid}/cgroup").read_text()
                ours = f"nodeless-{self.instance}/" in groups
                if ours and (not name or process.environ().get("HOSTNAME") == name):
                    found.add(process.pid)
        return found

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this stack: the supervisor and its descendants, Envoy, pods."""
        found = {process.pid: process for process in family(psutil.Process(self.pid))}
        for pid in {self.envoy().pid, *self.pod_processes()}:
            found[pid] = psutil.Process(pid)
        return list(found.values())

    # diagnosis

    @property
    def instance(self) -> str:
        return (self.data_dir / "instance").read_text().strip()

    @property
    def stderr_file(self) -> Path:
        return self.data_dir / "up.stderr"

    def stderr(self) -> str:
        return self.stderr_file.read_text(errors="replace")

    def log_tails(self, lines: int = 15) -> str:
        """The ends of all logs, for the message of a failed test."""
        parts = []
        files = [*sorted((self.data_dir / "logs").glob("*.log")), self.data_dir / "gateway/envoy.log"]
        for path in [self.stderr_file, *files]:
            with contextlib.suppress(FileNotFoundError):
                tail = path.read_text(errors="replace").splitlines()[-lines:]
                parts += [f"--- {path.name}", *tail]
        return "\n".join(parts)


def poll(condition: Callable[[], object], *, seconds: float, what: Callable[[], str]) -> None:
    """Wait until something that has no event is true, e.g. that a process which is not ours has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what()}")
        time.sleep(0.05)


def residue(instance: str, data_dir: Path) -> set[str]:
    """Everything on this machine that belongs to one stack: processes, mounts, links, routes, cgroups, sockets.

    Other stacks may come and go meanwhile, so things are found by the stack's own instance id and directory.
    """
    found = set()
    marks = (instance, str(data_dir))
    own = os.getpid()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            words = " ".join(process.cmdline())
            groups = Path(f"/proc/{process.pid}/cgroup").read_text()
            ours = any(mark in words or mark in groups for mark in marks)
            if ours and process.pid != own and process.status() != psutil.STATUS_ZOMBIE:
                found.add(f"process {process.pid}: {words}")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if any(mark in line for mark in marks):
            found.add(f"mount {line.split()[4]}")
    found |= {f"link {path.name}" for path in Path("/sys/class/net").iterdir() if instance in path.name}
    for line in Path("/proc/net/route").read_text().splitlines():
        if instance in line:
            found.add(f"route {line.split()[:3]}")
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found |= {f"cgroup {directory}/{name}" for name in names if instance in name}
    if shutil.which("nft") is not None and os.geteuid() == 0:
        listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
        found |= {line for line in listed.splitlines() if instance in line}
    for place in (Path("/run/netns"), Path("/dev/shm")):
        if place.is_dir():
            found |= {f"file {path}" for path in place.iterdir() if instance in path.name}
    return found


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended. A zombie has: only its new parent has not noticed yet."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def family(root: psutil.Process) -> list[psutil.Process]:
    """A process with all its descendants."""
    return [root, *root.children(recursive=True)]
