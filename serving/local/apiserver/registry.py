"""Which kinds are served: the built-in table plus what CustomResourceDefinition objects declare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from serving.api.meta import JsonObject
from serving.local.apiserver.builtin import BUILTIN
from serving.local.apiserver.kinds import OBJECT_VERBS, Column, Kind, Scale, Subresource, status_subresource

AGE_COLUMN = Column(name="Age", type="date", json_path=".metadata.creationTimestamp")
_PREFERRED_FIRST = ("", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io")


class Registry:
    """Lookup by URL and by kind. `generation` changes whenever the served set does (an ETag for discovery)."""

    def __init__(self) -> None:
        self.generation = 0
        self._builtin = {(kind.group, kind.version, kind.plural): kind for kind in BUILTIN}
        self._custom: dict[str, tuple[Kind, ...]] = {}
        self._by_url = dict(self._builtin)
        self._index()

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._by_url.values())

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_url.get((group, version, plural))

    def find_kind(self, api_version: str, kind: str) -> Kind | None:
        group, _, version = api_version.rpartition("/")
        return self._by_kind.get((group, version, kind))

    def of_storage(self, storage: str) -> Kind | None:
        """The kind whose objects are stored there, in the version in which they are stored."""
        return self._by_storage.get(storage)

    def versions(self, group: str) -> tuple[str, ...]:
        """Versions of a group, preferred first; empty = no such group."""
        return tuple(dict.fromkeys(kind.version for kind in self if kind.group == group))

    def groups(self) -> tuple[str, ...]:
        """In order of preference: core, a few well-known ones, the rest as declared."""
        found = dict.fromkeys(kind.group for kind in self)
        first = [group for group in _PREFERRED_FIRST if group in found]
        return (*first, *(group for group in found if group not in first))

    def kinds(self, group: str, version: str) -> tuple[Kind, ...]:
        return tuple(kind for kind in self if (kind.group, kind.version) == (group, version))

    def declare(self, crd: JsonObject) -> bool:
        """Serve what an accepted CustomResourceDefinition says. False = nothing changed."""
        name = crd["metadata"]["name"]
        kinds = tuple(kinds_of(crd))
        if self._custom.get(name) == kinds:
            return False
        self._custom[name] = kinds
        self._rebuild()
        return True

    def withdraw(self, name: str) -> None:
        if self._custom.pop(name, None) is not None:
            self._rebuild()

    def name_conflict(self, crd: JsonObject) -> str:
        """Why the names of this definition are taken; empty = they are free."""
        group, names = crd["spec"]["group"], crd["spec"]["names"]
        for kind in self:
            same_object = f"{kind.plural}.{kind.group}" == crd["metadata"]["name"]
            if kind.group != group or same_object:
                continue
            if names["kind"] in (kind.kind, kind.list_kind):
                return f'"{names["kind"]}" is already in use'
            taken = {kind.plural, kind.singular, *kind.short_names}
            wanted = [names["plural"], names.get("singular") or "", *(names.get("shortNames") or ())]
            for name in wanted:
                if name in taken:
                    return f'"{name}" is already in use'
        return ""

    def _rebuild(self) -> None:
        self.generation += 1
        by_url = dict(self._builtin)
        for kinds in self._custom.values():
            by_url.update({(kind.group, kind.version, kind.plural): kind for kind in kinds})
        self._by_url = by_url
        self._index()

    def _index(self) -> None:
        self._by_kind = {(kind.group, kind.version, kind.kind): kind for kind in self}
        self._by_storage: dict[str, Kind] = {}
        for kind in self:
            # A definition may store a version that it no longer serves: then any served version stands for it.
            if kind.api_version == kind.storage_api_version or kind.storage not in self._by_storage:
                self._by_storage[kind.storage] = kind


def kinds_of(crd: JsonObject) -> Iterable[Kind]:
    """One Kind per served version of a valid CustomResourceDefinition."""
    spec = crd["spec"]
    names = spec["names"]
    group = spec["group"]
    stored = next(version["name"] for version in spec["versions"] if version.get("storage"))
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        declared = version.get("subresources") or {}
        scale = _scale(declared.get("scale"))
        subresources: list[Subresource] = []
        if "status" in declared:
            subresources.append(status_subresource(names["kind"], group=group, version=version["name"]))
        if scale is not None:
            verbs = ("get", "patch", "update")
            subresources.append(
                Subresource(name="scale", kind="Scale", verbs=verbs, group="autoscaling", version="v1")
            )
        yield Kind(
            group=group,
            version=version["name"],
            plural=names["plural"],
            singular=names.get("singular") or names["kind"].lower(),
            kind=names["kind"],
            list_kind=names.get("listKind") or names["kind"] + "List",
            namespaced=spec["scope"] == "Namespaced",
            storage=f"{names['plural']}.{group}",
            storage_api_version=f"{group}/{stored}",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            verbs=OBJECT_VERBS,
            status="status" in declared,
            scale=scale,
            subresources=tuple(subresources),
            generation=True,
            custom=True,
            schema=(version.get("schema") or {}).get("openAPIV3Schema"),
            columns=_columns(version.get("additionalPrinterColumns")),
            selectable=tuple(
                field["jsonPath"].removeprefix(".") for field in version.get("selectableFields") or ()
            ),
            unconditional_update=False,
        )


def _scale(declared: JsonObject | None) -> Scale | None:
    if declared is None:
        return None
    return Scale(
        spec_replicas=declared["specReplicasPath"],
        status_replicas=declared["statusReplicasPath"],
        label_selector=declared.get("labelSelectorPath") or "",
    )


def _columns(declared: list[JsonObject] | None) -> tuple[Column, ...]:
    if not declared:
        return (AGE_COLUMN,)
    return tuple(
        Column(
            name=column["name"],
            type=column["type"],
            json_path=column["jsonPath"],
            format=column.get("format") or "",
            description=column.get("description") or "",
            priority=column.get("priority") or 0,
        )
        for column in declared
    )
