"""The containers of one pod, as seen by its shim: start, logs, exits, signals, further programs.

A container counts as exited when its first process is reaped and its output pipes are read to the end (or nobody
who could write is left). The exit is on disk before it is reported.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from serving.local.sandbox.spawner import container, mounts, processes, terminal
from serving.local.sandbox.spawner.executions import Executions, Reply
from serving.local.sandbox.spawner.launch import Launched, launch
from serving.local.sandbox.spawner.logs import LineFramer, LogFile, timestamp
from serving.local.sandbox.spawner.taps import Taps

_CHUNK = 1 << 16
_MAX_TERMINATION_MESSAGE = 4096


class Container:
    """One (name, attempt) and what the shim watches for it."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.pid = 0
        self.started_at = 0.0
        self.pidfd = -1
        self.log = LogFile(spec["log_path"], spec["log_max_bytes"])
        self.streams: dict[int, tuple[LineFramer, Taps]] = {}
        self.stdin = -1
        """What its programs read is written here; a terminal's master side is its output as well."""
        self.asked_signal = 0
        self.status: int | None = None
        self.exit: dict[str, Any] | None = None
        self.seen = False

    @property
    def key(self) -> tuple[str, int]:
        return self.spec["name"], self.spec["attempt"]

    def close_stdin(self) -> None:
        if self.stdin >= 0 and self.stdin not in self.streams:
            os.close(self.stdin)
        self.stdin = -1

    def describe(self) -> dict[str, Any]:
        name, attempt = self.key
        return {
            "name": name,
            "attempt": attempt,
            "pid": self.pid,
            "started_at": self.started_at,
            "exit": self.exit,
            "seen": self.seen,
        }


class Containers:
    def __init__(
        self,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
        broadcast: Callable[[dict[str, Any]], None],
        options: dict[str, Any],
    ) -> None:
        self._watch = watch
        self._unwatch = unwatch
        self._broadcast = broadcast
        self._isolate: bool = options["isolate"]
        self._options = options
        self._warm: Launched | None = None
        self._joined: set[str] = set()
        self._items: dict[tuple[str, int], Container] = {}
        self._executions = Executions(watch, unwatch, options)

    def idle(self) -> bool:
        """Nothing runs, and no child waits to be reaped."""
        exited = all(item.exit is not None for item in self._items.values())
        return exited and not self._executions.pids and not processes.children(os.getpid())

    def status(self) -> list[dict[str, Any]]:
        return [item.describe() for item in self._items.values()]

    # -- start
    def warm(self, cgroup: dict[str, Any]) -> None:
        """Have the first container's process ready, in its namespaces and cgroup, before it is known what it
        will run. Isolated only."""
        if self._warm is None and not self._items:
            self._warm = self._launch(cgroup)

    def start(self, spec: dict[str, Any], reply: Reply) -> None:
        key = (spec["name"], spec["attempt"])
        if key in self._items:
            raise ValueError(f"container {key[0]} attempt {key[1]} was already started")
        for name in ("root", "upper", "work"):
            os.makedirs(os.path.join(spec["directory"], name), exist_ok=True)
        if self._isolate and spec["image"]:
            mounts.ensure_image(spec["image"], spec["rootfs"])
        for bind in spec["mounts"]:
            if self._isolate and bind.get("memory_bytes"):
                mounts.ensure_memory(bind["source"], bind["memory_bytes"])
        item = Container(spec)
        interactive = spec.get("stdin") or spec.get("tty")
        if interactive:
            self._drop_warm()  # its streams are fixed
        if spec["warm"] and self._warm is not None:
            launched, self._warm = self._warm, None
        else:
            launched = self._launch(spec["cgroup"], stdin=bool(spec.get("stdin")), tty=bool(spec.get("tty")))
        try:
            container.send_spec(launched.spec, spec)
        except BrokenPipeError:
            pass  # it failed before; its report says why
        finally:
            os.close(launched.spec)
        item.pid = launched.pid
        item.started_at = time.time()
        item.stdin = launched.stdin
        item.streams = {fd: (LineFramer(name), self._taps()) for name, fd in launched.outputs.items()}
        self._items[key] = item
        report = bytearray()
        self._watch(launched.report, lambda: self._on_report(item, launched, report, reply))

    def _taps(self) -> Taps:
        return Taps(self._watch, self._unwatch)

    def _launch(self, cgroup: dict[str, Any], *, stdin: bool = False, tty: bool = False) -> Launched:
        self._joined.update(cgroup["join"])
        return launch(cgroup, self._options, stdin=stdin, tty=tty)

    def _drop_warm(self) -> None:
        if self._warm is not None:
            launched, self._warm = self._warm, None
            os.kill(launched.pid, signal.SIGKILL)
            os.waitpid(launched.pid, 0)
            launched.close()

    def _on_report(self, item: Container, launched: Launched, report: bytearray, reply: Reply) -> None:
        """The report pipe closes without an error when the program was executed."""
        data = os.read(launched.report, _CHUNK)
        report += data
        if data:
            return
        self._unwatch(launched.report)
        os.close(launched.report)
        if launched.link is not None:
            master = terminal.receive(launched.link)
            launched.link.close()
            if master >= 0:
                item.streams[master] = (LineFramer("stdout"), self._taps())
                item.stdin = master
        outcome: dict[str, Any] = {}
        for line in bytes(report).splitlines():
            outcome.update(json.loads(line))
        if "stages" not in outcome:
            outcome.setdefault("reason", "CreateContainerError")
            outcome.setdefault("message", "the container's process was killed before it executed its program")
        if "reason" in outcome:
            self._failed(item)
            reply({"error": {"reason": outcome["reason"], "message": outcome["message"]}})
            return
        processes.record(item.spec["directory"], item.pid)
        for stream in item.streams:
            self._watch(stream, lambda stream=stream: self._on_output(item, stream))  # type: ignore[misc]
        item.pidfd = os.pidfd_open(item.pid)
        self._watch(item.pidfd, lambda: self._on_exit(item))
        reply({"result": {**item.describe(), "stages": outcome.get("stages", {})}})

    def _failed(self, item: Container) -> None:
        os.waitpid(item.pid, 0)
        item.close_stdin()
        for stream in item.streams:
            os.close(stream)
        item.log.close()
        del self._items[item.key]

    # -- output
    def _on_output(self, item: Container, fd: int) -> None:
        try:
            data = _read(fd)
        except BlockingIOError:  # whoever attached to a terminal shares its settings
            return
        if data:
            self._write(item, fd, data)
            return
        self._close_stream(item, fd)
        self._finish_if_complete(item)

    def _write(self, item: Container, fd: int, data: bytes) -> None:
        framer, taps = item.streams[fd]
        item.log.write(framer.feed(data, timestamp()))
        taps.send(data)

    def _close_stream(self, item: Container, fd: int) -> None:
        framer, taps = item.streams.pop(fd)
        rest = framer.finish(timestamp())
        if rest:
            item.log.write(rest)
        taps.close()
        if fd == item.stdin:
            item.stdin = -1
        self._unwatch(fd)
        os.close(fd)

    # -- exit
    def _on_exit(self, item: Container) -> None:
        self._unwatch(item.pidfd)
        os.close(item.pidfd)
        _, item.status = os.waitpid(item.pid, 0)
        if not self._isolate:
            processes.kill_session(item.pid)
        item.close_stdin()
        # What was written before the exit is in the pipes; who still holds them open was left behind on purpose.
        for fd in list(item.streams):
            os.set_blocking(fd, False)
            self._drain(item, fd)
        self._finish_if_complete(item)

    def _drain(self, item: Container, fd: int) -> None:
        while fd in item.streams:
            try:
                data = _read(fd)
            except BlockingIOError:
                data = b""
            if not data:
                self._close_stream(item, fd)
                return
            self._write(item, fd, data)

    def _finish_if_complete(self, item: Container) -> None:
        if item.status is None or item.streams or item.exit is not None:
            return
        item.log.close()
        name, attempt = item.key
        code = os.waitstatus_to_exitcode(item.status)
        signum = -code if code < 0 else 0
        oom_killed = code != 0 and processes.oom_kills(item.spec["cgroup"]["oom"]) > 0
        if signum == signal.SIGKILL and item.asked_signal:
            signum = item.asked_signal
        item.exit = {
            "name": name,
            "attempt": attempt,
            "exit_code": 128 + signum if signum else code,
            "signal": signum,
            "oom_killed": oom_killed,
            "started_at": item.started_at,
            "finished_at": time.time(),
            "termination_message": self._termination_message(item),
        }
        processes.write_atomically(os.path.join(item.spec["directory"], "exit.json"), json.dumps(item.exit))
        self._broadcast({"event": "exit", "exit": item.exit})

    def _termination_message(self, item: Container) -> str:
        try:
            with open(item.spec["termination_log"], "rb") as file:
                return file.read(_MAX_TERMINATION_MESSAGE).decode(errors="replace")
        except OSError:
            return ""

    def seen(self, name: str, attempt: int) -> None:
        """A node agent has dealt with the exit."""
        item = self._items.get((name, attempt))
        if item is not None:
            item.seen = True

    def forget(self, name: str, attempt: int) -> None:
        item = self._items.get((name, attempt))
        if item is not None and item.exit is not None:
            del self._items[name, attempt]

    # -- signals
    def _running(self, name: str) -> Container | None:
        for item in self._items.values():
            if item.spec["name"] == name and item.status is None and item.pidfd >= 0:
                return item
        return None

    def _main_pids(self) -> set[int]:
        warm = {self._warm.pid} if self._warm is not None else set()
        return {item.pid for item in self._items.values() if item.status is None} | self._executions.pids | warm

    def reap_orphans(self) -> None:
        processes.reap(self._main_pids())

    def signal(self, name: str, signum: int) -> None:
        """The first process of a pid namespace ignores signals that it has no handler for. A program that never
        thought of being one is ended all the same, and its exit shows the signal that was asked for."""
        item = self._running(name)
        if item is None:
            return
        if self._isolate and processes.would_ignore_as_init(item.pid, signum):
            item.asked_signal = signum
            os.kill(item.pid, signal.SIGKILL)
        else:
            os.kill(item.pid, signum)

    def kill(self, name: str) -> None:
        item = self._running(name)
        if item is not None:
            self._kill(item)

    def _kill(self, item: Container) -> None:
        if self._isolate:
            os.kill(item.pid, signal.SIGKILL)
        else:
            processes.kill_with_descendants(item.pid)

    def kill_all(self) -> None:
        self._drop_warm()
        self._executions.kill_all()
        for item in self._items.values():
            if item.status is None:
                self._kill(item)
        if not self._isolate:
            processes.kill_tree(os.getpid())

    def remove_cgroups(self) -> None:
        """For a pod that nobody else will clean up after; as far as they are empty."""
        self._drop_warm()
        for path in self._joined:
            processes.remove_empty_parents(path)

    # -- further programs, and who watches
    def execute(self, message: dict[str, Any], fds: list[int], reply: Reply) -> None:
        """Replies when the program has ended."""
        item = self._running(message["name"])
        if item is None or len(fds) != (1 if message.get("tty") else 3):
            for fd in fds:
                os.close(fd)
            raise ValueError(f"container {message['name']} is not running")
        self._executions.start(item.pid, item.spec, message, fds, reply)

    def kill_exec(self, request: int) -> None:
        self._executions.kill(request)

    def attach(self, message: dict[str, Any], fds: list[int]) -> tuple[int, ...]:
        """`fds` get what the container writes to stdout and stderr (a terminal has only the first). Gives the
        container's stdin, if it has one; it stays ours as well."""
        item = self._running(message["name"])
        if item is None:
            for fd in fds:
                os.close(fd)
            raise ValueError(f"container {message['name']} is not running")
        streams = {framer.stream: taps for (framer, taps) in item.streams.values()}
        for name, fd in zip(("stdout", "stderr"), fds, strict=False):
            if name in streams:
                streams[name].add(fd)
            else:
                os.close(fd)
        return (item.stdin,) if item.stdin >= 0 else ()

    def close_stdin(self, name: str) -> None:
        """Whoever was to write it is done. A terminal stays."""
        item = self._running(name)
        if item is not None and not item.spec.get("tty"):
            item.close_stdin()


def _read(fd: int) -> bytes:
    """Empty at the end of a pipe or of a terminal that no program has open any more."""
    try:
        return os.read(fd, _CHUNK)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise
