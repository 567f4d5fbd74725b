"""One PolicyRule: what it allows, and whether some rules cover others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.access.attributes import Attributes, quoted

ALL: Final = "*"


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """rbac.authorization.k8s.io PolicyRule."""

    verbs: tuple[str, ...] = ()
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = msgspec.field(default=(), name="nonResourceURLs")

    def allows(self, asked: Attributes) -> bool:
        if ALL not in self.verbs and asked.verb not in self.verbs:
            return False
        if not asked.resource:
            return any(url_matches(pattern, asked.path) for pattern in self.non_resource_urls)
        if ALL not in self.api_groups and asked.group not in self.api_groups:
            return False
        if self.resource_names and asked.name not in self.resource_names:
            return False
        return any(pattern in self.resources for pattern in resource_patterns(asked))


FULL_AUTHORITY: Final = (
    Rule(verbs=(ALL,), api_groups=(ALL,), resources=(ALL,)),
    Rule(verbs=(ALL,), non_resource_urls=(ALL,)),
)


def resource_patterns(asked: Attributes) -> tuple[str, ...]:
    """What may stand in a rule's `resources` to mean this request."""
    if asked.subresource:
        return ALL, asked.combined, f"*/{asked.subresource}"
    return ALL, asked.resource


def url_matches(pattern: str, path: str) -> bool:
    return pattern in (ALL, path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


def rules_of(value: Any) -> tuple[Rule, ...]:
    """The `rules` of a stored role; a rule that cannot be read allows nothing."""
    found = []
    for raw in value or ():
        try:
            found.append(msgspec.convert(_without_nulls(raw), Rule))
        except msgspec.ValidationError:
            continue
    return tuple(found)


def _without_nulls(raw: Any) -> Any:
    return {key: value for key, value in raw.items() if value is not None} if isinstance(raw, dict) else raw


def to_json(rule: Rule) -> JsonObject:
    converted: JsonObject = msgspec.to_builtins(rule)
    return {key: list(value) for key, value in converted.items()}


# Which rules cover others.


def uncovered(owned: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The smallest parts of `wanted` that no single rule of `owned` covers."""
    parts = dict.fromkeys(part for rule in wanted for part in broken_down(rule))
    return [part for part in parts if not any(covers(rule, part) for rule in owned)]


def broken_down(rule: Rule) -> Iterator[Rule]:
    """Rules of one verb and one resource (or URL), at most one name, that together allow the same."""
    names: list[tuple[str, ...]] = [(name,) for name in rule.resource_names] or [()]
    for group, resource, verb, name in product(rule.api_groups, rule.resources, rule.verbs, names):
        yield Rule(verbs=(verb,), api_groups=(group,), resources=(resource,), resource_names=name)
    for url in rule.non_resource_urls:
        for verb in rule.verbs:
            yield Rule(verbs=(verb,), non_resource_urls=(url,))


def covers(owner: Rule, part: Rule) -> bool:
    """Whether `owner` allows everything that `part`, a broken down rule, allows."""
    if ALL not in owner.verbs and not set(part.verbs) <= set(owner.verbs):
        return False
    if part.non_resource_urls:
        return all(
            any(_url_covers(pattern, url) for pattern in owner.non_resource_urls) for url in part.non_resource_urls
        )
    if ALL not in owner.api_groups and not set(part.api_groups) <= set(owner.api_groups):
        return False
    if owner.resource_names and not (
        part.resource_names and set(part.resource_names) <= set(owner.resource_names)
    ):
        return False
    return all(_resource_covered(owner.resources, resource) for resource in part.resources)


def _resource_covered(owned: tuple[str, ...], resource: str) -> bool:
    if ALL in owned or resource in owned:
        return True
    _, slash, subresource = resource.partition("/")
    return bool(slash) and f"*/{subresource}" in owned


def _url_covers(owner: str, url: str) -> bool:
    return owner == url or (owner.endswith("*") and url.startswith(owner.rstrip("*")))


def compacted(parts: Iterable[Rule]) -> list[Rule]:
    """Broken down rules of the same resource joined again, for a message."""
    others: list[Rule] = []
    joined: dict[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for part in parts:
        if part.non_resource_urls:
            others.append(part)
        else:
            key = (part.api_groups, part.resources, part.resource_names)
            joined.setdefault(key, []).extend(part.verbs)
    return others + [
        Rule(api_groups=groups, resources=resources, resource_names=names, verbs=tuple(verbs))
        for (groups, resources, names), verbs in joined.items()
    ]


def described(rule: Rule) -> str:
    """As kube-apiserver shows a rule in a refusal."""
    shown = (
        ("APIGroups", rule.api_groups),
        ("Resources", rule.resources),
        ("NonResourceURLs", rule.non_resource_urls),
        ("ResourceNames", rule.resource_names),
        ("Verbs", rule.verbs),
    )
    parts = [f"{name}:{quoted_list(values)}" for name, values in shown if values]
    return "{" + ", ".join(parts) + "}"


def quoted_list(values: Iterable[str]) -> str:
    """As Go's %q of a slice."""
    return "[" + " ".join(quoted(value) for value in values) + "]"
