"""What a node agent is told, and what its parts share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from serving.kube.client import KubeClient
from serving.local.images.protocol import ImageStore
from serving.local.node.events import EventRecorder
from serving.local.node.kubelet_tls import KubeletTls
from serving.local.node.metrics import NodeMetrics
from serving.local.node.object_cache import ObjectCache
from serving.local.node.paths import NodePaths
from serving.local.node.prober import Prober
from serving.local.node.slots import StartSlots
from serving.local.sandbox.protocol import SandboxRuntime

_VOLUME_UPDATES: Final = 8


def default_starts() -> int:
    """Sandboxes and processes started at the same time: twice the cores."""
    return 2 * (os.cpu_count() or 1)


LOOPBACK: Final = "127.0.0.1"


class KubeletServer(msgspec.Struct, frozen=True, kw_only=True):
    port: int = 0
    """0 = any free one."""
    tls: KubeletTls = KubeletTls()


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """Of the Node object; pods with this `spec.nodeName` run here."""
    data_dir: Path
    instance: str
    """Tells several installations on one machine apart; part of paths in shared directories."""
    max_pods: int = 500
    kubelet_socket: Path | None = None
    """None = `kubelet.sock` in the data directory."""
    kubelet: KubeletServer | None = None
    """How a real API server reaches the kubelet API, at `address`; None = only the socket."""
    pool: str = "local"
    address: str = LOOPBACK
    """The node's own, as pods' hostIP."""
    concurrent_starts: int = msgspec.field(default_factory=default_starts)
    cluster_domain: str = "cluster.local"
    dns_server: str = ""
    """What pods ask for names; empty = the sandbox's own resolver."""
    max_pids_per_pod: int = 4096
    storage_check_seconds: float = 10.0
    """How often pods with limits of storage are measured."""
    api_server: tuple[str, int] | None = None
    """Host name and port by which pods reach the API server; None = they are not told."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    """Of the Node, beside its own."""
    memory_dir: Path | None = None
    """Directory on a memory file system for secrets and memory volumes; None = one below /dev/shm where that
    is writable, else the data directory."""
    dead_log_bytes: int = 32 * 1024 * 1024
    """Logs of pods that are gone are kept up to this size in total …"""
    dead_log_seconds: float = 3600.0
    """… and up to this age."""

    @property
    def socket(self) -> Path:
        return self.kubelet_socket or self.data_dir / "kubelet.sock"


class NodeContext:
    """The parts that every pod of a node uses."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        client: KubeClient,
        runtime: SandboxRuntime,
        images: ImageStore,
        paths: NodePaths,
        prober: Prober,
        events: EventRecorder,
        metrics: NodeMetrics,
        objects: ObjectCache,
        allocatable: Mapping[str, str],
        now: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.client = client
        self.runtime = runtime
        self.images = images
        self.paths = paths
        self.prober = prober
        self.events = events
        self.metrics = metrics
        self.objects = objects
        self.volume_updates = asyncio.Semaphore(_VOLUME_UPDATES)
        """Volumes of running pods that are brought up to date at the same time."""
        self.allocatable = allocatable
        events.busy = self.is_busy
        self.now = now
        self.busy = 0
        """Starts under way; what can wait does."""
        self.starts = StartSlots(settings.concurrent_starts)

    def is_busy(self) -> bool:
        return self.busy > 0 or self.prober.starting > 0
