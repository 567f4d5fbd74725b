"""Aggregated ClusterRoles: their rules are those of all roles that their selectors choose. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from serving.api.meta import JsonObject
from serving.local.apiserver.selectors import LabelSelector, from_label_selector, match_labels


def selectors_of(role: JsonObject) -> list[LabelSelector]:
    """Empty = the role is not aggregated. A selector that cannot be read chooses nothing."""
    found = []
    for selector in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ():
        try:
            found.append(from_label_selector(selector))
        except (KeyError, TypeError, AttributeError):
            continue
    return found


def aggregated_rules(role: JsonObject, roles: Iterable[JsonObject]) -> list[JsonObject]:
    """What the `rules` of an aggregated role should be: those of the chosen roles, by name, each rule once."""
    rules: list[JsonObject] = []
    own = role["metadata"]["name"]
    ordered = sorted(roles, key=lambda other: str(other["metadata"]["name"]))
    for selector in selectors_of(role):
        for other in ordered:
            if other["metadata"]["name"] == own or not match_labels(
                selector, other["metadata"].get("labels") or {}
            ):
                continue
            rules += [rule for rule in other.get("rules") or () if rule not in rules]
    return rules
