"""The status of a pod as the kubelet would report it, from its record.

Times of transitions and the start time are kept from the status that the API server holds, so the same record
gives the same status after a restart of the agent.
"""

from __future__ import annotations

from typing import Final

import msgspec

from serving.api.meta import Condition, JsonObject, find_condition
from serving.api.pod import (
    ContainerState,
    ContainerStatus,
    Pod,
    PodStatus,
    StateRunning,
    StateTerminated,
    StateWaiting,
)
from serving.api.timestamps import format_seconds
from serving.local.node.backoff import crash_message
from serving.local.node.state import Blocked, ContainerRecord, Exit, Phase, PodRecord, SandboxPhase, lost

OWN_CONDITIONS: Final = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
)
BACK_OFF_SHOWN_AFTER_SECONDS: Final = 1.0
"""Seconds for which a failed pull shows its own reason before it shows the back-off."""


def pod_phase(pod: Pod, record: PodRecord) -> str:
    """Pending, Running, Succeeded or Failed. The last two are final: a pod never leaves them."""
    if pod.finished:
        return pod.status.phase
    if record.rejected:
        return "Failed"
    apps = [c for c in record.containers.values() if not c.init]
    inits = [c for c in record.containers.values() if c.init]
    stopping = record.deleted_at is not None
    failed_init = any(c.phase is Phase.EXITED and not c.completed for c in inits)
    if failed_init and (pod.spec.restart_policy == "Never" or (stopping and _all_down(record))):
        return "Failed"
    if any(c.attempt < 0 for c in apps) or not all(c.completed for c in inits):
        return "Failed" if stopping and _all_down(record) else "Pending"
    if any(c.phase is not Phase.EXITED for c in apps):
        return "Running"
    succeeded = all(c.completed for c in apps)
    if stopping:
        return "Succeeded" if succeeded else "Failed"
    if pod.spec.restart_policy == "Always":
        return "Running"
    if succeeded:
        return "Succeeded"
    return "Failed" if pod.spec.restart_policy == "Never" else "Running"


def pod_status(pod: Pod, record: PodRecord, now: float) -> PodStatus:
    """What `status` should be at `now` (Unix seconds), other writers' conditions included."""
    phase = pod_phase(pod, record)
    old = pod.status
    if pod.finished:
        return old
    if record.rejected:
        reason, message = record.rejected
        return PodStatus(
            phase="Failed",
            reason=reason,
            message=message,
            host_ip=record.host_ip or old.host_ip,
            start_time=old.start_time or format_seconds(record.seen_at),
            conditions=old.conditions,
            init_container_statuses=_last_statuses(pod, record, now, init=True),
            container_statuses=_last_statuses(pod, record, now, init=False),
        )
    statuses = {c.name: _container_status(pod, record, c, now) for c in record.containers.values()}
    address = record.address
    return PodStatus(
        phase=phase,
        reason=old.reason,
        message=old.message,
        host_ip=record.host_ip or old.host_ip,
        pod_ip=address.ip if address else old.pod_ip,
        start_time=old.start_time or format_seconds(record.seen_at),
        conditions=_conditions(pod, record, phase, statuses, now),
        init_container_statuses=tuple(statuses[c.name] for c in record.containers.values() if c.init),
        container_statuses=tuple(statuses[c.name] for c in record.containers.values() if not c.init),
    )


def pod_ref(pod: Pod) -> str:
    """`name_namespace(uid)`, as messages name a pod."""
    return f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"


def _last_statuses(pod: Pod, record: PodRecord, now: float, *, init: bool) -> tuple[ContainerStatus, ...]:
    """Of a pod that is refused: none, or of one that is ended: what runs is as good as killed."""
    containers = [c for c in record.containers.values() if c.init is init]
    if all(c.attempt < 0 for c in record.containers.values()):
        return ()
    ended = [lost(c, at=now) if c.phase is Phase.RUNNING else c for c in containers]
    final = msgspec.structs.replace(record, vanished=True)  # nothing will be restarted
    return tuple(_container_status(pod, final, c, now) for c in ended)


def container_id(pod: Pod, name: str, attempt: int) -> str:
    """Of one attempt, unique on this machine; empty when there was none."""
    return f"nodeless://{pod.metadata.uid}-{name}-{attempt}" if attempt >= 0 else ""


def _all_down(record: PodRecord) -> bool:
    return not any(c.phase in (Phase.RUNNING, Phase.STARTING) for c in record.containers.values())


def _container_status(pod: Pod, record: PodRecord, container: ContainerRecord, now: float) -> ContainerStatus:
    state, last = _states(pod, record, container, now)
    running = container.phase is Phase.RUNNING
    return ContainerStatus(
        name=container.name,
        state=state,
        last_state=last,
        ready=container.completed if container.init else running and container.ready,
        started=running and container.started if not container.init else running,
        restart_count=max(container.attempt, 0),
        image=container.image,
        image_id=container.image_id,
        container_id=container_id(pod, container.name, container.attempt),
    )


def _states(
    pod: Pod, record: PodRecord, container: ContainerRecord, now: float
) -> tuple[ContainerState, ContainerState]:
    """`state` and `lastState`."""
    previous = _terminated(container.previous)
    if container.phase is Phase.RUNNING:
        return ContainerState(running=StateRunning(started_at=format_seconds(container.started_at))), previous
    ended = container.exit
    restarts = ended is not None and _will_restart(pod, record, container)
    if ended is not None and not restarts:
        return _terminated(ended), previous
    waiting = _waiting(pod, record, container, now)
    if ended is None:
        return ContainerState(waiting=waiting), previous
    if container.phase is Phase.STARTING and waiting.reason == "ContainerCreating":
        return _terminated(ended), previous  # the restart is under way: nothing to say in between
    return ContainerState(waiting=waiting), _terminated(ended)


def _will_restart(pod: Pod, record: PodRecord, container: ContainerRecord) -> bool:
    if record.deleted_at is not None or record.vanished or pod.finished:
        return False
    assert container.exit is not None  # noqa: S101 - narrowed by the caller
    failed = container.exit.exit_code != 0
    if container.init:
        return failed and pod.spec.restart_policy != "Never"
    return pod.spec.restart_policy == "Always" or (pod.spec.restart_policy == "OnFailure" and failed)


def _waiting(pod: Pod, record: PodRecord, container: ContainerRecord, now: float) -> StateWaiting:
    if container.blocked is not None:
        return _blocked(container.blocked, container.image, now)
    if container.exit is not None and container.phase is Phase.EXITED:
        restart_at = container.backoff.restart_at(container.exit.finished_at)
        if now < restart_at:
            delay = restart_at - container.exit.finished_at
            message = crash_message(delay, container=container.name, pod=pod_ref(pod))
            return StateWaiting(reason="CrashLoopBackOff", message=message)
    inits = [c for c in record.containers.values() if c.init]
    if inits and not all(c.completed for c in inits):
        return StateWaiting(reason="PodInitializing")
    return StateWaiting(reason="ContainerCreating" if not inits or container.init else "PodInitializing")


def _blocked(blocked: Blocked, image: str, now: float) -> StateWaiting:
    repeated = blocked.tries > 1 or now >= blocked.since + BACK_OFF_SHOWN_AFTER_SECONDS
    if blocked.reason in ("ErrImagePull", "ImageInspectError") and repeated:
        message = f'Back-off pulling image "{image}": {blocked.reason}: {blocked.message}'
        return StateWaiting(reason="ImagePullBackOff", message=message)
    return StateWaiting(reason=blocked.reason, message=blocked.message)


def _terminated(ended: Exit | None) -> ContainerState:
    if ended is None:
        return ContainerState()
    return ContainerState(
        terminated=StateTerminated(
            exit_code=ended.exit_code,
            signal=ended.signal,
            reason=ended.reason,
            message=ended.message,
            started_at=format_seconds(ended.started_at),
            finished_at=format_seconds(ended.finished_at),
        )
    )


def _conditions(
    pod: Pod, record: PodRecord, phase: str, statuses: dict[str, ContainerStatus], now: float
) -> tuple[Condition, ...]:
    inits = [c.name for c in record.containers.values() if c.init]
    apps = [c.name for c in record.containers.values() if not c.init]
    up = record.sandbox is SandboxPhase.UP
    wanted = {
        "PodReadyToStartContainers": ("True" if up else "False", "", ""),
        "Initialized": _initialized(phase, inits, statuses),
        "Ready": _all_ready(phase, apps, statuses),
        "ContainersReady": _all_ready(phase, apps, statuses),
        "PodScheduled": ("True", "", ""),
    }
    own = tuple(_condition(pod, kind, *wanted[kind], now) for kind in OWN_CONDITIONS)
    return own + tuple(c for c in pod.status.conditions if c.type not in OWN_CONDITIONS)


def _condition(pod: Pod, kind: str, status: str, reason: str, message: str, now: float) -> Condition:
    old = find_condition(pod.status.conditions, kind)
    kept = old is not None and old.status == status
    since = old.last_transition_time if old is not None and kept else format_seconds(now)
    return Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=since)


def _initialized(phase: str, inits: list[str], statuses: dict[str, ContainerStatus]) -> tuple[str, str, str]:
    if phase == "Succeeded":
        return "True", "PodCompleted", ""
    pending = [name for name in inits if not statuses[name].ready]
    if pending:
        return "False", "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(pending)}]"
    return "True", "", ""


def _all_ready(phase: str, apps: list[str], statuses: dict[str, ContainerStatus]) -> tuple[str, str, str]:
    if phase == "Succeeded":
        return "False", "PodCompleted", ""
    if phase == "Failed":
        return "False", "PodFailed", ""
    unready = [name for name in apps if not statuses[name].ready]
    if unready:
        return "False", "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return "True", "", ""


def status_patch(old: PodStatus, new: PodStatus) -> JsonObject:
    """Merge patch of `status` from `old` to `new`; empty when they agree."""
    patch: JsonObject = {}
    for field, key in (
        ("phase", "phase"),
        ("reason", "reason"),
        ("message", "message"),
        ("host_ip", "hostIP"),
        ("pod_ip", "podIP"),
        ("start_time", "startTime"),
    ):
        if getattr(old, field) != getattr(new, field):
            patch[key] = getattr(new, field) or None
    if "hostIP" in patch:
        patch["hostIPs"] = [{"ip": new.host_ip}] if new.host_ip else None
    if "podIP" in patch:
        patch["podIPs"] = [{"ip": new.pod_ip}] if new.pod_ip else None
    if old.conditions != new.conditions:
        patch["conditions"] = [_condition_json(condition) for condition in new.conditions]
    if old.container_statuses != new.container_statuses:
        patch["containerStatuses"] = [_status_json(status) for status in new.container_statuses]
    if old.init_container_statuses != new.init_container_statuses:
        patch["initContainerStatuses"] = [_status_json(status) for status in new.init_container_statuses]
    return patch


def _condition_json(condition: Condition) -> JsonObject:
    out: JsonObject = {"type": condition.type, "status": condition.status}
    if condition.reason:
        out["reason"] = condition.reason
    if condition.message:
        out["message"] = condition.message
    return out | {"lastProbeTime": None, "lastTransitionTime": condition.last_transition_time}


def _status_json(status: ContainerStatus) -> JsonObject:
    return {
        "name": status.name,
        "state": _state_json(status.state),
        "lastState": _state_json(status.last_state),
        "ready": status.ready,
        "started": status.started,
        "restartCount": status.restart_count,
        "image": status.image,
        "imageID": status.image_id,
    } | ({"containerID": status.container_id} if status.container_id else {})


def _state_json(state: ContainerState) -> JsonObject:
    if state.waiting is not None:
        waiting = {"reason": state.waiting.reason, "message": state.waiting.message}
        return {"waiting": {key: value for key, value in waiting.items() if value}}
    if state.running is not None:
        return {"running": {"startedAt": state.running.started_at}}
    if state.terminated is None:
        return {}
    ended = state.terminated
    out: JsonObject = {"exitCode": ended.exit_code, "reason": ended.reason}
    if ended.signal:
        out["signal"] = ended.signal
    if ended.message:
        out["message"] = ended.message
    return {"terminated": out | {"startedAt": ended.started_at, "finishedAt": ended.finished_at}}
