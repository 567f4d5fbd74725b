"""Sandboxes: start to first HTTP answer by stage, starts per second, memory per pod, exec, freeze, destroy.

    python loadtests/sandbox_bench.py [--rung namespace|process] [--starts 30] [--burst 40] [--image DIR_OR_EROFS]

Without --image a static server is compiled with the machine's C compiler. Prints one table; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from serving.local.images.protocol import Rootfs
from serving.local.network.service import PodNetwork
from serving.local.sandbox.namespace import NamespaceRuntime
from serving.local.sandbox.process import ProcessRuntime
from serving.local.sandbox.protocol import ContainerSpec, PodSandboxSpec
from serving.local.sandbox.shim_sandbox import ShimSandbox

_HELLO = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <sys/socket.h>
int main(void) {
  int s = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
  setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(s, (void *)&a, sizeof a) || listen(s, 128)) { perror("bind"); return 3; }
  for (;;) {
    char b[4096];
    const char *r = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    int f = accept(s, 0, 0);
    if (f < 0) continue;
    if (read(f, b, sizeof b) > 0) write(f, r, strlen(r));
    close(f);
  }
}
"""


def image(directory: Path, given: str | None) -> Rootfs:
    if given is not None:
        path = Path(given)
        return Rootfs(directory=path) if path.is_dir() else Rootfs(erofs=path)
    root = directory / "hello"
    root.mkdir()
    (directory / "hello.c").write_text(_HELLO)
    subprocess.run(["cc", "-static", "-O2", "-o", root / "hello", directory / "hello.c"], check=True)
    if shutil.which("mkfs.erofs") is None:
        return Rootfs(directory=root)
    erofs = directory / "hello.erofs"
    subprocess.run(["mkfs.erofs", "-T0", erofs, root], check=True, capture_output=True)
    return Rootfs(erofs=erofs, directory=root)


class Bench:
    def __init__(self, rung: str, directory: Path, rootfs: Rootfs) -> None:
        self.directory = directory
        self.rootfs = rootfs
        instance = uuid.uuid4().hex[:8]
        self.network = PodNetwork(data_dir=directory, instance=instance)
        self.runtime: NamespaceRuntime | ProcessRuntime = (
            NamespaceRuntime(directory, instance, self.network)
            if rung == "namespace"
            else ProcessRuntime(directory, instance)
        )
        self.stages: dict[str, list[float]] = {}

    def add(self, stage: str, seconds: float) -> None:
        self.stages.setdefault(stage, []).append(seconds * 1000)

    async def start_one(self) -> ShimSandbox:
        uid = str(uuid.uuid4())
        began = time.perf_counter()
        sandbox = await self.runtime.create(
            PodSandboxSpec(
                pod_uid=uid,
                pod_name="bench",
                namespace="bench",
                hostname="bench",
                state_dir=self.directory / "p" / uid,
            )
        )
        created = time.perf_counter()
        port = sandbox.address.port or 8080
        _, inside = await sandbox.start_container_timed(
            ContainerSpec(
                name="c",
                rootfs=self.rootfs,
                argv=("/hello",),
                env=(("PORT", str(port)),),
                log_path=self.directory / "log" / uid,
                memory_bytes=64 << 20,
                cpu_millis=1000,
                cpu_shares=256,
            )
        )
        started = time.perf_counter()
        await first_answer(sandbox.address.ip, port)
        answered = time.perf_counter()
        self.add("create (address, cgroup, files)", created - began)
        self.add("start container", started - created)
        for name, seconds in inside.items():
            self.add(f"  of it: {name}", seconds)
        self.add("executed → first HTTP answer", answered - started)
        self.add("create → first HTTP answer", answered - began)
        return sandbox


async def first_answer(ip: str, port: int) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection(ip, port)
        except OSError:
            await asyncio.sleep(0.0005)
            continue
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        data = await reader.read()
        writer.close()
        if not data.endswith(b"hello"):
            raise SystemExit(f"unexpected answer {data!r}")
        return


def private_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def row(name: str, values: list[float], unit: str = "ms") -> None:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    print(f"{name:<40}{statistics.median(ordered):>9.1f}{p95:>9.1f}{ordered[0]:>9.1f} {unit:<4} n={len(ordered)}")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rung", choices=("namespace", "process"), default="namespace")
    parser.add_argument("--starts", type=int, default=30)
    parser.add_argument("--burst", type=int, default=40)
    parser.add_argument("--image")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="nodeless-bench-"))
    bench = Bench(options.rung, directory, image(directory, options.image))
    await bench.runtime.start()
    print(
        f"{platform.node()}: {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Linux {platform.release()}, "
    )
    print(f"Python {platform.python_version()}, rung {options.rung}, user {os.geteuid()}")
    print(f"{'':<40}{'p50':>9}{'p95':>9}{'min':>9}")
    try:
        await asyncio.sleep(0.5)
        await one_by_one(bench, options.starts)
        await burst(bench, options.burst)
    finally:
        for sandbox in bench.runtime.held():
            await sandbox.destroy()
        await bench.runtime.stop()
        shutil.rmtree(directory, ignore_errors=True)


async def one_by_one(bench: Bench, count: int) -> None:
    """One start at a time, with time in between for the spares: what a single request from zero sees."""
    memory: list[float] = []
    for _ in range(count):
        sandbox = await bench.start_one()
        memory.append(private_kib(parent(sandbox.containers()[0].pid)) / 1024)
        began = time.perf_counter()
        await sandbox.exec("c", ("/hello", "--none"), timeout_seconds=5)
        bench.add("exec of a program that fails to bind", time.perf_counter() - began)
        try:
            began = time.perf_counter()
            await sandbox.freeze()
            frozen = time.perf_counter()
            await sandbox.thaw()
            await first_answer(sandbox.address.ip, sandbox.address.port or 8080)
            bench.add("freeze", frozen - began)
            bench.add("thaw → HTTP answer", time.perf_counter() - frozen)
        except Exception as error:
            print(f"freeze: {error}", file=sys.stderr)
        began = time.perf_counter()
        await sandbox.destroy()
        bench.add("destroy", time.perf_counter() - began)
        await asyncio.sleep(0.05)
    for name, values in bench.stages.items():
        row(name, values)
    row("private memory beyond the app", memory, "MiB")


async def burst(bench: Bench, count: int) -> None:
    before = os.times()
    began = time.perf_counter()
    sandboxes = await asyncio.gather(*(bench.start_one() for _ in range(count)))
    took = time.perf_counter() - began
    after = os.times()
    print(f"{count} at once: {took:.2f} s to the last first answer, {count / took:.0f} starts/s")
    used = after.user + after.system - before.user - before.system
    print(f"node agent's own CPU per start: {used / count * 1000:.1f} ms")
    began = time.perf_counter()
    await asyncio.gather(*(sandbox.destroy() for sandbox in sandboxes))
    print(f"{count} destroyed at once: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    asyncio.run(main())
