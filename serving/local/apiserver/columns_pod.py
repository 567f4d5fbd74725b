"""The cells of a Pod: readiness, the one-word status, restarts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from serving.api.meta import JsonObject
from serving.local.apiserver.durations import age

_NONE = "<none>"


def pod_cells(pod: JsonObject, now: datetime) -> list[Any]:
    """Ready, Status, Restarts, Age; wide: IP, Node, Nominated Node, Readiness Gates."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    statuses = status.get("containerStatuses") or []
    ready = sum(1 for entry in statuses if entry.get("ready") and _running(entry))
    return [
        f"{ready}/{len(spec.get('containers') or ())}",
        pod_status(pod),
        _restarts(status, now),
        age(pod["metadata"].get("creationTimestamp"), now),
        status.get("podIP") or _NONE,
        spec.get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE,
        _gates(spec, status),
    ]


def _running(entry: JsonObject) -> bool:
    return "running" in (entry.get("state") or {})


def _restarts(status: JsonObject, now: datetime) -> str:
    entries = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    if not _initializing(status):
        entries = list(status.get("containerStatuses") or ())
    count = sum(int(entry.get("restartCount") or 0) for entry in entries)
    ends = [((entry.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for entry in entries]
    last = max((end for end in ends if end), default="")
    return f"{count} ({age(last, now)} ago)" if count and last else str(count)


def _initializing(status: JsonObject) -> bool:
    return any(not _init_done(entry) for entry in status.get("initContainerStatuses") or ())


def _init_done(entry: JsonObject) -> bool:
    terminated = (entry.get("state") or {}).get("terminated")
    return terminated is not None and terminated.get("exitCode", 0) == 0


def _gates(spec: JsonObject, status: JsonObject) -> str:
    gates = spec.get("readinessGates") or ()
    if not gates:
        return _NONE
    true = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    return f"{sum(1 for gate in gates if gate.get('conditionType') in true)}/{len(gates)}"


def pod_status(pod: JsonObject) -> str:
    """The word that kubectl shows: the phase, or what is more telling."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    word = str(status.get("reason") or status.get("phase") or "Unknown")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            word = "SchedulingGated"
    initializing = _init_word(spec, status)
    word = initializing or _container_word(status, word)
    if "deletionTimestamp" in pod["metadata"]:
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return word


def _init_word(spec: JsonObject, status: JsonObject) -> str:
    total = len(spec.get("initContainers") or ())
    for index, entry in enumerate(status.get("initContainerStatuses") or ()):
        if _init_done(entry):
            continue
        state = entry.get("state") or {}
        if terminated := state.get("terminated"):
            return "Init:" + _ended(terminated)
        waiting = (state.get("waiting") or {}).get("reason")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{total}"
    return ""


def _container_word(status: JsonObject, word: str) -> str:
    running = False
    for entry in reversed(status.get("containerStatuses") or []):
        state = entry.get("state") or {}
        waiting, terminated = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            word = waiting["reason"]
        elif terminated:
            word = _ended(terminated)
        elif entry.get("ready") and _running(entry):
            running = True
    if word == "Completed" and running:
        ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
        return "Running" if ready else "NotReady"
    return word


def _ended(terminated: JsonObject) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"
