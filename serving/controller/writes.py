"""Writes as values, and the smallest merge patch that turns one JSON object into another."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from serving.api.meta import JsonObject, Model, ObjectMeta
from serving.api.resources import Resource


class Create(msgspec.Struct, frozen=True, kw_only=True):
    resource: Resource
    body: JsonObject


class Patch(msgspec.Struct, frozen=True, kw_only=True):
    """A merge patch. `resource_version` makes it fail with Conflict when the object moved on."""

    resource: Resource
    namespace: str
    name: str
    patch: JsonObject
    subresource: str = ""
    resource_version: str = ""

    def body(self) -> JsonObject:
        if not self.resource_version:
            return self.patch
        metadata = {**self.patch.get("metadata", {}), "resourceVersion": self.resource_version}
        return {**self.patch, "metadata": metadata}


class Delete(msgspec.Struct, frozen=True, kw_only=True):
    resource: Resource
    namespace: str
    name: str
    uid: str
    propagation: str | None = None


Write: TypeAlias = Create | Patch | Delete


def merge_diff(old: Any, new: Any) -> JsonObject:
    """RFC 7396 patch from object `old` to object `new`; empty when they are equal."""
    patch: JsonObject = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(old[key], dict):
            if inner := merge_diff(old[key], value):
                patch[key] = inner
        elif old[key] != value:
            patch[key] = value
    return patch


def status_patch(resource: Resource, meta: ObjectMeta, *, old: Model, new: Model) -> Patch | None:
    """The write that makes `status` equal `new`, or None when it already is."""
    difference = merge_diff(msgspec.to_builtins(old), msgspec.to_builtins(new))
    if not difference:
        return None
    return Patch(
        resource=resource,
        namespace=meta.namespace,
        name=meta.name,
        patch={"status": difference},
        subresource="status",
        resource_version=meta.resource_version,
    )


def controller_reference(*, api_version: str, kind: str, meta: ObjectMeta) -> JsonObject:
    """The ownerReference of a child whose controller is this object."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": meta.name,
        "uid": meta.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
