"""A container's first process, forked before or after it is known what it will run."""

from __future__ import annotations

import os
import socket
from typing import Any

from serving.local.sandbox.spawner import container, linux


class Launched:
    """A child that waits for its spec, and our ends of its pipes."""

    def __init__(self, pid: int, spec: int, report: int, outputs: dict[str, int]) -> None:
        self.pid = pid
        self.spec = spec
        self.report = report
        self.outputs = outputs
        """By name; none with a terminal, until it has been sent."""
        self.stdin = -1
        self.link: socket.socket | None = None
        """Over which the terminal will come."""

    def close(self) -> None:
        for fd in (self.spec, self.report, self.stdin, *self.outputs.values()):
            if fd >= 0:
                os.close(fd)
        if self.link is not None:
            self.link.close()


def launch(cgroup: dict[str, Any], options: dict[str, Any], *, stdin: bool, tty: bool) -> Launched:
    """Its stdin is empty unless `stdin`; with `tty` it will make a terminal for all three streams."""
    isolate: bool = options["isolate"]
    spec_read, spec_write = os.pipe2(os.O_CLOEXEC)
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    launched = Launched(0, spec_write, report_read, {})
    stdio, link = _terminal(launched) if tty else (_pipes(launched, stdin=stdin), -1)

    def run() -> None:
        os.close(spec_write)
        if isolate:
            container.isolated(
                cgroup,
                stage=options["stage"],
                rootless=options["rootless"],
                spec_fd=spec_read,
                report_fd=report_write,
                link=link,
            )
        else:
            container.unisolated(container.receive_spec(spec_read), report_fd=report_write, link=link)

    try:
        launched.pid = linux.clone(linux.CLONE_NEWPID | linux.CLONE_NEWNS if isolate else 0)
        if launched.pid == 0:
            container.child(stdio=stdio, report_fd=report_write, run=run)
    finally:
        for fd in {spec_read, report_write, *stdio} - {-1}:
            os.close(fd)
    return launched


def _terminal(launched: Launched) -> tuple[tuple[int, int, int], int]:
    launched.link, other = socket.socketpair()
    link = other.detach()
    return (-1, link, link), link


def _pipes(launched: Launched, *, stdin: bool) -> tuple[int, int, int]:
    reading = -1
    if stdin:
        reading, launched.stdin = os.pipe2(os.O_CLOEXEC)
    ends = {name: os.pipe2(os.O_CLOEXEC) for name in ("stdout", "stderr")}
    launched.outputs = {name: read for name, (read, _) in ends.items()}
    return reading, ends["stdout"][1], ends["stderr"][1]
