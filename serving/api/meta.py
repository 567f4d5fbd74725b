"""Kubernetes object metadata as msgspec Structs: only the fields that we read.

Structs are for reading. Writing goes through patches on the fields that we own, so fields that these types do
not know survive a round trip.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

JsonObject: TypeAlias = dict[str, Any]
"""A decoded JSON object whose shape is not ours."""

JsonPatch: TypeAlias = list[JsonObject]
"""RFC 6902."""


class Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of every decoded Kubernetes object: immutable, camelCase on the wire, absent = default."""


class OwnerReference(Model, frozen=True, kw_only=True):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(Model, frozen=True, kw_only=True):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """`namespace/name`, or `name` for a cluster-scoped object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def controller_ref(self) -> OwnerReference | None:
        """The one owner reference with `controller: true`, if any."""
        return next((ref for ref in self.owner_references if ref.controller), None)

    def is_controlled_by(self, uid: str) -> bool:
        ref = self.controller_ref()
        return ref is not None and ref.uid == uid


class Condition(Model, frozen=True, kw_only=True):
    """One entry of `status.conditions`. `status` is `True`, `False` or `Unknown`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    severity: str = ""
    last_transition_time: str | None = None


def find_condition(conditions: tuple[Condition, ...], kind: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == kind), None)
