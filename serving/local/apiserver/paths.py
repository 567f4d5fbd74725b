"""What a URL asks for: the path, split into the parts that routing and authorisation need."""

from __future__ import annotations

from typing import Final

import msgspec

OPEN_PATHS: Final = frozenset({"/livez", "/readyz", "/healthz", "/version"})
"""Answered without a token."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A request for objects. `name` empty = the collection; `namespace` empty = all, or cluster-scoped."""

    group: str
    version: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class GroupPath(msgspec.Struct, frozen=True, kw_only=True):
    """A discovery document: `/api`, `/api/v1`, `/apis`, `/apis/g`, `/apis/g/v`."""

    root: str
    group: str = ""
    version: str = ""


def parse(path: str) -> Target | GroupPath | None:
    """Split a decoded path; None = not an API path.

    `/api/v1/namespaces/x/status` is a subresource of the Namespace x, `/api/v1/namespaces/x/pods` a collection in
    it.
    """
    parts = [part for part in path.split("/") if part]
    if not parts or parts[0] not in ("api", "apis"):
        return None
    root, rest = parts[0], parts[1:]
    if root == "api":
        group = ""
    elif rest:
        group, rest = rest[0], rest[1:]
    else:
        return GroupPath(root="apis")
    if not rest:
        return GroupPath(root=root, group=group)
    version, rest = rest[0], rest[1:]
    if not rest:
        return GroupPath(root=root, group=group, version=version)
    return _target(group, version, rest)


def _target(group: str, version: str, rest: list[str]) -> Target | None:
    namespace = ""
    is_namespace_itself = len(rest) <= 2 or (group == "" and rest[2] in ("status", "finalize"))
    if rest[0] == "namespaces" and not is_namespace_itself:
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return None
    resource, name, subresource = [*rest, "", ""][:3]
    return Target(
        group=group, version=version, resource=resource, namespace=namespace, name=name, subresource=subresource
    )
