"""Questions about users: who am I, what may I do, whose token is this. Pure."""

from __future__ import annotations

from collections.abc import Callable

from serving.api.meta import JsonObject
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.request import User

_RULE = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
_PATHS = {"verbs": ["*"], "nonResourceURLs": ["*"]}


def answer(kind: Kind, body: JsonObject, user: User, *, find_user: Callable[[str], User | None]) -> JsonObject:
    """The review with its status. Every known user may do everything."""
    spec = body.get("spec") or {}
    match kind.kind:
        case "SelfSubjectReview":
            status: JsonObject = {"userInfo": user.info()}
        case "TokenReview":
            found = find_user(str(spec.get("token") or ""))
            if found is None:
                status = {"user": {}, "error": "[invalid bearer token]"}
            else:
                status = {"authenticated": True, "user": found.info()}
        case "SelfSubjectRulesReview":
            status = {"resourceRules": [_RULE], "nonResourceRules": [_PATHS], "incomplete": False}
        case _:
            status = {"allowed": True, "reason": "every authenticated user may do everything"}
    return {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": {"creationTimestamp": None},
        "spec": spec,
        "status": status,
    }
