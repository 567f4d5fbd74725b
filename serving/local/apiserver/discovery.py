"""Discovery documents: aggregated (one request) and legacy (one per group and version)."""

from __future__ import annotations

from serving.api.meta import JsonObject
from serving.local.apiserver.kinds import Kind, Subresource
from serving.local.apiserver.registry import Registry


def aggregated(registry: Registry, *, core: bool) -> JsonObject:
    """`/api` (core) or `/apis` as APIGroupDiscoveryList."""
    groups = [""] if core else [group for group in registry.groups() if group]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [_aggregated_group(registry, group) for group in groups],
    }


def _aggregated_group(registry: Registry, group: str) -> JsonObject:
    versions = [
        {
            "version": version,
            "freshness": "Current",
            "resources": [_aggregated_resource(kind) for kind in registry.kinds(group, version)],
        }
        for version in registry.versions(group)
    ]
    return {"metadata": {"name": group} if group else {}, "versions": versions}


def _aggregated_resource(kind: Kind) -> JsonObject:
    resource: JsonObject = {
        "resource": kind.plural,
        "responseKind": _response_kind(kind, kind.kind),
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    if kind.subresources:
        resource["subresources"] = [_aggregated_subresource(kind, sub) for sub in kind.subresources]
    return resource


def _aggregated_subresource(kind: Kind, sub: Subresource) -> JsonObject:
    return {"subresource": sub.name, "responseKind": _kind_of(kind, sub), "verbs": list(sub.verbs)}


def _kind_of(kind: Kind, sub: Subresource) -> JsonObject:
    if sub.version:
        return {"group": sub.group, "version": sub.version, "kind": sub.kind}
    return _response_kind(kind, sub.kind)


def _response_kind(kind: Kind, name: str) -> JsonObject:
    """Built-in kinds leave out the group and version that are those of their resource."""
    if not kind.custom:
        return {"group": "", "version": "", "kind": name}
    return {"group": kind.group, "version": kind.version, "kind": name}


def versions(address: str) -> JsonObject:
    """Legacy `/api`. `address` is host:port as the client sees it."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(registry: Registry) -> JsonObject:
    """Legacy `/apis`."""
    groups = [_group(registry, name) for name in registry.groups() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> JsonObject | None:
    """Legacy `/apis/<group>`."""
    if not name or not registry.versions(name):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(registry, name)}


def _group(registry: Registry, name: str) -> JsonObject:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in registry.versions(name)]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resource_list(registry: Registry, name: str, version: str) -> JsonObject | None:
    """Legacy `/api/v1` and `/apis/<group>/<version>`."""
    kinds = registry.kinds(name, version)
    if not kinds:
        return None
    resources: list[JsonObject] = []
    for kind in kinds:
        resources.append(_resource(kind))
        resources += [_subresource(kind, sub) for sub in kind.subresources]
    return {
        "kind": "APIResourceList",
        **({"apiVersion": "v1"} if name else {}),  # kube-apiserver leaves it out for the core group
        "groupVersion": f"{name}/{version}" if name else version,
        "resources": resources,
    }


def _resource(kind: Kind) -> JsonObject:
    resource: JsonObject = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        resource["shortNames"] = list(kind.short_names)
    if kind.categories:
        resource["categories"] = list(kind.categories)
    return resource


def _subresource(kind: Kind, sub: Subresource) -> JsonObject:
    resource: JsonObject = {
        "name": f"{kind.plural}/{sub.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": sub.kind,
        "verbs": list(sub.verbs),
    }
    if sub.version and sub.name != "status":
        resource |= {"group": sub.group, "version": sub.version}
    return resource
