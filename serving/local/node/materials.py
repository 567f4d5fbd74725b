"""What the containers of one pod are started from: images, volumes, environment.

Everything is fetched as soon as it is asked for and independently of the rest; waiting for it is up to the start
of each container. What failed is fetched anew by the next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from serving.api.pod import Container, Pod, PodSpec
from serving.kube.errors import KubeError
from serving.local.images.protocol import Image
from serving.local.node.containers import container_spec, volume_mounts
from serving.local.node.envvars import KeyedObjects, PodFacts
from serving.local.node.once import Once, Spawn
from serving.local.node.pod_volumes import NOT_YET, PodVolumes, SandboxUp
from serving.local.node.pullsecrets import credentials_for
from serving.local.node.service_env import service_environment
from serving.local.node.settings import NodeContext
from serving.local.node.volume_files import sub_path
from serving.local.node.volumes import Needed, memory_limits, needed_objects
from serving.local.sandbox.protocol import ContainerSpec, Mount, Sandbox


class Materials:
    """`newest` gives the pod as it is now; what does not change in its life is read from `pod`."""

    def __init__(self, pod: Pod, context: NodeContext, *, newest: Callable[[], Pod], spawn: Spawn) -> None:
        self._pod = pod
        self._context = context
        self._spawn = spawn
        self._images: dict[str, Once[Image]] = {}
        self._pinned: list[str] = []
        self._holding = False
        self.volumes = PodVolumes(newest, context, spawn=spawn)

    def image(self, container: Container) -> Once[Image]:
        """The container's image, asked for at most once at a time."""
        known = self._images.get(container.name)
        if known is None or known.failed:
            known = Once(self._ensure(container), spawn=self._spawn, name=f"image of {container.name}")
            self._images[container.name] = known
        return known

    def refresh_image(self, container: Container) -> None:
        """Ask again at the next start when the pull policy says so."""
        if container.image_pull_policy == "Always":
            self._images.pop(container.name, None)

    def resume_volumes(self, sandbox: SandboxUp) -> None:
        """Keep current what an earlier agent set up."""
        self._hold()
        self.volumes.resume(sandbox)

    def release(self) -> None:
        """The pod needs its images and objects no more."""
        if self._holding:
            self._holding = False
            self._context.objects.release(self._pod.metadata.uid)
        pinned, self._pinned = self._pinned, []
        for digest in pinned:
            self._context.images.release(digest)

    async def prepare(
        self,
        container: Container,
        attempt: int,
        *,
        sandbox: SandboxUp,
        got_image: Callable[[Image], None],
    ) -> tuple[Sandbox, ContainerSpec]:
        """Everything that one attempt needs, fetched at the same time.

        Raises ConfigError, ImageError, KubeError, QuantityError, OSError, or what `sandbox` raises.
        """
        self._hold()
        image = self.image(container)
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(sandbox())
                pulled = group.create_task(self._pulled(image, got_image))
                objects = group.create_task(self._objects_of(container))
                mounts = group.create_task(self._mounts(container, sandbox))
                group.create_task(asyncio.to_thread(self._make_log_directory, container, attempt))
        except ExceptionGroup as errors:
            raise _first(errors) from errors
        log_path = self._log_path(container, attempt)
        spec = container_spec(
            container,
            self._pod,
            pulled.result(),
            attempt=attempt,
            objects=objects.result(),
            facts=self._facts(up.result().address.ip),
            address=up.result().address,
            mounts=mounts.result(),
            log_path=log_path,
            services=service_environment(self._context.settings.api_server),
        )
        return up.result(), spec

    async def _pulled(self, image: Once[Image], got_image: Callable[[Image], None]) -> Image:
        found = await image.wait()
        got_image(found)
        return found

    async def _ensure(self, container: Container) -> Image:
        # An API server that defaults fields has chosen the policy; where none did, what is here is good enough.
        policy = container.image_pull_policy or "IfNotPresent"
        secrets = await self._pull_secrets()
        image = await self._context.images.ensure(
            container.image, pull_policy=policy, credentials=credentials_for(container.image, secrets)
        )
        self._pinned.append(image.digest)
        return image

    async def _pull_secrets(self) -> list[dict[str, bytes]]:
        """Those that exist; the pull may succeed without the others, and says so if not."""
        names = [reference.name for reference in self._pod.spec.image_pull_secrets]
        if not names:
            return []
        self._hold()
        objects = await self._context.objects.read(
            self._pod.metadata.namespace, Needed(frozenset(), frozenset(names))
        )
        return [dict(objects.secrets[name]) for name in names if name in objects.secrets]

    def _hold(self) -> None:
        """Have everything that the pod refers to watched, from its first start to its end."""
        if self._holding:
            return
        spec, meta = self._pod.spec, self._pod.metadata
        needed = needed_objects(spec)
        pulls = {reference.name for reference in spec.image_pull_secrets}
        self._context.objects.hold(
            meta.uid, meta.namespace, Needed(needed.config_maps, needed.secrets | pulls), self.volumes.changed
        )
        self._holding = True

    async def _objects_of(self, container: Container) -> KeyedObjects:
        needed = needed_objects(PodSpec(containers=(container,)))
        return await self._context.objects.read(self._pod.metadata.namespace, needed)

    async def _mounts(self, container: Container, sandbox: SandboxUp) -> list[Mount]:
        volumes: dict[str, Path] = {}
        if container.volume_mounts:
            volumes = await self.volumes.ready(sandbox)
        if any(mount.sub_path for mount in container.volume_mounts):
            return await asyncio.to_thread(self._places, container, volumes)
        return self._places(container, volumes)

    def _places(self, container: Container, volumes: dict[str, Path]) -> list[Mount]:
        """Blocking where there are subPaths."""
        empty = {v["name"] for v in self._pod.spec.volumes if v.get("emptyDir") is not None}
        sources = {}
        for mount in container.volume_mounts:
            if mount.name in volumes:
                path = volumes[mount.name]
                if mount.sub_path:
                    path = sub_path(path, mount.sub_path, create=mount.name in empty)
                sources[mount.name, mount.sub_path] = path
        return volume_mounts(container, sources, writable=empty, memory_limits=memory_limits(self._pod.spec))

    def _make_log_directory(self, container: Container, attempt: int) -> None:
        """Blocking."""
        self._log_path(container, attempt).parent.mkdir(parents=True, exist_ok=True)

    def _facts(self, pod_ip: str) -> PodFacts:
        context = self._context
        return PodFacts(pod_ip=pod_ip, host_ip=context.settings.address, allocatable=context.allocatable)

    def _log_path(self, container: Container, attempt: int) -> Path:
        meta = self._pod.metadata
        return self._context.paths.log(meta.namespace, meta.name, meta.uid, container.name, attempt)


def failure(error: Exception) -> tuple[str, str]:
    """(waiting reason, message) of whatever kept a container from starting."""
    reason = getattr(error, "reason", "")
    if isinstance(error, KubeError):
        return NOT_YET, f"waiting for the API server: {error}"
    if not isinstance(reason, str) or not reason:
        reason = "CreateContainerConfigError" if isinstance(error, ValueError) else "CreateContainerError"
    return reason, str(error) or type(error).__name__


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """The first plain exception of a group."""
    found: Exception = errors
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found
