"""Wiring of the node agent, and removal of what a crashed stack left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Sequence

import msgspec

from serving.api.podnetwork import POD_NETWORK
from serving.gateway.envoy import alive, ended, read_boot
from serving.kube.client import KubeClient
from serving.local.images.store import LocalImageStore
from serving.local.layout import Layout
from serving.local.network.cluster_names import ClusterNames
from serving.local.network.egress import Wanted
from serving.local.network.name_watch import watch_names
from serving.local.network.service import PodNetwork
from serving.local.node.service import NodeSettings, remove_shared_memory
from serving.local.node.service import run as serve
from serving.local.node.settings import LOOPBACK, KubeletServer
from serving.local.sandbox.namespace import NamespaceRuntime
from serving.local.sandbox.protocol import SandboxError, SandboxRuntime
from serving.local.sandbox.select import Factory, choose_runtime, factories
from serving.local.supervisor import kill_leftovers, notify_ready

log = logging.getLogger(__name__)

_POD_API = ("kubernetes.default.svc", 443)
"""The embedded API server, as pods reach it."""


def rungs(layout: Layout, *, names: ClusterNames | None = None, egress: Wanted = "auto") -> dict[str, Factory]:
    """The sandboxes of this stack, best first. `names`: what cluster-local names mean to pods."""
    sandboxes = layout.data_dir / "sandboxes"
    known = names or ClusterNames()

    def network() -> PodNetwork:
        return PodNetwork(data_dir=sandboxes, instance=layout.instance, lookup=known.lookup, egress=egress)

    return factories(data_dir=sandboxes, instance=layout.instance, network=network)


async def serve_node(
    layout: Layout,
    *,
    client: KubeClient,
    name: str,
    sandbox: str,
    max_pods: int,
    keep_pods: bool,
    egress: Wanted = "auto",
    address: str = LOOPBACK,
    kubelet: KubeletServer | None = None,
) -> None:
    """Be a node until cancelled. With `keep_pods` false an orderly stop ends the pods too."""
    names = ClusterNames()
    runtime, reports = await choose_runtime(sandbox, rungs(layout, names=names, egress=egress))
    notes = [f"not {report.rung}: {report.why}" for report in reports if not report.works]
    notes += [f"reduced: {note}" for report in reports if report.works for note in report.reduced]
    network = await _announce_network(runtime, names)
    settings = NodeSettings(
        name=name,
        data_dir=layout.data_dir / "node",
        instance=layout.instance,
        max_pods=max_pods,
        kubelet_socket=layout.run_dir / "kubelet.sock",
        kubelet=kubelet,
        address=address,
        annotations=network,
        # A gateway of this machine leads there; a cluster has a way of its own.
        api_server=_POD_API if network and kubelet is None else None,
    )
    # A plain process can use a directory, but mount nothing.
    prefer_erofs = False if runtime.rung == "process" else None
    async with LocalImageStore(layout.images, prefer_erofs=prefer_erofs) as images:
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(watch_names(client, names), name="names")
                await serve(
                    settings,
                    client=client,
                    runtime=runtime,
                    images=images,
                    started=lambda: notify_ready(rung=runtime.rung, notes=notes),
                )
                watch.cancel()
        finally:
            await runtime.stop()
            if not keep_pods:
                await destroy_all(rungs(layout)[runtime.rung]())
                await asyncio.to_thread(remove_shared_memory, layout.instance)


async def _announce_network(runtime: SandboxRuntime, names: ClusterNames) -> dict[str, str]:
    """Let names lead to where the gateway will listen for pods; returns how it learns of that."""
    if not isinstance(runtime, NamespaceRuntime):
        return {POD_NETWORK: ""}
    await runtime.start()
    facts = runtime.network.facts
    names.gateway, names.kubernetes = facts.gateway, facts.kubernetes
    return {POD_NETWORK: msgspec.json.encode(facts).decode()}


async def destroy_all(runtime: SandboxRuntime) -> int:
    """Remove every sandbox that an earlier runtime left, and what they shared; returns how many there were."""
    await runtime.start()
    await runtime.adopt()
    sandboxes = runtime.held()
    async with asyncio.TaskGroup() as group:
        for sandbox in sandboxes:
            group.create_task(sandbox.destroy())
    await runtime.stop()
    return len(sandboxes)


async def remove_leftovers(layout: Layout) -> Sequence[str]:
    """End what a killed supervisor left: our processes, Envoy, sandboxes, network. Returns what was found."""
    found = await asyncio.to_thread(kill_leftovers, layout.data_dir / "children.json")
    boot = read_boot(layout.data_dir / "gateway")
    if boot is not None and alive(boot):
        os.kill(boot.pid, signal.SIGKILL)
        await ended(boot)
        found.append("envoy")
    for factory in rungs(layout).values():
        runtime = factory()
        try:
            count = await destroy_all(runtime)
        except SandboxError as error:
            log.info("no pods of rung %s: %s", runtime.rung, error)
            continue
        if count:
            found.append(f"{count} pods ({runtime.rung})")
    await asyncio.to_thread(remove_shared_memory, layout.instance)
    return found
