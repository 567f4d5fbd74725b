"""Which permission a request to the kubelet's API needs. Pure.

As with the kubelet: some subresource of the Node object, and `proxy` where there is no finer one. Running programs
in containers needs `create` whatever the method: a WebSocket can only begin with GET, and whoever may merely read
should not get a shell that way.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

_VERBS: Final = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_RUNS: Final = ("exec", "attach", "portForward", "run")
_FINE: Final = {"pods": "pods", "healthz": "healthz"}
_OWN: Final = {"stats": "stats", "metrics": "metrics"}


class Requester(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as the API server knows them."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Permission(msgspec.Struct, frozen=True):
    verb: str
    subresources: tuple[str, ...]
    """Any of them will do."""


def needed(method: str, path: str) -> Permission:
    first = path.strip("/").split("/", 1)[0]
    verb = "create" if first in _RUNS else _VERBS.get(method, "")
    if first in _OWN:
        return Permission(verb, (_OWN[first],))
    return Permission(verb, (_FINE[first], "proxy") if first in _FINE else ("proxy",))


def access_review(requester: Requester, *, verb: str, subresource: str, node: str) -> dict[str, Any]:
    """A SubjectAccessReview."""
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": requester.name,
            "groups": list(requester.groups),
            "uid": requester.uid,
            "extra": {name: list(values) for name, values in requester.extra},
            "resourceAttributes": {
                "verb": verb,
                "group": "",
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": node,
            },
        },
    }


def requester_of_review(status: dict[str, Any]) -> Requester | None:
    """Of a TokenReview's status; None when the token is nobody's."""
    user = status.get("user") or {}
    if not status.get("authenticated") or not user.get("username"):
        return None
    extra = user.get("extra") or {}
    return Requester(
        name=user["username"],
        groups=tuple(user.get("groups") or ()),
        uid=user.get("uid") or "",
        extra=tuple((name, tuple(values)) for name, values in sorted(extra.items())),
    )


def requester_of_certificate(certificate: dict[str, Any]) -> Requester | None:
    """Of a verified client certificate, in the form of Python's `ssl`: the common name is the user, organisations
    are groups."""
    parts = [pair for group in certificate.get("subject", ()) for pair in group]
    names = [value for key, value in parts if key == "commonName"]
    if not names:
        return None
    groups = tuple(value for key, value in parts if key == "organizationName")
    return Requester(name=names[-1], groups=(*groups, "system:authenticated"))


def forbidden(requester: Requester, permission: Permission) -> str:
    """In the kubelet's words."""
    subresources = " ".join(permission.subresources)
    what = f"verb={permission.verb}, resource=nodes, subresource(s)=[{subresources}]"
    return f"Forbidden (user={requester.name}, {what})"
