"""What a fresh server holds: namespaces, and the objects of manifest files.

A manifest is applied again only when the file itself changed since it was last applied, and then only its
differences: what people edited in the meantime stays. The last applied content is kept in an annotation;
definitions (CustomResourceDefinitions) are ours alone and are replaced as a whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.access import bootstrap_roles
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.fieldvalidation import decode_yaml_documents
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.patch import merge
from serving.local.apiserver.request import SYSTEM, Context
from serving.local.apiserver.resources import Resources

SHIPPED: Final = "nodeless.dev/shipped"
NAMESPACES: Final = ("default", "kube-system", "kube-public", "kube-node-lease", "knative-serving")


def _starting() -> Context:
    """Webhooks are processes that wait for this server: nobody answers for them yet."""
    return Context(user=SYSTEM, webhooks=False)


class ManifestError(Exception):
    """A manifest file cannot be applied. Names the file."""


def read_manifests(paths: tuple[Path, ...]) -> list[tuple[Path, JsonObject]]:
    """All objects of the files, definitions first. Raises ManifestError."""
    found: list[tuple[Path, JsonObject]] = []
    for path in paths:
        try:
            text = path.read_bytes()
            found += [(path, part) for part in _documents(text)]
        except (OSError, StatusError) as error:
            raise ManifestError(f"manifest {path} cannot be read: {error}") from error
    return sorted(found, key=lambda item: item[1].get("kind") != "CustomResourceDefinition")


def _documents(text: bytes) -> list[JsonObject]:
    decoded = decode_yaml_documents(text)
    return [value for value in decoded if isinstance(value, dict)]


async def ensure(resources: Resources, manifests: list[tuple[Path, JsonObject]]) -> None:
    """Raises ManifestError. Writes nothing when nothing changed."""
    kind = _kind(resources, "v1", "Namespace")
    for name in NAMESPACES:
        body: JsonObject = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await _create_if_absent(resources, kind, "", body)
    await _ensure_roles(resources)
    for path, obj in manifests:
        try:
            await _ensure_object(resources, obj)
        except (StatusError, KeyError, TypeError) as error:
            raise ManifestError(f"manifest {path} cannot be applied: {error}") from error


async def _ensure_roles(resources: Resources) -> None:
    """The roles and bindings of every cluster; what is missing of them comes back at each start."""
    for default in (*bootstrap_roles.cluster_roles(), *bootstrap_roles.cluster_role_bindings()):
        kind = _kind(resources, default["apiVersion"], default["kind"])
        name = default["metadata"]["name"]
        if await _create_if_absent(resources, kind, "", default):
            continue
        wanted = bootstrap_roles.wanted(default, resources.get(kind, "", name).obj)
        if wanted is not None:
            await resources.update(kind, "", name, wanted, _starting())


def _kind(resources: Resources, api_version: str, kind: str) -> Kind:
    found = resources.registry.find_kind(api_version, kind)
    if found is None:
        raise KeyError(f"no kind {kind} in {api_version}")
    return found


async def _create_if_absent(resources: Resources, kind: Kind, namespace: str, body: JsonObject) -> bool:
    try:
        resources.get(kind, namespace, body["metadata"]["name"])
    except StatusError as error:
        if error.code != 404:
            raise
        await resources.create(kind, namespace, body, _starting())
        return True
    return False


async def _ensure_object(resources: Resources, obj: JsonObject) -> None:
    kind = _kind(resources, obj["apiVersion"], obj["kind"])
    namespace = (obj["metadata"].get("namespace") or "default") if kind.namespaced else ""
    name = obj["metadata"]["name"]
    if kind.kind == "CustomResourceDefinition":
        await _ensure_definition(resources, kind, obj)
        return
    shipped = msgspec.json.encode(obj, order="sorted").decode()
    body = merge(obj, {"metadata": {"annotations": {SHIPPED: shipped}}})
    if await _create_if_absent(resources, kind, namespace, body):
        return
    current = resources.get(kind, namespace, name).obj
    before_text = (current["metadata"].get("annotations") or {}).get(SHIPPED, "{}")
    if before_text == shipped:
        return
    change = merge(
        difference(msgspec.json.decode(before_text), obj), {"metadata": {"annotations": {SHIPPED: shipped}}}
    )
    await resources.patch(kind, namespace, name, lambda now: merge(now, change), _starting())


async def _ensure_definition(resources: Resources, kind: Kind, obj: JsonObject) -> None:
    if await _create_if_absent(resources, kind, "", obj):
        return
    metadata = obj["metadata"]

    def change(now: JsonObject) -> JsonObject:
        kept = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
        return {**now, "spec": obj["spec"], "metadata": merge(now["metadata"], kept)}

    await resources.patch(kind, "", metadata["name"], change, _starting())


def difference(before: Any, after: Any) -> Any:
    """The merge patch that turns `before` into `after`."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after
    change: JsonObject = {name: None for name in before if name not in after}
    for name, value in after.items():
        if name not in before:
            change[name] = value
        elif before[name] != value:
            change[name] = difference(before[name], value)
    return change
