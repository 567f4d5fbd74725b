"""Nobody may give away more than they have: the check on writing roles and bindings. Pure.

Whoever writes a role needs every right in it, or the verb `escalate` on it; whoever writes a binding needs every
right of the role it names, or the verb `bind` on that role.
"""

from __future__ import annotations

from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.access.attributes import Attributes, quoted
from serving.local.apiserver.access.policy import GROUP, MASTERS, Policy, RoleKey
from serving.local.apiserver.access.rules import (
    FULL_AUTHORITY,
    Rule,
    compacted,
    described,
    quoted_list,
    rules_of,
    uncovered,
)
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.request import User

_ROLES: Final = ("roles", "clusterroles")
_BINDINGS: Final = ("rolebindings", "clusterrolebindings")
_FOR_COLLECTION: Final = ("finalizers", "ownerReferences", "managedFields", "resourceVersion")


def is_checked(group: str, plural: str) -> bool:
    return group == GROUP and plural in (*_ROLES, *_BINDINGS)


def check(policy: Policy, user: User, plural: str, obj: JsonObject, old: JsonObject | None) -> None:
    """Raises StatusError 403, or 404 when a binding names a role that does not exist. `old` None = create."""
    if MASTERS in user.groups or (old is not None and _same_but_collection(obj, old)):
        return
    if plural in _ROLES:
        _check_role(policy, user, plural, obj, old)
    else:
        _check_binding(policy, user, plural, obj)


def _check_role(policy: Policy, user: User, plural: str, obj: JsonObject, old: JsonObject | None) -> None:
    metadata = obj["metadata"]
    namespace = str(metadata.get("namespace") or "")
    name = str(metadata.get("name") or "")
    asked = Attributes(
        user=user,
        verb="escalate",
        group=GROUP,
        resource=plural,
        namespace=namespace,
        name=name if old is not None else "",
    )
    if policy.decide(asked).allowed:
        return
    _confirm(policy, user, plural, name, namespace, rules_of(obj.get("rules")))
    if any((version or {}).get("aggregationRule") for version in (obj, old)):
        owned, _ = policy.rules_for(user, "")
        if uncovered(owned, FULL_AUTHORITY):
            why = "must have cluster-admin privileges to use the aggregationRule"
            raise errors.forbidden(plural, GROUP, name, why)


def _check_binding(policy: Policy, user: User, plural: str, obj: JsonObject) -> None:
    metadata = obj["metadata"]
    namespace = str(metadata.get("namespace") or "") if plural == "rolebindings" else ""
    reference: dict[str, Any] = obj.get("roleRef") or {}
    is_role = reference.get("kind") == "Role"
    key = RoleKey(namespace if is_role else "", str(reference.get("name") or ""))
    asked = Attributes(
        user=user,
        verb="bind",
        group=GROUP,
        resource="roles" if is_role else "clusterroles",
        namespace=namespace,
        name=key.name,
    )
    if policy.decide(asked).allowed:
        return
    rules = policy.rules_of_role(key)
    if rules is None:
        raise errors.not_found(key.kind.lower(), GROUP, key.name)
    _confirm(policy, user, plural, str(metadata.get("name") or ""), namespace, rules)


def _confirm(policy: Policy, user: User, plural: str, name: str, namespace: str, wanted: tuple[Rule, ...]) -> None:
    owned, problem = policy.rules_for(user, namespace)
    missing = uncovered(owned, wanted)
    if missing:
        raise _escalation(user, plural, name, missing, problem)


def _escalation(user: User, plural: str, name: str, missing: list[Rule], problem: str) -> StatusError:
    listed = "\n".join(sorted({described(rule) for rule in compacted(missing)}))
    text = (
        f"user {quoted(user.name)} (groups={quoted_list(user.groups)}) is attempting to grant RBAC permissions "
        f"not currently held:\n{listed}"
    )
    if problem:
        text += f"; resolution errors: [{problem}]"
    return errors.forbidden(plural, GROUP, name, text)


def _same_but_collection(new: JsonObject, old: JsonObject) -> bool:
    """Only what garbage collection needs has changed."""
    return _without(new) == _without(old)


def _without(obj: JsonObject) -> JsonObject:
    kept = {key: value for key, value in obj["metadata"].items() if key not in _FOR_COLLECTION}
    return {**obj, "metadata": kept}
