"""Conditions of a Revision in each state, with Knative's reasons."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from serving.api import timestamps
from serving.api.meta import Condition, JsonObject, find_condition
from serving.api.pod import Pod
from serving.api.v1 import ContainerImageStatus, Revision, RevisionStatus
from serving.controller.revision import (
    Images,
    Refusal,
    Scale,
    progress_began,
    reconcile_revision,
    refuse_revision,
    was_initialized,
)
from serving.controller.writes import Patch

NOW = "2026-01-01T00:00:00Z"
IMAGES = Images(containers=(ContainerImageStatus(name="user-container"),))
ACTIVE = Condition(type="Active", status="True")
QUEUED = Condition(type="Active", status="Unknown", reason="Queued", message="buffered")
IDLE = Condition(type="Active", status="False", reason="NoTraffic", message="no traffic")
GAVE_UP = Condition(type="Active", status="False", reason="TimedOut", message="The target could not be activated.")


def pod(*, ready: bool = False, **container: JsonObject) -> Pod:
    status = {
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "containerStatuses": [{"name": "user-container", **container}],
    }
    return msgspec.convert({"metadata": {"name": "p"}, "status": status}, Pod)


def waiting(reason: str, message: str = "") -> JsonObject:
    return {"waiting": {"reason": reason, "message": message}}


def exited(code: int, **more: str) -> JsonObject:
    return {"terminated": {"exitCode": code, **more}}


def scale(active: Condition, *, initialized: bool, desired: int = 1, actual: int = 0) -> Scale:
    return Scale(desired=desired, actual=actual, active=active, initialized=initialized)


def after(revision: Revision, **seen: Any) -> Revision:
    """The Revision with the status that is written for what is seen."""
    facts: dict[str, Any] = {"images": IMAGES, "pods": [], "scale": None, "refusal": None}
    writes = reconcile_revision(revision, **(facts | {"deadline_exceeded": False} | seen), now=NOW)
    body = msgspec.to_builtins(revision.status)
    for write in writes:
        assert isinstance(write, Patch)
        body |= write.patch["status"]
    return msgspec.structs.replace(revision, status=msgspec.convert(body, RevisionStatus))


def conditions(revision: Revision) -> dict[str, tuple[str, str]]:
    return {found.type: (found.status, found.reason) for found in revision.status.conditions}


NO_ROOM = Refusal(reason="Unschedulable", message="0/1 nodes are available: 1 Too many pods.")
QUOTA = Refusal(reason="FailedCreate", message="exceeded quota")
DEPLOYING = ("Unknown", "Deploying")
TRUE = ("True", "")

STATES: dict[str, tuple[dict[str, Any], dict[str, tuple[str, str]]]] = {
    "digests pending": (
        {"images": Images()},
        {"ResourcesAvailable": ("Unknown", "ResolvingDigests"), "Ready": ("Unknown", "ResolvingDigests")},
    ),
    "image missing": (
        {"images": Images(error="Unable to fetch image")},
        {"ContainerHealthy": ("False", "ContainerMissing"), "Ready": ("False", "ContainerMissing")},
    ),
    "deploying": (
        {"scale": scale(QUEUED, initialized=False)},
        {"ResourcesAvailable": DEPLOYING, "ContainerHealthy": DEPLOYING, "Active": ("Unknown", "Queued")},
    ),
    "ready": (
        {"pods": [pod(ready=True)], "scale": scale(ACTIVE, initialized=True, actual=1)},
        {"ResourcesAvailable": TRUE, "ContainerHealthy": TRUE, "Active": TRUE, "Ready": TRUE},
    ),
    "one of three initial pods": (
        {"pods": [pod(ready=True)], "scale": scale(QUEUED, initialized=False, desired=3, actual=1)},
        {"ResourcesAvailable": DEPLOYING, "ContainerHealthy": TRUE, "Ready": DEPLOYING},
    ),
    "initial scale zero": (
        {"scale": scale(IDLE, initialized=True, desired=0)},
        {"Active": ("False", "NoTraffic"), "Ready": TRUE},
    ),
    "crashing": (
        {"pods": [pod(lastState=exited(3, message="boom"))], "scale": scale(QUEUED, initialized=False)},
        {"ContainerHealthy": ("False", "ExitCode3"), "Ready": ("False", "ExitCode3")},
    ),
    "another pod crashes beside a ready one": (
        {
            "pods": [pod(lastState=exited(3)), pod(ready=True)],
            "scale": scale(ACTIVE, initialized=True, desired=2, actual=1),
        },
        {"ContainerHealthy": TRUE, "Ready": TRUE},
    ),
    "image cannot be pulled, before the deadline": (
        {"pods": [pod(state=waiting("ImagePullBackOff"))], "scale": scale(QUEUED, initialized=False)},
        {"ResourcesAvailable": DEPLOYING, "Ready": DEPLOYING},
    ),
    "image cannot be pulled, after the deadline": (
        {
            "pods": [pod(state=waiting("ImagePullBackOff"))],
            "scale": scale(QUEUED, initialized=False),
            "deadline_exceeded": True,
        },
        {"ResourcesAvailable": ("False", "ImagePullBackOff"), "Ready": ("False", "ImagePullBackOff")},
    ),
    "never ready, after the deadline": (
        {"pods": [pod()], "scale": scale(QUEUED, initialized=False), "deadline_exceeded": True},
        {"ResourcesAvailable": ("False", "ProgressDeadlineExceeded")},
    ),
    "no room at all": (
        {"scale": scale(QUEUED, initialized=False), "refusal": NO_ROOM},
        {"ResourcesAvailable": ("False", "Unschedulable"), "Ready": ("False", "Unschedulable")},
    ),
    "no room for more": (
        {"pods": [pod(ready=True)], "scale": scale(ACTIVE, initialized=True, desired=9), "refusal": NO_ROOM},
        {"ResourcesAvailable": TRUE, "Ready": TRUE},
    ),
    "no quota for more": (
        {"pods": [pod(ready=True)], "scale": scale(ACTIVE, initialized=True, desired=9), "refusal": QUOTA},
        {"ResourcesAvailable": ("False", "FailedCreate"), "Ready": ("False", "FailedCreate")},
    ),
}


@pytest.mark.parametrize(("seen", "expected"), STATES.values(), ids=STATES.keys())
def test_conditions(seen: dict[str, Any], expected: dict[str, tuple[str, str]]) -> None:
    found = conditions(after(Revision(), **seen))
    assert {kind: found[kind] for kind in expected} == expected


@pytest.mark.parametrize(("seen", "expected"), STATES.values(), ids=STATES.keys())
def test_the_same_again_writes_nothing(seen: dict[str, Any], expected: object) -> None:
    once = after(Revision(), **seen)
    assert after(once, **seen) == once
    facts: dict[str, Any] = {"images": IMAGES, "pods": [], "scale": None, "refusal": None}
    assert reconcile_revision(once, **(facts | {"deadline_exceeded": False} | seen), now="later") == []


def test_scaled_to_zero_stays_ready_and_so_does_the_way_back() -> None:
    ready = after(Revision(), pods=[pod(ready=True)], scale=scale(ACTIVE, initialized=True, actual=1))
    idle = after(ready, scale=scale(IDLE, initialized=True, desired=0))
    waking = after(idle, pods=[pod()], scale=scale(QUEUED, initialized=True))
    for revision in (idle, waking):
        assert conditions(revision)["Ready"] == TRUE
    assert conditions(idle)["Active"] == ("False", "NoTraffic")
    assert conditions(waking)["Active"] == ("Unknown", "Queued")
    assert (idle.status.desired_replicas, idle.status.actual_replicas) == (0, 0)


def test_the_reason_stays_when_the_pods_are_given_up() -> None:
    pulling = [pod(state=waiting("ImagePullBackOff", "no such image"))]
    late = after(Revision(), pods=pulling, scale=scale(QUEUED, initialized=False), deadline_exceeded=True)
    given_up = after(late, scale=scale(GAVE_UP, initialized=False, desired=0), deadline_exceeded=True)
    assert conditions(given_up)["ResourcesAvailable"] == ("False", "ImagePullBackOff")
    assert conditions(given_up)["Active"] == ("False", "TimedOut")


def test_a_spec_that_makes_no_pod_is_told_once() -> None:
    (write,) = refuse_revision(Revision(), message="spec cannot be used: x", now=NOW)
    assert isinstance(write, Patch)
    status = msgspec.convert(write.patch["status"], RevisionStatus)
    ready = find_condition(status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason, ready.message) == ("False", "InvalidSpec", "spec cannot be used: x")
    assert refuse_revision(Revision(status=status), message="spec cannot be used: x", now="later") == []


AVAILABLE = Condition(type="ResourcesAvailable", status="True")
REFUSED = Condition(type="ResourcesAvailable", status="False", reason="FailedCreate")


@pytest.mark.parametrize(
    ("resources", "active", "expected"),
    [
        (None, None, False),
        (AVAILABLE, QUEUED, True),
        (REFUSED, ACTIVE, True),
        (REFUSED, IDLE, True),
        (REFUSED, QUEUED, False),
        (REFUSED, GAVE_UP, False),
    ],
)
def test_initialised_before_a_restart(
    resources: Condition | None, active: Condition | None, expected: bool
) -> None:
    assert was_initialized(resources, active) is expected


@pytest.mark.parametrize("always", [False, True])
def test_a_pod_without_room_is_a_failure_unless_room_comes_always(*, always: bool) -> None:
    body = {
        "metadata": {"name": "p"},
        "status": {
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
            ]
        },
    }
    stuck = {"pods": [msgspec.convert(body, Pod)], "scale": scale(QUEUED, initialized=False)}
    refused = {"pods": [], "scale": stuck["scale"], "refusal": Refusal(reason="Unschedulable", message="no room")}
    for seen in (stuck, refused):
        found = after(Revision(), **seen, always_schedulable=always)
        resources = find_condition(found.status.conditions, "ResourcesAvailable")
        assert resources is not None
        expected = ("Unknown", "Deploying", "") if always else ("False", "Unschedulable", "no room")
        assert (resources.status, resources.reason, resources.message) == expected


def test_the_progress_deadline_counts_from_the_first_pods() -> None:
    made = msgspec.convert({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}, Revision)
    assert progress_began(made) == timestamps.parse("2026-01-01T00:00:00Z")
    for reason, status, expected in (
        ("ResolvingDigests", "Unknown", "2026-01-01T00:00:00Z"),
        ("Deploying", "Unknown", "2026-01-01T00:05:00Z"),
        ("ProgressDeadlineExceeded", "False", "2026-01-01T00:00:00Z"),
    ):
        condition = Condition(
            type="ResourcesAvailable",
            status=status,
            reason=reason,
            last_transition_time="2026-01-01T00:05:00Z",
        )
        there = msgspec.structs.replace(made, status=RevisionStatus(conditions=(condition,)))
        assert progress_began(there) == timestamps.parse(expected)


def test_the_log_url_comes_and_goes() -> None:
    found = after(Revision(), log_url="http://logs.test/uid")
    assert found.status.log_url == "http://logs.test/uid"
