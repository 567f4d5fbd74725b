"""All roles and bindings, and the decision on one request. Pure.

Bindings are indexed by subject and namespace, and the rules of a role by resource, so a decision looks only at
what can apply: its time does not grow with the number of users, bindings or rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.access.attributes import Attributes, quoted
from serving.local.apiserver.access.rules import ALL, FULL_AUTHORITY, Rule, resource_patterns, rules_of
from serving.local.apiserver.request import User

GROUP: Final = "rbac.authorization.k8s.io"
MASTERS: Final = "system:masters"
ACCOUNT_PREFIX: Final = "system:serviceaccount:"


class RoleKey(NamedTuple):
    """`namespace` empty = a ClusterRole."""

    namespace: str
    name: str

    @property
    def kind(self) -> str:
        return "Role" if self.namespace else "ClusterRole"


class Decision(NamedTuple):
    """`reason` tells what allowed it, or what went wrong on the way to a refusal."""

    allowed: bool
    reason: str = ""


class Grant(msgspec.Struct, frozen=True):
    """One subject of one binding."""

    role: RoleKey
    binding: str
    namespace: str
    subject: str

    def describe(self) -> str:
        kind = "RoleBinding" if self.namespace else "ClusterRoleBinding"
        name = f"{self.binding}/{self.namespace}" if self.namespace else self.binding
        return f"{kind} {quoted(name)} of {self.role.kind} {quoted(self.role.name)} to {self.subject}"


class Role:
    """Rules, indexed by what they name."""

    __slots__ = ("_by_resource", "_urls", "rules")

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self._by_resource: dict[str, list[Rule]] = {}
        for rule in rules:
            for resource in dict.fromkeys(rule.resources):
                self._by_resource.setdefault(resource, []).append(rule)
        self._urls = [rule for rule in rules if rule.non_resource_urls]

    def allows(self, asked: Attributes, patterns: tuple[str, ...]) -> bool:
        if not asked.resource:
            return any(rule.allows(asked) for rule in self._urls)
        for pattern in patterns:
            for rule in self._by_resource.get(pattern, ()):
                if (
                    (asked.verb in rule.verbs or ALL in rule.verbs)
                    and (asked.group in rule.api_groups or ALL in rule.api_groups)
                    and (not rule.resource_names or asked.name in rule.resource_names)
                ):
                    return True
        return False


_Subject = tuple[str, str]
"""("User" or "Group", name); a service account is the user of its name."""


class Policy:
    def __init__(self) -> None:
        self._roles: dict[RoleKey, Role] = {}
        self._grants: dict[str, dict[_Subject, dict[str, Grant]]] = {}
        self._subjects: dict[tuple[str, str], list[_Subject]] = {}

    # Keeping it current.

    def set_role(self, namespace: str, name: str, obj: JsonObject | None) -> None:
        """`obj` None = there is no such role (any more)."""
        key = RoleKey(namespace, name)
        if obj is None:
            self._roles.pop(key, None)
        else:
            self._roles[key] = Role(rules_of(obj.get("rules")))

    def set_binding(self, namespace: str, name: str, obj: JsonObject | None) -> None:
        """`namespace` empty = a ClusterRoleBinding."""
        granted = self._grants.setdefault(namespace, {})
        for subject in self._subjects.pop((namespace, name), ()):
            granted[subject].pop(name, None)
            if not granted[subject]:
                del granted[subject]
        if obj is None:
            return
        reference = obj.get("roleRef") or {}
        of_namespace = namespace if reference.get("kind") == "Role" else ""
        role = RoleKey(of_namespace, str(reference.get("name") or ""))
        for raw in obj.get("subjects") or ():
            found = subject_of(raw, namespace)
            if found is not None:
                subject, described = found
                granted.setdefault(subject, {})[name] = Grant(role, name, namespace, described)
                self._subjects.setdefault((namespace, name), []).append(subject)

    # Deciding.

    def decide(self, asked: Attributes) -> Decision:
        user = asked.user
        if MASTERS in user.groups:
            return Decision(True)
        patterns = resource_patterns(asked)
        missing: dict[str, None] = {}
        for grant in self._applying(user, asked.namespace):
            role = self._roles.get(grant.role)
            if role is None:
                missing[_not_found(grant.role)] = None
            elif role.allows(asked, patterns):
                return Decision(True, f"RBAC: allowed by {grant.describe()}")
        return Decision(False, f"RBAC: {_aggregate(list(missing))}" if missing else "")

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], str]:
        """Everything the user may do in a namespace (empty = cluster-wide), and what could not be resolved."""
        if MASTERS in user.groups:
            return list(FULL_AUTHORITY), ""
        rules: list[Rule] = []
        missing: dict[str, None] = {}
        for grant in self._applying(user, namespace):
            role = self._roles.get(grant.role)
            if role is None:
                missing[_not_found(grant.role)] = None
            else:
                rules += role.rules
        return rules, _aggregate(list(missing))

    def rules_of_role(self, key: RoleKey) -> tuple[Rule, ...] | None:
        """None = there is no such role."""
        role = self._roles.get(key)
        return None if role is None else role.rules

    def _applying(self, user: User, namespace: str) -> Iterator[Grant]:
        """Bindings of the whole cluster first, then those of the namespace."""
        subjects = [("User", user.name), *(("Group", group) for group in user.groups)]
        for where in ("", namespace) if namespace else ("",):
            granted = self._grants.get(where)
            if granted:
                for subject in subjects:
                    yield from granted.get(subject, _NONE).values()


_NONE: Final[dict[str, Grant]] = {}


def subject_of(raw: JsonObject, namespace: str) -> tuple[_Subject, str] | None:
    """Who a binding's subject is, and in words; None for one that can be nobody."""
    kind, name = str(raw.get("kind") or ""), str(raw.get("name") or "")
    if kind in ("User", "Group"):
        return (kind, name), f"{kind} {quoted(name)}"
    if kind == "ServiceAccount":
        where = str(raw.get("namespace") or namespace)
        if where:
            return ("User", f"{ACCOUNT_PREFIX}{where}:{name}"), f"{kind} {quoted(f'{name}/{where}')}"
    return None


def _not_found(key: RoleKey) -> str:
    return f"{key.kind.lower()}.{GROUP} {quoted(key.name)} not found"


def _aggregate(errors: list[str]) -> str:
    if len(errors) == 1:
        return errors[0]
    return "[" + ", ".join(errors) + "]" if errors else ""
