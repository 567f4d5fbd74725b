"""Placeholder Services: one Kubernetes Service per Route and per tag, which makes its name usable in the cluster.

`<route>` and `<tag>-<route>` are ExternalName Services that lead to the gateway's entrance for the cluster. They
take the name too: a Service of somebody else under it is a conflict, which the Route's `IngressReady` tells. A
label `networking.knative.dev/visibility` that a user puts on one makes that tag cluster-local.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from serving.api import keys
from serving.api.config.network import NetworkConfig
from serving.api.hosts import HostError, tag_name
from serving.api.kube_service import KubeService, KubeServicePort
from serving.api.meta import JsonObject
from serving.api.resources import ROUTES, SERVICES
from serving.api.v1 import Route
from serving.controller.writes import Create, Delete, Patch, Write, controller_reference

_PORT = KubeServicePort(name="http2", port=80, app_protocol="kubernetes.io/h2c")


def placeholder_names(route: Route, *, network: NetworkConfig) -> dict[str, str]:
    """Name of the Service by tag; the empty tag is the Route itself. Tags still served count until they are not.

    Empty when the tag template gives no name: then the Route has no URL either, and says why.
    """
    tags = {"", *(target.tag for target in (*route.spec.traffic, *route.status.traffic))}
    try:
        return {tag: tag_name(route.metadata.name, tag, network=network) for tag in sorted(tags)}
    except HostError:
        return {}


def foreign_placeholder(
    route: Route, names: Mapping[str, str], *, service: Callable[[str], KubeService | None]
) -> str:
    """Name of the first Service that the Route needs and somebody else has; empty when there is none."""
    for name in names.values():
        existing = service(name)
        if existing is not None and not existing.metadata.is_controlled_by(route.metadata.uid):
            return name
    return ""


def local_tags(names: Mapping[str, str], *, services: Collection[KubeService]) -> frozenset[str]:
    """Tags that are cluster-local because their placeholder is labelled so, with whatever value."""
    marked = {service.metadata.name for service in services if service.metadata.labels.get(keys.VISIBILITY)}
    return frozenset(tag for tag, name in names.items() if name in marked)


def reconcile_placeholders(
    route: Route,
    names: Mapping[str, str],
    *,
    services: Collection[KubeService],
    service: Callable[[str], KubeService | None],
    gateway: str,
) -> list[Write]:
    """Create, correct and delete. `services` are those labelled with the Route, `service` finds any by name;
    `gateway` is the DNS name of the gateway's entrance for the cluster. What others put onto one stays."""
    writes: list[Write] = []
    for name in names.values():
        existing = service(name)
        wanted = desired_placeholder(route, name, gateway=gateway)
        if existing is None:
            writes.append(Create(resource=SERVICES, body=wanted))
        elif existing.metadata.is_controlled_by(route.metadata.uid):
            writes += _correct(existing, wanted, gateway=gateway)
    writes += [
        Delete(
            resource=SERVICES,
            namespace=old.metadata.namespace,
            name=old.metadata.name,
            uid=old.metadata.uid,
        )
        for old in services
        if names and old.metadata.name not in names.values() and old.metadata.is_controlled_by(route.metadata.uid)
    ]
    return writes


def desired_placeholder(route: Route, name: str, *, gateway: str) -> JsonObject:
    meta = route.metadata
    labels = {key: value for key, value in meta.labels.items() if key != keys.VISIBILITY}
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": {
            "name": name,
            "namespace": meta.namespace,
            "labels": labels | {keys.ROUTE: meta.name},
            "annotations": dict(meta.annotations),
            "ownerReferences": [controller_reference(api_version=ROUTES.api_version, kind="Route", meta=meta)],
        },
        "spec": _spec(gateway),
    }


def _spec(gateway: str) -> JsonObject:
    port = {"name": _PORT.name, "port": _PORT.port, "targetPort": 80, "appProtocol": _PORT.app_protocol}
    return {"type": "ExternalName", "externalName": gateway, "sessionAffinity": "None", "ports": [port]}


def _correct(existing: KubeService, wanted: JsonObject, *, gateway: str) -> list[Write]:
    meta, patch = existing.metadata, {}
    changed: JsonObject = {}
    for field in ("labels", "annotations"):
        old = getattr(meta, field)
        if new := {key: value for key, value in wanted["metadata"][field].items() if old.get(key) != value}:
            changed[field] = new
    if changed:
        patch["metadata"] = changed
    spec = existing.spec
    if (spec.type, spec.external_name, spec.ports) != ("ExternalName", gateway, (_PORT,)):
        patch["spec"] = _spec(gateway)
    if not patch:
        return []
    return [
        Patch(
            resource=SERVICES,
            namespace=meta.namespace,
            name=meta.name,
            patch=patch,
            resource_version=meta.resource_version,
        )
    ]
