"""The volumes of one pod on disk: set up once, then kept current.

ConfigMaps, Secrets and the pod's own labels and annotations may change, optional objects may appear, tokens grow
old. Each makes the volumes' files be worked out again from what is known now, so nothing depends on having seen a
particular change. What cannot be worked out any more (an object was deleted) leaves the files as they are.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from serving.api.meta import ObjectMeta
from serving.api.pod import Pod, PodSpec
from serving.kube.errors import KubeError
from serving.local.node.envvars import ConfigError, KeyedObjects, PodFacts
from serving.local.node.once import Once, Spawn
from serving.local.node.service_tokens import Token, request_token
from serving.local.node.settings import NodeContext
from serving.local.node.volume_files import make_empty_dir, write_files
from serving.local.node.volumes import (
    EmptyDir,
    TokenWanted,
    contents,
    is_live,
    needed_objects,
    needs_address,
    tells_of_metadata,
    tokens_wanted,
)
from serving.local.sandbox.protocol import Sandbox

log = logging.getLogger(__name__)

NOT_YET: Final = "ContainerCreating"
"""Waiting reason of a container whose volumes are not ready; the kubelet tells why in an event."""
_RETRY_SECONDS: Final = 5.0
_JITTER: Final = 0.05

SandboxUp = Callable[[], Coroutine[Any, Any, Sandbox]]


class MountError(ConfigError):
    """A volume cannot be set up yet."""

    def __init__(self, volume: str, message: str) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {message}', reason=NOT_YET)


class PodVolumes:
    """`pod` gives the newest state of the pod."""

    def __init__(self, pod: Callable[[], Pod], context: NodeContext, *, spawn: Spawn) -> None:
        self._pod = pod
        self._context = context
        self._spawn = spawn
        self._once: Once[dict[str, Path]] | None = None
        self._facts = PodFacts()
        self._tokens: dict[TokenWanted, Token] = {}
        self._writing = asyncio.Lock()
        self._live = False
        self._closings = 0
        self._stale = False
        self._timer: asyncio.TimerHandle | None = None

    async def ready(self, sandbox: SandboxUp) -> dict[str, Path]:
        """Where each volume lies, set up at most once at a time. Raises MountError, ConfigError, KubeError."""
        if self._once is None or self._once.failed:
            self._once = Once(self._set_up(sandbox, self._closings), spawn=self._spawn, name="volumes")
        return await self._once.wait()

    def resume(self, sandbox: SandboxUp) -> None:
        """Keep the volumes of a pod current that an earlier agent set up."""
        if self._once is None and any(is_live(volume) for volume in self._pod().spec.volumes):
            self._once = Once(self._set_up(sandbox, self._closings), spawn=self._spawn, name="volumes")

    def changed(self) -> None:
        """Something that the files are made of may have changed."""
        if self._live and not self._stale:
            self._stale = True
            self._spawn(self._catch_up(), "update volumes")

    def metadata_changed(self, old: ObjectMeta, new: ObjectMeta) -> None:
        """News of the pod, of which only labels and annotations can matter here."""
        same = (old.labels, old.annotations) == (new.labels, new.annotations)
        if self._live and not same and tells_of_metadata(self._pod().spec):
            self.changed()

    async def close(self) -> None:
        """Write nothing any more, also of what is being set up. The volumes may be set up again later."""
        self._live = False
        self._closings += 1
        self._once = None
        self._set_timer(None)
        async with self._writing:
            pass  # what was being written is done

    async def _set_up(self, sandbox: SandboxUp, closings: int) -> dict[str, Path]:
        """`closings`: how often the volumes had been closed when this was asked for."""
        pod = self._pod()
        objects, tokens = await self._gather(pod)
        address = (await sandbox()).address.ip if needs_address(pod.spec) else ""
        context = self._context
        self._facts = PodFacts(pod_ip=address, host_ip=context.settings.address, allocatable=context.allocatable)
        async with self._writing:
            if self._closings != closings:
                raise ConfigError("the pod's volumes were removed meanwhile", reason=NOT_YET)
            paths = await asyncio.to_thread(self._write, pod, objects, tokens)
            self._live = self._closings == closings
        self._set_timer(self._renew_at())
        return paths

    async def _gather(self, pod: Pod) -> tuple[KeyedObjects, dict[TokenWanted, str]]:
        """Objects and tokens, at the same time."""
        needed = needed_objects(PodSpec(volumes=pod.spec.volumes))
        wanted = tokens_wanted(pod.spec)
        try:
            async with asyncio.TaskGroup() as group:
                tokens = [group.create_task(self._token(pod, one)) for one in wanted]
                objects = await self._context.objects.read(pod.metadata.namespace, needed)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        return objects, {one: task.result().value for one, task in zip(wanted, tokens, strict=True)}

    async def _token(self, pod: Pod, wanted: TokenWanted) -> Token:
        """The present one as long as it is fresh, or good and not to be had anew. Raises MountError, KubeError."""
        now = self._context.now()
        present = self._tokens.get(wanted)
        if present is not None and now < present.renew_at:
            return present
        try:
            token = await request_token(self._context.client, pod, wanted, now=now)
        except KubeError as error:
            if present is not None and now < present.expires_at:
                log.warning("pod %s: its token is not renewed: %s", pod.metadata.key, error)
                return present
            if error.transient:
                raise
            raise MountError(wanted.volume, f"failed to fetch token: {error}") from error
        self._tokens[wanted] = token
        return token

    def _write(self, pod: Pod, objects: KeyedObjects, tokens: dict[TokenWanted, str]) -> dict[str, Path]:
        """Blocking."""
        paths, uid = self._context.paths, pod.metadata.uid
        security = pod.spec.security_context
        group = security.fs_group if security else None
        out = {}
        for volume in pod.spec.volumes:
            name = volume["name"]
            try:
                what = contents(volume, pod, objects, self._facts, tokens)
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

    # Keeping current.

    async def _catch_up(self) -> None:
        """One at a time; changes that come meanwhile are caught up with by the next."""
        async with self._writing, self._context.volume_updates:
            self._stale = False
            if not self._live:
                return
            pod = self._pod()
            again: float | None = None
            try:
                objects, tokens = await self._gather(pod)
                await asyncio.to_thread(self._write, pod, objects, tokens)
            except ConfigError as error:
                self._context.events.warning(pod, "FailedMount", error.message)
                again = self._context.now() + _RETRY_SECONDS if self._overdue() else None
            except KubeError as error:
                log.warning("pod %s: volumes are not updated yet: %s", pod.metadata.key, error)
                again = self._context.now() + _RETRY_SECONDS
            self._set_timer(again if again is not None else self._renew_at())

    def _renew_at(self) -> float | None:
        """When the next token grows old; an overdue one is tried again in a while."""
        times = [token.renew_at for token in self._tokens.values()]
        if not times:
            return None
        return max(min(times), self._context.now() + _RETRY_SECONDS)

    def _overdue(self) -> bool:
        return any(token.renew_at <= self._context.now() for token in self._tokens.values())

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None and self._live:
            delay = max(at - self._context.now(), 0.0)
            delay *= 1.0 - random.uniform(0.0, _JITTER)  # noqa: S311 - spreads the work of many pods
            self._timer = asyncio.get_running_loop().call_later(delay, self.changed)
