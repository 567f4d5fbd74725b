"""ConfigMaps and Secrets that pods refer to: each is watched once, however many pods refer to it.

A start that finds its objects here asks the API server for nothing, and a change reaches every pod at once. What
no pod refers to any more is kept for a while, because a service that went to zero may wake up again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final, NamedTuple

from serving.api.meta import Model, ObjectMeta
from serving.api.resources import CONFIG_MAPS, SECRETS
from serving.kube.client import KubeClient
from serving.kube.errors import Unreachable
from serving.kube.informer import Informer
from serving.local.node.envvars import KeyedObjects
from serving.local.node.volumes import Needed

_IDLE_SECONDS: Final = 300.0
_MOST_IDLE: Final = 256
_FIRST_ANSWER_SECONDS: Final = 30.0

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


class _Keyed(Model, frozen=True, kw_only=True):
    """A ConfigMap or a Secret."""

    metadata: ObjectMeta
    data: dict[str, str] | None = None
    binary_data: dict[str, str] | None = None


class _Key(NamedTuple):
    secret: bool
    namespace: str
    name: str


class _Watched:
    """One object under watch. `holders`: whom to tell of changes, by pod."""

    def __init__(self, informer: Informer[_Keyed]) -> None:
        self.informer = informer
        self.task: asyncio.Task[None] | None = None
        self.holders: dict[str, Callable[[], None]] = {}
        self.idle_since = 0.0
        self._values: tuple[_Keyed, Mapping[str, bytes]] | None = None

    def values(self, key: _Key) -> Mapping[str, bytes] | None:
        """None = there is no such object."""
        found = self.informer.get(f"{key.namespace}/{key.name}")
        if found is None:
            return None
        if self._values is None or self._values[0] is not found:
            self._values = (found, _decoded(found, secret=key.secret))
        return self._values[1]


class ObjectCache:
    def __init__(
        self, client: KubeClient, spawn: Spawn, *, idle_seconds: float = _IDLE_SECONDS, most_idle: int = _MOST_IDLE
    ) -> None:
        self._client = client
        self._spawn = spawn
        self._idle_seconds = idle_seconds
        self._most_idle = most_idle
        self._watched: dict[_Key, _Watched] = {}
        self._held: dict[str, set[_Key]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, holder: str, namespace: str, needed: Needed, changed: Callable[[], None]) -> None:
        """Watch these objects for a pod, and call `changed` when one of them does, until `release`."""
        keys = set(_keys(namespace, needed))
        self._held[holder] = keys
        for key in keys:
            self._watch(key).holders[holder] = changed

    def release(self, holder: str) -> None:
        now = asyncio.get_running_loop().time()
        for key in self._held.pop(holder, ()):
            watched = self._watched[key]
            watched.holders.pop(holder, None)
            watched.idle_since = now
        self._drop_idle()

    async def read(self, namespace: str, needed: Needed) -> KeyedObjects:
        """Those that exist. Raises KubeError when the API server does not let us know."""
        keys = list(_keys(namespace, needed))
        for key in keys:
            watched = self._watch(key)
            if not watched.informer.synced.is_set():
                await self._first_answer(key, watched)
        return self.now(namespace, needed)

    def now(self, namespace: str, needed: Needed) -> KeyedObjects:
        """What is known at this moment of objects that were read before."""
        found: dict[bool, dict[str, Mapping[str, bytes]]] = {False: {}, True: {}}
        for key in _keys(namespace, needed):
            watched = self._watched.get(key)
            values = watched.values(key) if watched is not None else None
            if values is not None:
                found[key.secret][key.name] = values
        return KeyedObjects(config_maps=found[False], secrets=found[True])

    def close(self) -> None:
        """The watches end with the tasks' owner; only our own timer is left to stop."""
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self, key: _Key) -> _Watched:
        watched = self._watched.get(key)
        if watched is None:
            informer = Informer(
                self._client,
                SECRETS if key.secret else CONFIG_MAPS,
                _Keyed,
                namespace=key.namespace,
                field_selector=f"metadata.name={key.name}",
            )
            watched = self._watched[key] = _Watched(informer)
            watched.idle_since = asyncio.get_running_loop().time()
            informer.subscribe(lambda _name, _old, _new: self._tell(key))
            watched.task = self._spawn(
                informer.run(), f"watch {'secret' if key.secret else 'configmap'} {key.name}"
            )
        return watched

    async def _first_answer(self, key: _Key, watched: _Watched) -> None:
        what = f"{'secrets' if key.secret else 'configmaps'} {key.namespace}/{key.name}"
        try:
            async with asyncio.timeout(_FIRST_ANSWER_SECONDS):
                await watched.informer.answered.wait()
        except TimeoutError:
            raise Unreachable(f"{what}: the API server does not answer") from None
        if not watched.informer.synced.is_set():
            raise watched.informer.failure or Unreachable(f"{what}: not read yet")

    def _tell(self, key: _Key) -> None:
        for changed in list(self._watched[key].holders.values()):
            changed()

    def _drop_idle(self) -> None:
        now = asyncio.get_running_loop().time()
        idle = sorted((w.idle_since, key) for key, w in self._watched.items() if not w.holders)
        surplus = max(0, len(idle) - self._most_idle)
        for at, (since, key) in enumerate(idle):
            if at < surplus or now - since >= self._idle_seconds:
                task = self._watched.pop(key).task
                if task is not None:
                    task.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if len(idle) > surplus:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._idle_seconds + 0.01, self._drop_idle)


def _keys(namespace: str, needed: Needed) -> Iterable[_Key]:
    yield from (_Key(False, namespace, name) for name in sorted(needed.config_maps))
    yield from (_Key(True, namespace, name) for name in sorted(needed.secrets))


def _decoded(item: _Keyed, *, secret: bool) -> Mapping[str, bytes]:
    plain = {} if secret else {key: value.encode() for key, value in (item.data or {}).items()}
    encoded = item.data if secret else item.binary_data
    return plain | {key: _bytes(value) for key, value in (encoded or {}).items()}


def _bytes(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except (binascii.Error, ValueError):
        return b""
