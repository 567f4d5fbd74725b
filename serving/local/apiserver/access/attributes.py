"""What a request asks for, as authorisation sees it, and the refusal in kube-apiserver's words. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import StatusError, qualified
from serving.local.apiserver.paths import Target
from serving.local.apiserver.request import User

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_TRUE: Final = ("1", "t", "true")
_HTML: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


class Attributes(msgspec.Struct, frozen=True, kw_only=True):
    """`resource` empty = a request for `path`, which is no resource."""

    user: User
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def combined(self) -> str:
        """`pods`, or `pods/log`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def of_path(user: User, method: str, path: str) -> Attributes:
    return Attributes(user=user, verb=method.lower(), path=path)


def of_target(user: User, method: str, target: Target, query: Mapping[str, str]) -> Attributes:
    """The verb follows from the method; lists by a single name ask for that name."""
    name = target.name
    # As Kubernetes has it, a Namespace lies in itself: a role in it may allow to read it.
    itself = target.resource == "namespaces" and not target.group
    namespace = target.name if itself else target.namespace
    if method in ("GET", "HEAD"):
        verb = "get" if name else "list"
        if query.get("watch", "").lower() in _TRUE:
            verb = "watch"
    else:
        verb = _VERBS.get(method, method.lower())
        if verb == "delete" and not name:
            verb = "deletecollection"
    if not name and verb in ("list", "watch"):
        name = _selected_name(query.get("fieldSelector", ""))
    return Attributes(
        user=user,
        verb=verb,
        group=target.group,
        version=target.version,
        resource=target.resource,
        subresource=target.subresource,
        namespace=namespace,
        name=name,
    )


def _selected_name(selector: str) -> str:
    for part in selector.split(","):
        field, sign, value = part.partition("=")
        if field.strip() == "metadata.name" and sign:
            return value.removeprefix("=").strip()
    return ""


def refusal(asked: Attributes, reason: str = "") -> StatusError:
    """403. `reason` is what the evaluation has to add, e.g. a role that does not exist."""
    text = _sentence(asked).translate(_HTML)
    if reason:
        text = f"{text}: {reason}"
    details: JsonObject = {}
    if asked.name:
        details["name"] = asked.name
    if asked.group:
        details["group"] = asked.group
    if asked.resource:
        details["kind"] = asked.resource
    where = qualified(asked.resource, asked.group)
    if not where:
        message = f"forbidden: {text}"
    elif asked.name:
        message = f"{where} {quoted(asked.name)} is forbidden: {text}"
    else:
        message = f"{where} is forbidden: {text}"
    return StatusError(403, "Forbidden", message, details=details)


def _sentence(asked: Attributes) -> str:
    who = f"User {quoted(asked.user.name)} cannot {asked.verb}"
    if not asked.resource:
        return f"{who} path {quoted(asked.path)}"
    what = f"{who} resource {quoted(asked.combined)} in API group {quoted(asked.group)}"
    if asked.namespace:
        return f"{what} in the namespace {quoted(asked.namespace)}"
    return f"{what} at the cluster scope"


def quoted(text: str) -> str:
    """As Go's %q."""
    return json.dumps(text, ensure_ascii=False)
