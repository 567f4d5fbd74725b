"""Who asks, and how: what the verbs need to know about a request besides the object."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.kinds import Kind


class User(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = {}

    def info(self) -> JsonObject:
        """authentication.k8s.io UserInfo."""
        info: JsonObject = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            info["uid"] = self.uid
        if self.extra:
            info["extra"] = {key: list(values) for key, values in self.extra.items()}
        return info


SYSTEM = User(name="system:apiserver", groups=("system:masters", "system:authenticated"))


class Context(msgspec.Struct, kw_only=True):
    """`warnings` is filled while the request is served and sent as Warning headers.

    `authorize(verb)` raises StatusError 403 unless the user may also do that to the object of the request; None =
    may do everything. For a PUT or PATCH that turns out to create.
    """

    user: User = SYSTEM
    dry_run: bool = False
    field_validation: str = "Ignore"
    duplicates: tuple[str, ...] = ()
    authorize: Callable[[str], None] | None = None
    webhooks: bool = True
    """False: admission webhooks are not asked."""
    manager: str = "nodeless-apiserver"
    """Who owns the fields that this request writes."""
    applied: bool = False
    """The body already says who owns what."""
    warnings: list[str] = msgspec.field(default_factory=list)

    def warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """What an admission webhook is asked about. `obj` is None at DELETE, `old` at CREATE."""

    kind: Kind
    operation: str
    namespace: str
    name: str
    obj: JsonObject | None
    old: JsonObject | None
    context: Context
    options: JsonObject
    subresource: str = ""
    body_kind: tuple[str, str, str] | None = None
    """group, version and kind of `obj` when a subresource has bodies of another kind."""
