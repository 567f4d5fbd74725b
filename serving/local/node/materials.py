"""What the containers of one pod are started from: images, volumes, environment.

Everything is fetched as soon as it is asked for and independently of the rest; waiting for it is up to the start
of each container. What failed is fetched anew by the next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from serving.api.pod import Container, Pod, PodSpec
from serving.api.resources import SECRETS
from serving.kube.errors import KubeError, NotFound
from serving.local.images.protocol import Image
from serving.local.node.containers import container_spec, volume_mounts
from serving.local.node.envvars import ConfigError, KeyedObjects, PodFacts
from serving.local.node.objects import fetch_objects, secret_data
from serving.local.node.once import Once, Spawn
from serving.local.node.pullsecrets import credentials_for
from serving.local.node.settings import NodeContext
from serving.local.node.volume_files import make_empty_dir, sub_path, write_files
from serving.local.node.volumes import EmptyDir, contents, needed_objects
from serving.local.sandbox.protocol import ContainerSpec, Mount, Sandbox

_NOT_YET = "ContainerCreating"
"""Waiting reason of a container whose volumes are not ready; the kubelet tells why in an event."""


class MountError(ConfigError):
    """A volume cannot be set up yet."""

    def __init__(self, volume: str, message: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {message}', reason=_NOT_YET)


class Materials:
    def __init__(self, pod: Pod, context: NodeContext, *, spawn: Spawn) -> None:
        self._pod = pod
        self._context = context
        self._spawn = spawn
        self._images: dict[str, Once[Image]] = {}
        self._pinned: list[str] = []
        self._volumes: Once[dict[str, Path]] | None = None

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

    def release(self) -> None:
        """The pod needs its images no more."""
        pinned, self._pinned = self._pinned, []
        for digest in pinned:
            self._context.images.release(digest)

    async def prepare(
        self,
        container: Container,
        attempt: int,
        *,
        sandbox: Callable[[], Coroutine[Any, Any, Sandbox]],
        got_image: Callable[[Image], None],
    ) -> tuple[Sandbox, ContainerSpec]:
        """Everything that one attempt needs, fetched at the same time.

        Raises ConfigError, ImageError, KubeError, QuantityError, OSError, or what `sandbox` raises.
        """
        image = self.image(container)
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(sandbox())
                pulled = group.create_task(self._pulled(image, got_image))
                objects = group.create_task(self._objects_of(container))
                mounts = group.create_task(self._mounts(container, attempt, sandbox))
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
        found = []
        for reference in self._pod.spec.image_pull_secrets:
            try:
                secret = await self._context.client.get(SECRETS, reference.name, self._pod.metadata.namespace)
            except NotFound:
                continue  # the pull may succeed without it, and says so if not
            found.append(dict(secret_data(secret)))
        return found

    async def _objects_of(self, container: Container) -> KeyedObjects:
        needed = needed_objects(PodSpec(containers=(container,)))
        return await self._fetch(needed.config_maps, needed.secrets)

    async def _fetch(self, config_maps: Iterable[str], secrets: Iterable[str]) -> KeyedObjects:
        if not config_maps and not secrets:
            return KeyedObjects()
        namespace = self._pod.metadata.namespace
        return await fetch_objects(self._context.client, namespace, config_maps=config_maps, secrets=secrets)

    async def _mounts(
        self, container: Container, attempt: int, sandbox: Callable[[], Coroutine[Any, Any, Sandbox]]
    ) -> list[Mount]:
        volumes: dict[str, Path] = {}
        if container.volume_mounts:
            if self._volumes is None or self._volumes.failed:
                self._volumes = Once(self._set_up(sandbox), spawn=self._spawn, name="volumes")
            volumes = await self._volumes.wait()
        return await asyncio.to_thread(self._files_of, container, attempt, volumes)

    def _files_of(self, container: Container, attempt: int, volumes: dict[str, Path]) -> list[Mount]:
        """Blocking: the directory of the container's logs and the places of its mounts."""
        self._log_path(container, attempt).parent.mkdir(parents=True, exist_ok=True)
        empty = {v["name"] for v in self._pod.spec.volumes if v.get("emptyDir") is not None}
        sources = {}
        for mount in container.volume_mounts:
            if mount.name in volumes:
                path = volumes[mount.name]
                if mount.sub_path:
                    path = sub_path(path, mount.sub_path, create=mount.name in empty)
                sources[mount.name, mount.sub_path] = path
        return volume_mounts(container, sources)

    async def _set_up(self, sandbox: Callable[[], Coroutine[Any, Any, Sandbox]]) -> dict[str, Path]:
        volumes = self._pod.spec.volumes
        needed = needed_objects(PodSpec(volumes=volumes))
        objects = await self._fetch(needed.config_maps, needed.secrets)
        # Only a downward volume can name the pod's address, and only that is worth waiting for.
        downward = any(v.get("downwardAPI") or v.get("projected") for v in volumes)
        facts = self._facts((await sandbox()).address.ip if downward else "")
        return await asyncio.to_thread(self._write_volumes, objects, facts)

    def _write_volumes(self, objects: KeyedObjects, facts: PodFacts) -> dict[str, Path]:
        """Blocking."""
        paths, uid = self._context.paths, self._pod.metadata.uid
        security = self._pod.spec.security_context
        group = security.fs_group if security else None
        out = {}
        for volume in self._pod.spec.volumes:
            name = volume["name"]
            try:
                what = contents(volume, self._pod, objects, facts)
                memory = what.memory if isinstance(what, EmptyDir) else not volume.get("configMap")
                path = paths.volume(uid, name, in_memory=memory)
                if isinstance(what, EmptyDir):
                    make_empty_dir(path, group=group)
                else:
                    write_files(path, what.files, group=group)
            except (ConfigError, OSError) as error:
                raise MountError(name, str(error)) from error
            out[name] = path
        return out

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
        return _NOT_YET, f"waiting for the API server: {error}"
    if not isinstance(reason, str) or not reason:
        reason = "CreateContainerConfigError" if isinstance(error, ValueError) else "CreateContainerError"
    return reason, str(error) or type(error).__name__


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """The first plain exception of a group."""
    found: Exception = errors
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found
