"""Status of a Revision: what its images, pods and autoscaler say, in Knative's words.

There is no Deployment in between, so the conditions that upstream copies from one are derived from the pods
themselves, with the same reasons.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from serving.api import keys, timestamps
from serving.api.conditions import Conditions, ConditionSet
from serving.api.meta import Condition, find_condition
from serving.api.pod import ContainerStatus, Pod, StateTerminated
from serving.api.resources import REVISIONS
from serving.api.v1 import Configuration, ContainerImageStatus, Revision, Route
from serving.autoscaler.scaling import NO_TRAFFIC
from serving.controller.writes import Patch, Write, status_patch
from serving.pool.placement import UNSCHEDULABLE

CONDITIONS = ConditionSet(dependents=("ContainerHealthy", "ResourcesAvailable"))


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """Digest resolution: `containers` and `init_containers` in spec order, or `error`, or neither yet."""

    containers: tuple[ContainerImageStatus, ...] = ()
    init_containers: tuple[ContainerImageStatus, ...] = ()
    error: str = ""

    @property
    def resolved(self) -> bool:
        return bool(self.containers) and not self.error


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """What the autoscaler says of a Revision. `active` has type `Active`."""

    desired: int
    actual: int
    active: Condition
    initialized: bool


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why the pool could not create pods (quota, no capacity)."""

    reason: str
    message: str


def reconcile_revision(
    revision: Revision,
    *,
    images: Images,
    pods: Collection[Pod],
    scale: Scale | None,
    refusal: Refusal | None,
    deadline_exceeded: bool,
    now: str,
    log_url: str = "",
    always_schedulable: bool = False,
) -> list[Write]:
    """The status write that is due, if any. `deadline_exceeded`: never ready within the progress deadline.

    `always_schedulable`: something makes room for every pod sooner or later, so to have none yet is no failure.
    """
    conditions = CONDITIONS.initialise(revision.status.conditions, now=now)
    status = msgspec.structs.replace(
        revision.status, observed_generation=revision.metadata.generation, log_url=log_url
    )
    if images.error:
        conditions = CONDITIONS.mark_false(
            conditions, "ContainerHealthy", reason="ContainerMissing", message=images.error, now=now
        )
    elif not images.resolved:
        conditions = CONDITIONS.mark_unknown(conditions, "ResourcesAvailable", reason="ResolvingDigests", now=now)
    else:
        status = msgspec.structs.replace(
            status,
            container_statuses=images.containers,
            init_container_statuses=images.init_containers,
        )
        if always_schedulable and refusal is not None and refusal.reason == UNSCHEDULABLE:
            refusal = None
        live = [pod for pod in pods if pod.metadata.deletion_timestamp is None]
        stuck = refusal or (None if always_schedulable else _unschedulable(live))
        conditions = _from_pods(conditions, live, scale, stuck, deadline_exceeded, now)
    if scale is not None:
        status = msgspec.structs.replace(status, desired_replicas=scale.desired, actual_replicas=scale.actual)
        conditions = CONDITIONS.mark(conditions, "Active", scale.active, now=now)
    else:
        conditions = CONDITIONS.mark_unknown(conditions, "Active", reason="Deploying", now=now)
    new = msgspec.structs.replace(status, conditions=conditions)
    patch = status_patch(REVISIONS, revision.metadata, old=revision.status, new=new)
    return [patch] if patch else []


def refuse_revision(revision: Revision, *, message: str, now: str) -> list[Write]:
    """The status of a Revision that no pod can be made of. Only a new Revision can mend that."""
    conditions = CONDITIONS.initialise(revision.status.conditions, now=now)
    conditions = CONDITIONS.mark_false(
        conditions, "ResourcesAvailable", reason="InvalidSpec", message=message, now=now
    )
    status = msgspec.structs.replace(
        revision.status, observed_generation=revision.metadata.generation, conditions=conditions
    )
    patch = status_patch(REVISIONS, revision.metadata, old=revision.status, new=status)
    return [patch] if patch else []


def progress_began(revision: Revision) -> float:
    """Unix time from which the progress deadline counts: since pods are made, not while images are looked up.

    That is when `ResourcesAvailable` became `Deploying`; before, and for a failure that stands, the creation.
    """
    resources = find_condition(revision.status.conditions, "ResourcesAvailable")
    began = revision.metadata.creation_timestamp
    if resources is not None and resources.status == "Unknown" and resources.reason == "Deploying":
        began = resources.last_transition_time or began
    return timestamps.parse(began) if began else 0.0


def was_initialized(resources: Condition | None, active: Condition | None) -> bool:
    """Whether the initial scale was reached once, from the stored ResourcesAvailable and Active conditions.

    A Revision that was refused more pods later on has ResourcesAvailable False, and yet was initialised.
    """
    if resources is not None and resources.status == "True":
        return True
    return active is not None and (active.status == "True" or active.reason == NO_TRAFFIC[0])


def _from_pods(
    conditions: Conditions,
    live: list[Pod],
    scale: Scale | None,
    refusal: Refusal | None,
    deadline_exceeded: bool,
    now: str,
) -> Conditions:
    """Upstream's order: resources first, then containers; a container's failure beats a mere delay."""
    if any(pod.ready for pod in live) or (scale is not None and scale.initialized and not live):
        conditions = CONDITIONS.mark_true(conditions, "ContainerHealthy", now=now)
        if refusal is None and scale is not None and scale.initialized:
            return CONDITIONS.mark_true(conditions, "ResourcesAvailable", now=now)
    if terminated := _crash(live):
        conditions = CONDITIONS.mark_false(
            conditions,
            "ContainerHealthy",
            reason=f"ExitCode{terminated.exit_code}",
            message="Container failed with: " + _exit_message(terminated),
            now=now,
        )
    elif _status(conditions, "ContainerHealthy") != "True":
        conditions = CONDITIONS.mark_unknown(conditions, "ContainerHealthy", reason="Deploying", now=now)
    if any(pod.ready for pod in live) and refusal is not None and refusal.reason == UNSCHEDULABLE:
        refusal = None  # as upstream: no room for more is a failure only while nothing is available
    problem = refusal
    if problem is None and deadline_exceeded:
        if not live and _status(conditions, "ResourcesAvailable") == "False":
            return conditions  # the pods were given up and took their better reason with them
        problem = _timed_out(live)
    if problem is not None:
        return CONDITIONS.mark_false(
            conditions, "ResourcesAvailable", reason=problem.reason, message=problem.message, now=now
        )
    if scale is not None and scale.initialized:
        return CONDITIONS.mark_true(conditions, "ResourcesAvailable", now=now)
    return CONDITIONS.mark_unknown(conditions, "ResourcesAvailable", reason="Deploying", now=now)


def _crash(pods: list[Pod]) -> StateTerminated | None:
    if any(pod.ready for pod in pods):
        return None
    for pod in pods:
        for container in (*pod.status.init_container_statuses, *pod.status.container_statuses):
            terminated = container.state.terminated or container.last_state.terminated
            if terminated is not None and not (_is_init(pod, container) and terminated.exit_code == 0):
                return terminated
    return None


def _is_init(pod: Pod, container: ContainerStatus) -> bool:
    return container in pod.status.init_container_statuses


def _exit_message(terminated: StateTerminated) -> str:
    if terminated.message:
        return terminated.message
    return "container exited with no error" if terminated.exit_code == 0 else terminated.reason


def _unschedulable(pods: list[Pod]) -> Refusal | None:
    for pod in () if any(pod.ready for pod in pods) else pods[:1]:
        scheduled = find_condition(pod.status.conditions, "PodScheduled")
        if scheduled is not None and scheduled.status == "False":
            return Refusal(reason=scheduled.reason, message=scheduled.message)
    return None


def _timed_out(pods: list[Pod]) -> Refusal:
    for pod in pods:
        for container in (*pod.status.init_container_statuses, *pod.status.container_statuses):
            if container.state.waiting is not None and container.state.waiting.reason not in (
                "",
                "ContainerCreating",
                "PodInitializing",
                "CrashLoopBackOff",
            ):
                waiting = container.state.waiting
                return Refusal(reason=waiting.reason, message=waiting.message)
    return Refusal(reason="ProgressDeadlineExceeded", message="Initial scale was never achieved")


def _status(conditions: Conditions, kind: str) -> str:
    condition = find_condition(conditions, kind)
    return condition.status if condition is not None else "Unknown"


def reconcile_routing_state(
    revision: Revision,
    *,
    routes: Collection[Route],
    configuration: Configuration | None,
    now: str,
) -> list[Write]:
    """Labels and annotations that say which Routes use a Revision (upstream's labeler).

    `routes` are those of the Revision's namespace. Deleting a Route needs no finalizer: its revisions are
    reconciled again and find it gone.
    """
    users = sorted(route.metadata.name for route in routes if _targets(route, revision, configuration))
    meta = revision.metadata
    old = meta.labels.get(keys.ROUTING_STATE, "")
    if not users and old in ("pending", "active") and not _settled(revision):
        return []  # as it was created: the Route that is to use it may not be here yet
    state = "active" if users else "reserve"
    metadata: dict[str, dict[str, str | None]] = {}
    if old != state:
        metadata["labels"] = {keys.ROUTING_STATE: state}
        metadata["annotations"] = {keys.ROUTING_STATE_MODIFIED: now}
    joined = ",".join(users)
    if meta.annotations.get(keys.ROUTES, "") != joined:
        metadata.setdefault("annotations", {})[keys.ROUTES] = joined or None
    if not metadata:
        return []
    return [
        Patch(
            resource=REVISIONS,
            namespace=meta.namespace,
            name=meta.name,
            patch={"metadata": metadata},
            resource_version=meta.resource_version,
        )
    ]


def _settled(revision: Revision) -> bool:
    """It is known whether the Revision becomes ready."""
    ready = find_condition(revision.status.conditions, "Ready")
    return ready is not None and ready.status != "Unknown"


def _is_latest(revision: Revision, configuration: Configuration) -> bool:
    """Also for the moment between its creation and the Configuration's status that names it."""
    generation = revision.metadata.labels.get(keys.CONFIGURATION_GENERATION)
    return configuration.status.latest_created_revision_name == revision.metadata.name or (
        generation == str(configuration.metadata.generation)
    )


def _targets(route: Route, revision: Revision, configuration: Configuration | None) -> bool:
    if route.metadata.deletion_timestamp is not None:
        return False
    name = revision.metadata.name
    if any(target.revision_name == name for target in (*route.status.traffic, *route.spec.traffic)):
        return True
    latest_created = configuration is not None and _is_latest(revision, configuration)
    owner = revision.metadata.labels.get(keys.CONFIGURATION, "")
    return latest_created and any(target.configuration_name == owner for target in route.spec.traffic)
