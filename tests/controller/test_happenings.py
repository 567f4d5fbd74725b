"""Events by what a status write changes."""

from __future__ import annotations

import msgspec
import pytest

from serving.api.meta import JsonObject
from serving.api.resources import CONFIGURATIONS
from serving.api.v1 import Configuration, Revision
from serving.controller.happenings import of_configuration, of_revision
from serving.controller.writes import Patch


def patch(status: JsonObject) -> Patch:
    return Patch(resource=CONFIGURATIONS, namespace="n", name="c", patch={"status": status}, subresource="status")


def ready(status: str) -> JsonObject:
    reason = "RevisionFailed" if status == "False" else ""
    return {"conditions": [{"type": "Ready", "status": status, "reason": reason}]}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (ready("Unknown"), {}, []),
        (ready("True"), ready("True"), []),
        (
            ready("Unknown"),
            {**ready("True"), "latestReadyRevisionName": "c-1"},
            [
                ("ConfigurationReady", "Configuration becomes ready"),
                ("LatestReadyUpdate", 'LatestReadyRevisionName updated to "c-1"'),
            ],
        ),
        (
            {**ready("Unknown"), "latestReadyRevisionName": "c-1"},
            {**ready("True"), "latestReadyRevisionName": "c-2"},
            [("LatestReadyUpdate", 'LatestReadyRevisionName updated to "c-2"')],
        ),
        (
            {**ready("Unknown"), "latestCreatedRevisionName": "c-2", "latestReadyRevisionName": "c-1"},
            ready("False"),
            [("LatestCreatedFailed", 'Latest created revision "c-2" has failed')],
        ),
        (
            {**ready("True"), "latestCreatedRevisionName": "c-1", "latestReadyRevisionName": "c-1"},
            ready("False"),
            [("LatestReadyFailed", 'Latest ready revision "c-1" has failed')],
        ),
    ],
)
def test_configuration(before: JsonObject, after: JsonObject, expected: list[tuple[str, str]]) -> None:
    found = of_configuration(msgspec.convert({"status": before}, Configuration), [patch(after)])
    assert [(one.reason, one.message) for one in found] == expected


def test_revision() -> None:
    revision = msgspec.convert({"status": ready("Unknown")}, Revision)
    assert [one.reason for one in of_revision(revision, [patch(ready("True"))])] == ["RevisionReady"]
    assert of_revision(revision, [patch(ready("False"))]) == []
    assert of_revision(revision, []) == []
