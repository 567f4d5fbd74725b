"""CustomResourceDefinition objects: defaults, rules, and the status that says that they are served."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.deletion import CRD_CLEANUP
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.meta import timestamp

_SCOPES: Final = ("Cluster", "Namespaced")


def default_crd(crd: JsonObject) -> None:
    """In place."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return
    spec.setdefault("conversion", {"strategy": "None"})
    names = spec.get("names")
    if isinstance(names, dict) and isinstance(names.get("kind"), str):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")
    finalizers = crd["metadata"].setdefault("finalizers", [])
    if CRD_CLEANUP not in finalizers and "deletionTimestamp" not in crd["metadata"]:
        finalizers.append(CRD_CLEANUP)


def crd_causes(crd: JsonObject) -> list[Cause]:
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return [errors.required("spec")]
    causes: list[Cause] = []
    names = spec.get("names") or {}
    causes += [errors.required(f"spec.names.{field}") for field in ("plural", "kind") if not names.get(field)]
    if not spec.get("group"):
        causes.append(errors.required("spec.group"))
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if not causes and crd["metadata"].get("name") != wanted:
        detail = f'must be spec.names.plural+"."+spec.group, which is {wanted}'
        causes.append(errors.invalid_value("metadata.name", crd["metadata"].get("name"), detail))
    if spec.get("scope") not in _SCOPES:
        causes.append(errors.not_supported("spec.scope", spec.get("scope") or "", _SCOPES))
    causes += _version_causes(spec.get("versions") or [])
    strategy = (spec.get("conversion") or {}).get("strategy")
    if strategy != "None":
        causes.append(errors.not_supported("spec.conversion.strategy", strategy, ("None",)))
    return causes


def _version_causes(versions: list[JsonObject]) -> list[Cause]:
    causes: list[Cause] = []
    if sum(1 for version in versions if version.get("storage")) != 1:
        detail = "must have exactly one version marked as storage version"
        shown = [version.get("name") for version in versions]
        causes.append(errors.invalid_value("spec.versions", shown, detail))
    for index, version in enumerate(versions):
        if not version.get("name"):
            causes.append(errors.required(f"spec.versions[{index}].name"))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not isinstance(schema, dict):
            causes.append(
                errors.required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required")
            )
        elif schema.get("type") != "object":
            field = f"spec.versions[{index}].schema.openAPIV3Schema.type"
            causes.append(errors.invalid_value(field, schema.get("type") or "", "must be object at the root"))
    return causes


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
