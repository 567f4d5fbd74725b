"""Further programs in running containers: `exec`. Their streams are descriptors that the node agent sends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from serving.local.sandbox.spawner import container, linux, processes, terminal

Reply = Callable[[dict[str, Any]], None]
_CHUNK = 1 << 16


class Executions:
    def __init__(
        self,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
        options: dict[str, Any],
    ) -> None:
        self._watch = watch
        self._unwatch = unwatch
        self._isolate: bool = options["isolate"]
        self._rootless: bool = options["rootless"]
        self._last_capability = linux.last_capability()
        self._requests: dict[int, int] = {}
        """By pid, the request that asked for the program."""

    @property
    def pids(self) -> set[int]:
        return set(self._requests)

    def start(
        self, first: int, spec: dict[str, Any], message: dict[str, Any], fds: list[int], reply: Reply
    ) -> None:
        """In the container whose first process is `first`. Replies when the program has ended.

        `fds` are stdin, stdout and stderr; with a terminal, one socket over which its master side is sent.
        """
        report_read, report_write = os.pipe2(os.O_CLOEXEC)
        tty: bool = message.get("tty", False)
        spec = {**spec, "argv": message["argv"]}
        if tty:
            spec["env"] = [["TERM", "xterm"], *spec["env"]]

        def run() -> None:
            if self._isolate:
                processes.enter(first, spec["cgroup"]["join"], rootless=self._rootless)
                processes.wait_for_child_in_new_pid_namespace()
            if tty:
                terminal.take(fds[0])
            if self._isolate:
                container.inside(spec, spec["argv"], self._last_capability)
            else:
                container.unisolated(spec, report_fd=report_write)

        stdio = (-1, fds[0], fds[0]) if tty else (fds[0], fds[1], fds[2])
        try:
            pid = linux.clone(0)
            if pid == 0:
                container.child(stdio=stdio, report_fd=report_write, run=run)
        finally:
            for fd in (*fds, report_write):
                os.close(fd)
        pidfd = os.pidfd_open(pid)
        self._requests[pid] = message["id"]
        self._watch(pidfd, lambda: self._on_exit(pid, pidfd, report_read, reply))

    def _on_exit(self, pid: int, pidfd: int, report_read: int, reply: Reply) -> None:
        self._unwatch(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        del self._requests[pid]
        os.set_blocking(report_read, False)
        try:
            report = os.read(report_read, _CHUNK)
        except BlockingIOError:
            report = b""
        os.close(report_read)
        last = json.loads(report.splitlines()[-1]) if report else {}
        if "reason" in last:
            reply({"error": last})
            return
        code = os.waitstatus_to_exitcode(status)
        reply({"result": {"exit_code": code if code >= 0 else 128 - code}})

    def kill(self, request: int) -> None:
        for pid, identifier in self._requests.items():
            if identifier == request:
                processes.kill_with_descendants(pid)

    def kill_all(self) -> None:
        for pid in self._requests:
            os.kill(pid, signal.SIGKILL)
