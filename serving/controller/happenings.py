"""What a status write makes of an object, as the reasons and messages of Events. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from serving.api.meta import Condition, find_condition
from serving.api.v1 import Configuration, Revision
from serving.controller.writes import Patch, Write


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    message: str
    warning: bool = False


def of_configuration(before: Configuration, writes: Iterable[Write]) -> list[Happening]:
    """The first readiness, a new latest ready Revision, and each failure of the latest."""
    status = _written(writes)
    found = []
    name = status.get("latestReadyRevisionName")
    if name and not before.status.latest_ready_revision_name:
        found.append(Happening(reason="ConfigurationReady", message="Configuration becomes ready"))
    if name:
        found.append(Happening(reason="LatestReadyUpdate", message=f'LatestReadyRevisionName updated to "{name}"'))
    old, new = find_condition(before.status.conditions, "Ready"), _ready(status)
    if new is not None and new.status == "False" and new != old and new.reason == "RevisionFailed":
        latest = status.get("latestCreatedRevisionName") or before.status.latest_created_revision_name
        ready = latest == before.status.latest_ready_revision_name
        which, word = ("Ready", "ready") if ready else ("Created", "created")
        text = f'Latest {word} revision "{latest}" has failed'
        found.append(Happening(reason=f"Latest{which}Failed", message=text, warning=True))
    return found


def of_revision(before: Revision, writes: Iterable[Write]) -> list[Happening]:
    ready = _ready(_written(writes))
    if ready is None or ready.status != "True" or before.ready:
        return []
    return [Happening(reason="RevisionReady", message="Revision becomes ready upon all resources being ready")]


def _written(writes: Iterable[Write]) -> dict[str, object]:
    for write in writes:
        if isinstance(write, Patch) and write.subresource == "status":
            status: dict[str, object] = write.patch["status"]
            return status
    return {}


def _ready(status: dict[str, object]) -> Condition | None:
    """`Ready` as it is written, or None when conditions stay as they are."""
    return find_condition(msgspec.convert(status.get("conditions", ()), tuple[Condition, ...]), "Ready")
