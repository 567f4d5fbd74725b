"""The node agent as a process would run it: adopt, register, watch, run pods, serve logs — until cancelled.

Cancelling it leaves every pod running: the next agent takes them over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from serving.api.pod import Pod
from serving.api.resources import PODS
from serving.kube.client import KubeClient
from serving.kube.informer import Informer
from serving.local.images.protocol import ImageStore
from serving.local.node.agent import NodeAgent
from serving.local.node.events import EventRecorder
from serving.local.node.kubelet_api import KubeletApi
from serving.local.node.metrics import NodeMetrics
from serving.local.node.object_cache import ObjectCache
from serving.local.node.paths import NodePaths
from serving.local.node.prober import Prober
from serving.local.node.registration import keep_registered, machine_capacity, node_object
from serving.local.node.settings import NodeContext, NodeSettings
from serving.local.sandbox.protocol import SandboxRuntime

log = logging.getLogger(__name__)

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - every Linux has its memory file system there
_VERSION: Final = "0.1"

__all__ = ["NodeSettings", "remove_shared_memory", "run"]


async def run(
    settings: NodeSettings,
    *,
    client: KubeClient,
    runtime: SandboxRuntime,
    images: ImageStore,
    started: Callable[[], None] | None = None,
    now: Callable[[], float] = time.time,
) -> None:
    """Be the node `settings.name` until cancelled. `started` is called once, when the node is registered and
    takes pods. Raises SandboxError when the runtime cannot start."""
    paths = await asyncio.to_thread(_prepare, settings)
    capacity = await asyncio.to_thread(machine_capacity, settings.data_dir, max_pods=settings.max_pods)
    metrics = NodeMetrics()
    prober = Prober()
    tasks: asyncio.TaskGroup

    def watch(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return tasks.create_task(work, name=name)

    objects = ObjectCache(client, watch)
    events = EventRecorder(client, node=settings.name, now=now, dropped=metrics.events_dropped)
    context = NodeContext(
        settings,
        client=client,
        runtime=runtime,
        images=images,
        paths=paths,
        prober=prober,
        events=events,
        metrics=metrics,
        objects=objects,
        allocatable=capacity,
        now=now,
    )
    await runtime.start()
    informer = Informer(client, PODS, Pod, field_selector=f"spec.nodeName={settings.name}")
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group
            agent = NodeAgent(context, informer, group)
            group.create_task(informer.run(), name="pods")
            group.create_task(events.run(), name="events")
            group.create_task(agent.keep_logs_bounded(), name="logs")
            group.create_task(agent.keep_storage_bounded(), name="storage")
            try:
                await agent.start()
                async with KubeletApi(agent, context).serve() as port:
                    node = node_object(settings, rung=runtime.rung, capacity=capacity, version=_VERSION, port=port)
                    # Only now: a Node that is Ready takes pods, and its kubelet answers.
                    await keep_registered(client, node, now=now, registered=started)
            finally:
                agent.close()
                objects.close()
    finally:
        await prober.close()


def shared_memory(instance: str) -> Path:
    """Where secrets and memory volumes of an installation lie, if it may write there."""
    return _SHARED_MEMORY / f"nodeless-{instance}"


def remove_shared_memory(instance: str) -> None:
    """Blocking. Only when no pod is left: what pods hold in memory goes too."""
    path = shared_memory(instance)
    if path.is_dir() and not path.is_symlink() and path.stat().st_uid == os.geteuid():
        shutil.rmtree(path, ignore_errors=True)


def _prepare(settings: NodeSettings) -> NodePaths:
    """Blocking: the directories of this agent."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    memory = settings.memory_dir
    if memory is None and _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK):
        memory = shared_memory(settings.instance)
    if memory is not None:
        memory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if memory.stat().st_uid != os.geteuid():
            # Somebody else made it, in a directory that everybody may write to: no place for secrets.
            log.warning("%s belongs to another user; secrets and memory volumes go to the data directory", memory)
            memory = None
    paths = NodePaths(data_dir=settings.data_dir, memory_dir=memory)
    paths.pods.mkdir(mode=0o700, exist_ok=True)
    paths.logs.mkdir(mode=0o700, exist_ok=True)
    return paths
