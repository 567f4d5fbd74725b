"""Where the suite runs: a stack of its own on the embedded API server, or on a real control plane."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from tests.cluster.assets import build_assets, release
from tests.cluster.components import Components
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import install
from tests.e2e.stack import Stack

DOMAIN: Final = "example.com"
CLUSTER_SANDBOX: Final = "namespace"
_NODE_PORTS: Final = range(30_000, 32_768)


class Running(msgspec.Struct, frozen=True, kw_only=True):
    kubeconfig: Path
    gateway_port: int
    server: str
    """What serves the API, with its version."""
    sandbox: str


@contextmanager
def embedded(directory: Path) -> Iterator[Running]:
    """`nodeless up` on an empty data directory."""
    port = free_node_port()
    stack = Stack(directory / "stack")
    try:
        stack.start("--port", str(port), "--local-port", "0", "--api-port", "0", "--domain", DOMAIN)
        yield Running(
            kubeconfig=stack.data_dir / "kubeconfig",
            gateway_port=port,
            server="the embedded API server",
            sandbox=stack.facts["sandbox"],
        )
    finally:
        stack.close()


@contextmanager
def cluster(directory: Path) -> Iterator[Running]:
    """A real control plane with nodeless' processes, each its own service account; the node agent is its node."""
    port = free_node_port()
    control_plane = ControlPlane(assets=build_assets(), directory=directory / "control-plane")
    control_plane.start()
    components = Components(control_plane, directory / "components")
    try:
        install(control_plane)
        components.start_all(domain=DOMAIN, sandbox=CLUSTER_SANDBOX, gateway_port=port)
        yield Running(
            kubeconfig=control_plane.kubeconfig,
            gateway_port=port,
            server=f"kube-apiserver {release()} with etcd and kube-controller-manager",
            sandbox=CLUSTER_SANDBOX,
        )
    finally:
        components.close()
        control_plane.stop()


def free_node_port() -> int:
    """A free port that a Service may have as its nodePort."""
    while True:
        port = random.choice(_NODE_PORTS)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
