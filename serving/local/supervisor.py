"""Runs the processes of `nodeless up` as children, restarts those that die, and stops them in order.

The children share nothing with the supervisor but a pipe on which each tells once that it is ready; so what works
here works on a cluster, where a kubelet starts the same commands. Children are session leaders: Ctrl-C in the
terminal reaches only the supervisor, which stops them in order. After a `kill -9` of the supervisor its children
go on; the next supervisor kills them (they hold no state) and its own children adopt Envoy and the pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil

log = logging.getLogger(__name__)

READY_FD_VARIABLE: Final = "NODELESS_READY_FD"
_STOP_SECONDS = 20.0
_READY_SECONDS = 60.0
_BACKOFF_FIRST_SECONDS = 0.05
_BACKOFF_CAP_SECONDS = 5.0
_STEADY_SECONDS = 10.0


class ChildError(Exception):
    """A child did not become ready. The message ends with the last lines of its log."""


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One child. `argv` may depend on what earlier children reported when they became ready."""

    name: str
    argv: Callable[[Mapping[str, Mapping[str, Any]]], Sequence[str]]
    stop_signal: int = signal.SIGTERM


class ChildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How a later supervisor finds a child: a pid alone may have been reused."""

    name: str
    pid: int
    created: float


class Supervisor:
    """Starts `specs` in order, each when the one before is ready; stops them in reverse order."""

    def __init__(self, specs: Sequence[ChildSpec], *, logs: Path, records: Path) -> None:
        self._specs = specs
        self._logs = logs
        self._records = records
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        """What each child reported when it became ready."""
        self.restarts: dict[str, int] = {}

    async def run(self, *, started: Callable[[], None]) -> None:
        """Until cancelled. `started` is called once, when every child is ready. Raises an ExceptionGroup with the
        ChildError of a child that did not start."""
        await asyncio.to_thread(kill_leftovers, self._records)
        stopping = False
        try:
            async with asyncio.TaskGroup() as group:
                for spec in self._specs:
                    await self._start(spec)
                    group.create_task(self._watch(spec), name=f"watch {spec.name}")
                started()
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    stopping = True
        finally:
            if not stopping:
                log.error("stopping: a process did not start")
            await _to_the_end(self._stop())

    async def _start(self, spec: ChildSpec) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        reader, writer = os.pipe()
        with (self._logs / f"{spec.name}.log").open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *spec.argv(self.facts),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=(writer,),
                    env=os.environ | {READY_FD_VARIABLE: str(writer)},
                )
            except BaseException:
                os.close(reader)
                raise
            finally:
                os.close(writer)
        self._running[spec.name] = process
        try:
            self._save_records()
        except BaseException:
            os.close(reader)
            raise
        self.facts[spec.name] = await self._ready(spec, process, reader)

    async def _ready(self, spec: ChildSpec, process: asyncio.subprocess.Process, reader: int) -> dict[str, Any]:
        stream = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb", 0)
        )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                line = await stream.readline()
        except TimeoutError:
            raise ChildError(self._explain(spec, f"was not ready after {_READY_SECONDS:.0f} s")) from None
        finally:
            transport.close()
        if not line:
            code = await process.wait()
            raise ChildError(self._explain(spec, f"ended with exit code {code}"))
        try:
            facts: dict[str, Any] = msgspec.json.decode(line, type=dict)
        except msgspec.DecodeError as error:
            raise ChildError(self._explain(spec, f"said {line[:80]!r} instead of its facts")) from error
        return facts

    def _explain(self, spec: ChildSpec, what: str) -> str:
        path = self._logs / f"{spec.name}.log"
        tail = path.read_text(errors="replace").splitlines()[-8:] if path.exists() else []
        return "\n  ".join([f"{spec.name} {what}; the end of {path}:", *tail])

    async def _watch(self, spec: ChildSpec) -> None:
        delay = _BACKOFF_FIRST_SECONDS
        while True:
            began = time.monotonic()
            code = await self._running[spec.name].wait()
            if time.monotonic() - began > _STEADY_SECONDS:
                delay = _BACKOFF_FIRST_SECONDS
            self.restarts[spec.name] = self.restarts.get(spec.name, 0) + 1
            log.warning("%s ended with %s; starting it again", spec.name, code)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _BACKOFF_CAP_SECONDS)
            try:
                await self._start(spec)
            except (ChildError, OSError) as error:
                # E.g. no memory or no space on the disk: the others go on, and this one is tried again.
                log.error("%s was not started: %s", spec.name, error)

    async def _stop(self) -> None:
        for spec in reversed(self._specs):
            process = self._running.get(spec.name)
            if process is None or process.returncode is not None:
                continue
            process.send_signal(spec.stop_signal)
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                log.error("%s did not stop in %.0f s and was killed", spec.name, _STOP_SECONDS)
                process.kill()
                await process.wait()
        self._records.unlink(missing_ok=True)

    def _save_records(self) -> None:
        records = []
        for name, process in self._running.items():
            if process.returncode is None:
                try:
                    created = psutil.Process(process.pid).create_time()
                except psutil.NoSuchProcess:
                    continue
                records.append(ChildRecord(name=name, pid=process.pid, created=created))
        temporary = self._records.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(records))
        temporary.replace(self._records)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Finish `work` whatever is cancelled meanwhile: a second Ctrl-C must not leave processes behind."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


def living_children(records: Path) -> list[tuple[ChildRecord, psutil.Process]]:
    """Children that a supervisor recorded and that still run. A damaged file counts as none."""
    try:
        found = msgspec.json.decode(records.read_bytes(), type=list[ChildRecord])
    except FileNotFoundError:
        return []
    except msgspec.DecodeError as error:
        log.error("%s is damaged, processes of an earlier run are not found by it: %s", records, error)
        return []
    living = []
    for record in found:
        try:
            process = psutil.Process(record.pid)
            if abs(process.create_time() - record.created) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
                living.append((record, process))
        except psutil.NoSuchProcess:
            continue
    return living


def kill_leftovers(records: Path) -> list[str]:
    """SIGKILL the children of a dead supervisor; returns their names. Envoy and pods are not among them."""
    living = living_children(records)
    for record, process in living:
        log.info("removing %s (pid %d) of an earlier run", record.name, record.pid)
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs([process for _, process in living], timeout=5)
    records.unlink(missing_ok=True)
    return [record.name for record, _ in living]


def notify_ready(**facts: Any) -> None:
    """Tell the supervisor, if there is one, that this process serves; `facts` are e.g. its ports."""
    number = os.environ.pop(READY_FD_VARIABLE, None)
    if number is None:
        return
    # Whoever was late and is no longer waited for serves all the same.
    with contextlib.suppress(BrokenPipeError), os.fdopen(int(number), "wb", 0) as pipe:
        pipe.write(msgspec.json.encode(facts) + b"\n")
