"""What the server knows about one kind of object."""

from __future__ import annotations

from typing import Final

import msgspec

from serving.api.meta import JsonObject

KUBERNETES_VERSION: Final = ("1", "33")
"""What the server claims to be."""

OBJECT_VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One printer column of a CustomResourceDefinition."""

    name: str
    type: str
    json_path: str
    format: str = ""
    description: str = ""
    priority: int = 0


class Subresource(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is the kind of the bodies, which for some subresources differs from the parent's."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """JSON paths of the scale subresource."""

    spec_replicas: str
    status_replicas: str
    label_selector: str = ""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind in one served version.

    `storage` names the table that its objects live in; kinds with the same storage are the same objects in
    different shapes (versions of one CRD, core Events and events.k8s.io Events). `storage_version` is the
    apiVersion that is written.
    """

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    list_kind: str
    namespaced: bool
    storage: str
    storage_api_version: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = OBJECT_VERBS
    status: bool = False
    scale: Scale | None = None
    subresources: tuple[Subresource, ...] = ()
    generation: bool = False
    custom: bool = False
    schema: JsonObject | None = None
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    name_format: str = "subdomain"
    graceful: bool = False
    create_on_update: bool = False
    unconditional_update: bool = True
    patch_status_metadata: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`services.serving.knative.dev`: the key of everything that is per resource and not per version."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def subresource(self, name: str) -> Subresource | None:
        return next((sub for sub in self.subresources if sub.name == name), None)


def status_subresource(kind: str, *, group: str = "", version: str = "") -> Subresource:
    return Subresource(name="status", kind=kind, verbs=("get", "patch", "update"), group=group, version=version)
