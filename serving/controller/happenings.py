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
    """Readiness, its loss, and a new latest ready Revision."""
    status = _written(writes)
    found = []
    name = status.get("latestReadyRevisionName")
    if name:
        found.append(Happening(reason="LatestReadyUpdate", message=f'LatestReadyRevisionName updated to "{name}"'))
    match _turned(before.status.conditions, status):
        case "True":
            found.append(Happening(reason="ConfigurationReady", message="Configuration becomes ready"))
        case "False":
            latest = status.get("latestCreatedRevisionName") or before.status.latest_created_revision_name
            ready = latest == before.status.latest_ready_revision_name
            which, word = ("Ready", "ready") if ready else ("Created", "created")
            text = f'Latest {word} revision "{latest}" has failed'
            found.append(Happening(reason=f"Latest{which}Failed", message=text, warning=True))
    return found


def of_revision(before: Revision, writes: Iterable[Write]) -> list[Happening]:
    if _turned(before.status.conditions, _written(writes)) != "True":
        return []
    return [Happening(reason="RevisionReady", message="Revision becomes ready upon all resources being ready")]


def _written(writes: Iterable[Write]) -> dict[str, object]:
    for write in writes:
        if isinstance(write, Patch) and write.subresource == "status":
            status: dict[str, object] = write.patch["status"]
            return status
    return {}


def _turned(before: tuple[Condition, ...], status: dict[str, object]) -> str:
    """The new status of `Ready` when it is another one than before, else an empty string."""
    if "conditions" not in status:
        return ""
    after = find_condition(msgspec.convert(status["conditions"], tuple[Condition, ...]), "Ready")
    old = find_condition(before, "Ready")
    if after is None or (old is not None and old.status == after.status):
        return ""
    return after.status
