"""Leases of coordination.k8s.io: heartbeats of gateways, leadership of controllers, and who is alive.

Clocks of different machines are never compared: a lease counts as expired when its renewTime has not *changed*
for its duration as seen by the observer's own monotonic clock (as client-go does it).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.meta import JsonObject, Model, ObjectMeta
from serving.api.resources import LEASES
from serving.api.timestamps import format_micros
from serving.kube.client import KubeClient
from serving.kube.errors import AlreadyExists, Conflict, KubeError, NotFound
from serving.kube.informer import Informer

log = logging.getLogger(__name__)

HEARTBEAT_DURATION_SECONDS = 10
HEARTBEAT_RENEW_SECONDS = 3.0
LEADER_DURATION_SECONDS = 4
LEADER_RENEW_SECONDS = 1.0
_RELEASE_SECONDS = 2.0
COMPONENT_LABEL = "nodeless.dev/component"
ADDRESS_ANNOTATION = "nodeless.dev/address"


class LeaseSpec(Model, frozen=True, kw_only=True):
    holder_identity: str = ""
    lease_duration_seconds: int = HEARTBEAT_DURATION_SECONDS
    renew_time: str | None = None
    acquire_time: str | None = None
    lease_transitions: int = 0


class Lease(Model, frozen=True, kw_only=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: LeaseSpec = LeaseSpec()


class LeaseObserver:
    """Which leases of an informer are alive, by the local clock."""

    def __init__(self, informer: Informer[Lease]) -> None:
        self._informer = informer
        self._changed_at: dict[str, float] = {}
        informer.subscribe(self._on_change)

    def _on_change(self, key: str, old: Lease | None, new: Lease | None) -> None:
        if new is None:
            self._changed_at.pop(key, None)
        elif old is None or old.spec.renew_time != new.spec.renew_time:
            self._changed_at[key] = asyncio.get_running_loop().time()

    def alive(self) -> dict[str, Lease]:
        """Unexpired leases with a holder, by holder identity."""
        now = asyncio.get_running_loop().time()
        return {
            lease.spec.holder_identity: lease
            for lease in self._informer.all()
            if lease.spec.holder_identity and now < self._expires_at(lease)
        }

    def next_expiry(self) -> float | None:
        """Loop time at which the next lease expires if nobody renews it."""
        now = asyncio.get_running_loop().time()
        times = [self._expires_at(lease) for lease in self._informer.all() if lease.spec.holder_identity]
        return min((time for time in times if time > now), default=None)

    def _expires_at(self, lease: Lease) -> float:
        """While there is no watch nobody's renewals are seen, so nobody expires: an outage of the API server is
        not the death of all gateways. What was missed is waited for anew once the watch is back."""
        since = self._informer.fresh_since
        if since is None:
            since = asyncio.get_running_loop().time()
        return max(since, self._changed_at[lease.metadata.key]) + lease.spec.lease_duration_seconds


async def heartbeat(
    client: KubeClient,
    *,
    name: str,
    component: str,
    identity: str,
    now: Callable[[], float],
    annotations: dict[str, str] | None = None,
) -> None:
    """Hold the lease `name` until cancelled, then give it up at once so that nobody waits for its expiry."""
    metadata = {
        "name": name,
        "namespace": SYSTEM_NAMESPACE,
        "labels": {COMPONENT_LABEL: component},
        "annotations": annotations or {},
    }
    spec = {"holderIdentity": identity, "leaseDurationSeconds": HEARTBEAT_DURATION_SECONDS}
    try:
        while True:
            spec["renewTime"] = format_micros(now())
            try:
                async with asyncio.timeout(HEARTBEAT_RENEW_SECONDS):
                    await _apply(client, name, metadata, spec)
            except (KubeError, TimeoutError) as error:
                log.warning("lease %s: %s", name, error or "no answer")
            await asyncio.sleep(HEARTBEAT_RENEW_SECONDS)
    finally:
        await _release(client, name, identity)


async def _apply(client: KubeClient, name: str, metadata: JsonObject, spec: JsonObject) -> None:
    patch = {"metadata": {k: metadata[k] for k in ("labels", "annotations")}, "spec": spec}
    try:
        await client.patch(LEASES, name, patch, SYSTEM_NAMESPACE)
    except NotFound:
        body = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": metadata, "spec": spec}
        await client.create(LEASES, body)


async def _release(client: KubeClient, name: str, identity: str) -> None:
    try:
        async with asyncio.timeout(_RELEASE_SECONDS):
            lease = await client.get(LEASES, name, SYSTEM_NAMESPACE)
            if lease.get("spec", {}).get("holderIdentity") == identity:
                body = {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}}
                await client.patch(LEASES, name, body | {"spec": {"holderIdentity": ""}}, SYSTEM_NAMESPACE)
    except (KubeError, TimeoutError) as error:
        log.info("lease %s not released: %s", name, error or "no answer")


class Elector:
    """Leadership by one lease: `lead` runs its body only while the lease is ours.

    A restarted process with the same identity takes its own lease over at once: whoever starts it (a
    supervisor, a kubelet) guarantees that its predecessor is dead.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        name: str,
        identity: str,
        now: Callable[[], float],
        annotations: dict[str, str],
    ) -> None:
        self._client = client
        self._name = name
        self._identity = identity
        self._now = now
        self._annotations = annotations
        self._seen: tuple[str | None, float] = (None, 0.0)
        self._version = ""

    async def lead(self, body: Callable[[], Awaitable[None]]) -> None:
        """Acquire, run `body`, and start over when the lease is lost. Until cancelled, or `body` returns."""
        ended = False
        while not ended:
            await self._acquire()
            log.info("leading %s as %s", self._name, self._identity)
            try:
                ended = await self._term(body)
            except asyncio.CancelledError:
                await _release(self._client, self._name, self._identity)
                raise
        await _release(self._client, self._name, self._identity)

    async def _term(self, body: Callable[[], Awaitable[None]]) -> bool:
        """Run `body` while the lease is ours; returns whether it ended by itself."""
        ended = False
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(), name=f"renew {self._name}")
                await body()
                ended = renewing.cancel()
        except* _LeaseLost as lost:
            log.warning("lost %s: %s", self._name, lost.exceptions[0])
        return ended

    async def _acquire(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LEADER_DURATION_SECONDS):
                    if await self._try_acquire():
                        return
            except (Conflict, AlreadyExists):
                log.debug("lease %s: somebody else was faster", self._name)
            except (KubeError, TimeoutError) as error:
                log.warning("lease %s: %s", self._name, error or "no answer")
            await asyncio.sleep(LEADER_RENEW_SECONDS)

    async def _try_acquire(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            current = await self._client.get(LEASES, self._name, SYSTEM_NAMESPACE)
        except NotFound:
            created = await self._client.create(LEASES, self._body(transitions=0))
            self._version = created["metadata"]["resourceVersion"]
            return True
        spec = current.get("spec", {})
        holder = spec.get("holderIdentity") or ""
        renewed = spec.get("renewTime")
        if self._seen[0] != renewed:
            self._seen = (renewed, loop.time())
        expired = loop.time() - self._seen[1] >= spec.get("leaseDurationSeconds", LEADER_DURATION_SECONDS)
        if holder not in ("", self._identity) and not expired:
            return False
        body = self._body(transitions=spec.get("leaseTransitions", 0) + (holder != self._identity))
        body["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        updated = await self._client.update(LEASES, body)
        self._version = updated["metadata"]["resourceVersion"]
        return True

    async def _renew(self) -> None:
        """Renew until cancelled. Raises _LeaseLost when somebody else holds the lease, and also when no renewal
        got through early enough that nobody else can hold it yet."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(LEADER_RENEW_SECONDS)
            asked = loop.time()
            try:
                async with asyncio.timeout_at(renewed + LEADER_DURATION_SECONDS - LEADER_RENEW_SECONDS):
                    await self._renew_once()
                renewed = asked
            except TimeoutError as error:
                raise _LeaseLost("no answer") from error
            except KubeError as error:
                log.warning("lease %s: %s", self._name, error)
                if loop.time() - renewed >= LEADER_DURATION_SECONDS - LEADER_RENEW_SECONDS:
                    raise _LeaseLost(str(error)) from error

    async def _renew_once(self) -> None:
        patch = {
            "metadata": {"resourceVersion": self._version},
            "spec": {"renewTime": format_micros(self._now())},
        }
        try:
            lease = await self._client.patch(LEASES, self._name, patch, SYSTEM_NAMESPACE)
        except NotFound as error:
            raise _LeaseLost("it was deleted") from error
        except Conflict as error:
            # Somebody annotated it, or a renewal that timed out was carried out all the same: still ours then.
            lease = await self._client.get(LEASES, self._name, SYSTEM_NAMESPACE)
            holder = lease.get("spec", {}).get("holderIdentity")
            if holder != self._identity:
                raise _LeaseLost(f"{holder or 'nobody'} holds it") from error
        self._version = lease["metadata"]["resourceVersion"]

    def _body(self, *, transitions: int) -> JsonObject:
        stamp = format_micros(self._now())
        return {
            "apiVersion": LEASES.api_version,
            "kind": "Lease",
            "metadata": {
                "name": self._name,
                "namespace": SYSTEM_NAMESPACE,
                "labels": {COMPONENT_LABEL: "controller"},
                "annotations": self._annotations,
            },
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": LEADER_DURATION_SECONDS,
                "acquireTime": stamp,
                "renewTime": stamp,
                "leaseTransitions": transitions,
            },
        }


class _LeaseLost(Exception):
    """We lead no longer; the text says why."""
