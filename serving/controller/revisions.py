"""The Revision side of the controller: digests, autoscaler, pool and status of each Revision. Shell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from serving.api import keys, timestamps
from serving.api.config.store import ApiConfig
from serving.api.meta import Condition, find_condition
from serving.api.pod import Pod
from serving.api.reports import Decided, Demand, Poke
from serving.api.resources import REVISIONS
from serving.api.v1 import Configuration, Revision, Route
from serving.autoscaler.parameters import ScalingParameters, parameters_of
from serving.autoscaler.revision import Decision, Observation, PodCounts
from serving.autoscaler.scaling import revision_reachability
from serving.autoscaler.service import Autoscaler
from serving.controller.digests import DigestResolver, resolve_digests, stored_digests
from serving.controller.executor import carry_out
from serving.controller.gateways import GatewayReports
from serving.controller.happenings import of_revision
from serving.controller.revision import (
    Images,
    Refusal,
    Scale,
    progress_began,
    reconcile_revision,
    reconcile_routing_state,
    refuse_revision,
    was_initialized,
)
from serving.controller.shared import Shared
from serving.kube.queue import WorkQueue
from serving.pool.placement import Node, Usage, spec_problem
from serving.pool.service import Facts, Pool

log = logging.getLogger(__name__)

_DIGEST_RETRY_FIRST_SECONDS = 2.0
_DIGEST_RETRY_CAP_SECONDS = 60.0
_WAKE_SECONDS = 0.25
QUEUE_CONCURRENCY = 16
"""Keys of one kind in work at once. More would not be faster, and a key that waits collects its changes."""


class Sources:
    """What this part reads of the rest of the controller."""

    def __init__(
        self,
        *,
        revision: Callable[[str], Revision | None],
        configuration: Callable[[str], Configuration | None],
        routes_of: Callable[[Revision], Collection[Route]],
        pod: Callable[[str], Pod | None],
        pods: Callable[[str], Collection[Pod]],
        all_pods: Callable[[], Collection[Pod]],
        usage: Callable[[], Mapping[str, Usage]],
        nodes: Callable[[], Sequence[Node]],
        gateways: Callable[[], frozenset[str]],
        config: Callable[[], ApiConfig],
    ) -> None:
        self.revision = revision
        self.configuration = configuration
        self.routes_of = routes_of
        self.pod = pod
        self.pods = pods
        self.all_pods = all_pods
        self.usage = usage
        self.nodes = nodes
        self.gateways = gateways
        self.config = config


class Revisions:
    """Call `reconcile` by the queue `requeue` adds to; pokes and demand go straight in."""

    def __init__(
        self,
        shared: Shared,
        sources: Sources,
        reports: GatewayReports,
        *,
        resolver: DigestResolver,
        created: Callable[[Decided], None],
    ) -> None:
        client, now = shared.client, shared.now
        self._events = shared.events
        guarded = shared.malformed.guarded(REVISIONS, self._reconcile)
        self.queue = WorkQueue("revision", guarded, concurrency=QUEUE_CONCURRENCY)
        self._digests = WorkQueue("digest", self._resolve, concurrency=QUEUE_CONCURRENCY)
        self._client = client
        self._sources = sources
        self._reports = reports
        self._resolver = resolver
        self._now = now
        self._images: dict[str, Images] = {}
        self._digest_failures: dict[str, int] = {}
        self._poked_at: dict[str, float] = {}
        self._calm_at: dict[str, float] = {}
        self._cached: dict[str, tuple[Revision, ApiConfig, ScalingParameters]] = {}
        self.autoscaler = Autoscaler(now=now, observe=self._observe, decided=self._decided)
        facts = Facts(
            revision=self._with_digests,
            pod=sources.pod,
            pods=sources.pods,
            all_pods=sources.all_pods,
            usage=sources.usage,
            nodes=sources.nodes,
            wait_set=sources.gateways,
            drains=lambda: reports.drains,
            forget_drain=reports.forget_drain,
            config=lambda: sources.config().deployment,
            progress_deadline=self._progress_deadline,
        )
        self.pool = Pool(client, facts, now=now, changed=self.queue.add, created=created)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.queue.run(), name="revisions")
                group.create_task(self._digests.run(), name="digests")
                group.create_task(self.pool.run(), name="pool")
        finally:
            self.autoscaler.close()

    def on_demand(self, gateway: str, demand: Demand) -> None:
        self.autoscaler.on_demand(gateway, demand)

    def on_poke(self, poke: Poke) -> None:
        """In this loop turn the pool gets its order; its worker sends the create call in the next."""
        self._poked_at[poke.revision] = poke.at
        try:
            known = self.autoscaler.on_poke(poke)
        finally:
            self._poked_at.pop(poke.revision, None)
        if not known:
            log.info("poke for revision %s, which is not ready to scale", poke.revision)
            self.queue.add(poke.revision)

    def forget(self, key: str) -> None:
        """Drop what is remembered of a Revision that is gone, or whose name now belongs to another one."""
        self.autoscaler.forget(key)
        self.pool.forget(key)
        for memory in (self._images, self._digest_failures, self._calm_at, self._cached):
            memory.pop(key, None)

    def pods_changed(self, key: str) -> None:
        self.pool.pods_changed(key)
        self.autoscaler.evaluate(key)
        self._status_changed(key)

    def gateways_changed(self) -> None:
        self.pool.all_changed()
        self.autoscaler.evaluate_all()

    def _decided(self, key: str, decision: Decision) -> None:
        poked_at = self._poked_at.pop(key, None) if decision.woken else None
        self.pool.want(key, decision.desired, poked_at=poked_at)
        if decision.woken:
            self._calm_at[key] = self._now() + _WAKE_SECONDS
        self._status_changed(key)

    def _status_changed(self, key: str) -> None:
        """Soon, but not while a wake-up is under way: nobody waits for the status, somebody for the pod, and one
        write then says what else would take two."""
        wait = self._calm_at.get(key, 0.0) - self._now()
        if 0 < wait <= _WAKE_SECONDS:
            self.queue.add_after(key, wait)
        else:
            self._calm_at.pop(key, None)
            self.queue.add(key)

    def _observe(self, key: str) -> Observation:
        ready = live = draining = 0
        for pod in self._sources.pods(key):
            if pod.metadata.deletion_timestamp is not None or pod.finished:
                continue
            if keys.DRAINING in pod.metadata.annotations:
                draining += 1
            else:
                live += 1
                ready += pod.ready
        live += self.pool.expected(key)
        revision = self._sources.revision(key)
        gateways = self._sources.gateways()
        return Observation(
            pods=PodCounts(ready=ready, live=live, draining=draining),
            gateways=gateways,
            reachability=revision_reachability(revision, pods=live, ready=ready) if revision else "Unreachable",
            acked=self._reports.cold(key, alive=gateways),
        )

    async def _reconcile(self, key: str) -> float | None:
        revision = self._sources.revision(key)
        if revision is None or revision.metadata.deletion_timestamp is not None:
            self.forget(key)
            return None
        problem = None if key in self._images else spec_problem(revision)
        if problem is not None:
            stamp = timestamps.format_seconds(self._now())
            await carry_out(self._client, refuse_revision(revision, message=problem, now=stamp))
            return None
        images = self._images.get(key) or stored_digests(revision)
        if images is None:
            self._digests.add(key)
            return None
        if images.resolved:
            self._images[key] = images
            self._take_on(key, revision)
        now = self._now()
        stamp = timestamps.format_seconds(now)
        configuration_name = revision.metadata.labels.get(keys.CONFIGURATION, "")
        configuration = self._sources.configuration(f"{revision.metadata.namespace}/{configuration_name}")
        refused = self.pool.refusal(key)
        late, wait = self._deadline(key, revision, now)
        writes = reconcile_routing_state(
            revision, routes=self._sources.routes_of(revision), configuration=configuration, now=stamp
        ) + reconcile_revision(
            revision,
            images=images,
            pods=self._sources.pods(key),
            scale=self._scale(key, revision),
            refusal=Refusal(reason=refused.reason, message=refused.message) if refused else None,
            deadline_exceeded=late,
            log_url=self._log_url(revision),
            always_schedulable=self._sources.config().deployment.pod_is_always_schedulable,
            now=stamp,
        )
        await carry_out(self._client, writes)
        self._events.happened(REVISIONS, revision.metadata, of_revision(revision, writes))
        return wait

    async def _resolve(self, key: str) -> float | None:
        """Digests of one Revision. A queue of its own: a registry that does not answer delays only its own."""
        revision = self._sources.revision(key)
        if revision is None or (key in self._images and self._images[key].resolved):
            return None
        config = self._sources.config().deployment
        images = await resolve_digests(revision, resolver=self._resolver, config=config, client=self._client)
        current = self._sources.revision(key)
        if current is None or current.metadata.uid != revision.metadata.uid:
            return None  # it went meanwhile; its own event is next
        self._images[key] = images
        self.queue.add(key)
        if not images.error:
            return None
        failures = self._digest_failures[key] = self._digest_failures.get(key, 0) + 1
        return min(_DIGEST_RETRY_FIRST_SECONDS * 2.0 ** min(failures, 10), _DIGEST_RETRY_CAP_SECONDS)

    def _log_url(self, revision: Revision) -> str:
        template = self._sources.config().observability.revision_url_template
        return template.replace("${REVISION_UID}", revision.metadata.uid)

    def _with_digests(self, key: str) -> Revision | None:
        """The Revision as pods are made of it: with the digests, which its stored status may not show yet."""
        revision, images = self._sources.revision(key), self._images.get(key)
        if revision is None or images is None:
            return revision
        status = msgspec.structs.replace(
            revision.status,
            container_statuses=images.containers,
            init_container_statuses=images.init_containers,
        )
        return msgspec.structs.replace(revision, status=status)

    def _take_on(self, key: str, revision: Revision) -> None:
        status = revision.status
        active = find_condition(status.conditions, "Active")
        resources = find_condition(status.conditions, "ResourcesAvailable")
        initialized = was_initialized(resources, active)
        self.autoscaler.ensure(
            key,
            self._parameters(revision),
            replicas=status.desired_replicas,
            initialized=initialized,
            active=active if active is not None and active.status != "Unknown" else None,
        )

    def _parameters(self, revision: Revision) -> ScalingParameters:
        config, key = self._sources.config(), revision.metadata.key
        known = self._cached.get(key)
        if known is not None and known[0] is revision and known[1] is config:
            return known[2]
        made = parameters_of(
            revision.metadata.annotations,
            container_concurrency=revision.view().container_concurrency or 0,
            config=config.autoscaler,
            progress_deadline=config.deployment.progress_deadline,
        )
        self._cached[key] = (revision, config, made)
        return made

    def _progress_deadline(self, key: str) -> float:
        revision = self._sources.revision(key)
        config = self._sources.config().deployment
        return config.progress_deadline if revision is None else self._parameters(revision).progress_deadline

    def _scale(self, key: str, revision: Revision) -> Scale | None:
        decision = self.autoscaler.decision(key)
        if decision is None:
            return None
        activity = decision.activity
        counts = self._observe(key).pods
        before = revision.status.desired_replicas
        desired = decision.want if decision.want >= 0 else decision.desired if before is None else before
        return Scale(
            desired=desired,
            actual=counts.ready,
            active=Condition(
                type="Active", status=activity.status, reason=activity.reason, message=activity.message
            ),
            initialized=decision.initialized,
        )

    def _deadline(self, key: str, revision: Revision, now: float) -> tuple[bool, float | None]:
        """(exceeded, seconds until it will be) for a Revision that never had its initial scale."""
        decision = self.autoscaler.decision(key)
        if decision is None or decision.initialized or revision.metadata.creation_timestamp is None:
            return False, None
        deadline = progress_began(revision) + self._parameters(revision).progress_deadline
        return now >= deadline, max(deadline - now, 0.1) if now < deadline else None
