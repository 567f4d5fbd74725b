"""CustomResourceDefinition objects: defaults, and the status that says that they are served."""

from __future__ import annotations

from datetime import datetime

from serving.api.meta import JsonObject
from serving.local.apiserver.deletion import CRD_CLEANUP
from serving.local.apiserver.meta import timestamp


def default_crd(crd: JsonObject) -> None:
    """In place."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return
    spec.setdefault("conversion", {"strategy": "None"})
    names = spec.get("names")
    if isinstance(names, dict) and isinstance(names.get("kind"), str) and names["kind"]:
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")


def terminating(crd: JsonObject, now: datetime) -> JsonObject:
    """The definition after a request to delete it: it goes when its last object is gone."""
    metadata = crd["metadata"]
    finalizers = [*(metadata.get("finalizers") or ()), CRD_CLEANUP]
    status = crd.get("status") or {}
    before = {condition["type"]: condition for condition in status.get("conditions") or ()}
    before.pop("Terminating", None)
    going = _condition(
        before,
        "Terminating",
        status="True",
        reason="InstanceDeletionPending",
        message="CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        now=now,
    )
    return {
        **crd,
        "metadata": {**metadata, "finalizers": finalizers, "deletionTimestamp": timestamp(now)},
        "status": {**status, "conditions": [*before.values(), going]},
    }


def crd_status(crd: JsonObject, *, taken: str, now: datetime) -> JsonObject:
    """The status of an accepted or (`taken` says why) refused definition. Times are kept while nothing changes."""
    old = crd.get("status") or {}
    accepted = not taken
    before = {condition["type"]: condition for condition in old.get("conditions") or ()}
    conditions = [
        _condition(
            before,
            "NamesAccepted",
            status="True" if accepted else "False",
            reason="NoConflicts" if accepted else "ListKindConflict" if "List" in taken else "NameConflict",
            message="no conflicts found" if accepted else taken,
            now=now,
        ),
        _condition(
            before,
            "Established",
            status="True" if accepted else "False",
            reason="InitialNamesAccepted" if accepted else "NotAccepted",
            message="the initial names have been accepted" if accepted else "not all names are accepted",
            now=now,
        ),
    ]
    stored = [version["name"] for version in crd["spec"]["versions"] if version.get("storage")]
    kept = [name for name in old.get("storedVersions") or () if name not in stored]
    others = [condition for kind, condition in before.items() if kind not in ("NamesAccepted", "Established")]
    conditions += others
    names = crd["spec"]["names"] if accepted else {"kind": "", "plural": ""}
    return {"acceptedNames": names, "conditions": conditions, "storedVersions": kept + stored}


def _condition(
    before: dict[str, JsonObject], kind: str, *, status: str, reason: str, message: str, now: datetime
) -> JsonObject:
    last = before.get(kind)
    changed = timestamp(now)
    if last is not None and last.get("status") == status:
        changed = last.get("lastTransitionTime") or changed
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": changed,
    }
