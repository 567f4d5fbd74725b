"""Defaults and rules of Roles, ClusterRoles and their bindings. Pure."""

from __future__ import annotations

from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.access.policy import GROUP
from serving.local.apiserver.errors import Cause

_SUBJECTS: Final = ("ServiceAccount", "User", "Group")


def default_role(obj: JsonObject, _old: JsonObject | None) -> None:
    """In place."""
    if not obj.get("rules"):
        obj["rules"] = None  # as a Go server writes it: a list that nobody made


def default_binding(obj: JsonObject, _old: JsonObject | None) -> None:
    """In place."""
    if not obj.get("subjects"):
        obj.pop("subjects", None)
    for subject in obj.get("subjects") or ():
        if isinstance(subject, dict) and subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = GROUP
    reference = obj.setdefault("roleRef", {})
    if isinstance(reference, dict) and not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP


def role_causes(obj: JsonObject, _old: JsonObject | None) -> list[Cause]:
    namespaced = obj["kind"] == "Role"
    found: list[Cause] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        found += _rule_causes(rule, f"rules[{index}]", namespaced=namespaced)
    aggregation = obj.get("aggregationRule")
    if aggregation is not None and not aggregation.get("clusterRoleSelectors"):
        detail = "at least one clusterRoleSelector required if aggregationRule is non-nil"
        found.append(errors.required("aggregationRule.clusterRoleSelectors", detail))
    return found


def _rule_causes(rule: dict[str, Any], path: str, *, namespaced: bool) -> list[Cause]:
    found: list[Cause] = []
    if not rule.get("verbs"):
        found.append(errors.required(f"{path}.verbs", "verbs must contain at least one value"))
    urls = rule.get("nonResourceURLs")
    if urls:
        field = f"{path}.nonResourceURLs"
        if namespaced:
            detail = "namespaced rules cannot apply to non-resource URLs"
            found.append(errors.invalid_value(field, urls, detail))
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            found.append(errors.invalid_value(field, urls, detail))
        return found
    if not rule.get("apiGroups"):
        found.append(errors.required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        found.append(errors.required(f"{path}.resources", "resource rules must supply at least one resource"))
    return found


def binding_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    namespaced = obj["kind"] == "RoleBinding"
    reference: dict[str, Any] = obj.get("roleRef") or {}
    found: list[Cause] = []
    if reference.get("apiGroup") != GROUP:
        found.append(errors.not_supported("roleRef.apiGroup", reference.get("apiGroup") or "", (GROUP,)))
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    if reference.get("kind") not in kinds:
        found.append(errors.not_supported("roleRef.kind", reference.get("kind") or "", kinds))
    if not reference.get("name"):
        found.append(errors.required("roleRef.name"))
    for index, subject in enumerate(obj.get("subjects") or ()):
        found += _subject_causes(subject, f"subjects[{index}]", namespaced=namespaced)
    if old is not None and (old.get("roleRef") or {}) != reference:
        shown = {name: reference.get(name[0].lower() + name[1:]) or "" for name in ("Kind", "Name")}
        shown = {"APIGroup": reference.get("apiGroup") or "", **shown}
        found.append(errors.invalid_value("roleRef", shown, "cannot change roleRef"))
    return found


def _subject_causes(subject: dict[str, Any], path: str, *, namespaced: bool) -> list[Cause]:
    found: list[Cause] = []
    if not subject.get("name"):
        found.append(errors.required(f"{path}.name"))
    kind, group = subject.get("kind") or "", subject.get("apiGroup") or ""
    if kind == "ServiceAccount":
        if group:
            found.append(errors.not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            found.append(errors.required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != GROUP:
            found.append(errors.not_supported(f"{path}.apiGroup", group, (GROUP,)))
    else:
        found.append(errors.not_supported(f"{path}.kind", kind, _SUBJECTS))
    return found
