"""Service → Configuration + Route, and the Service's status as the union of theirs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from serving.api import keys
from serving.api.conditions import Conditions, ConditionSet
from serving.api.meta import JsonObject, ObjectMeta, find_condition
from serving.api.resources import CONFIGURATIONS, KSERVICES, ROUTES
from serving.api.v1 import (
    Configuration,
    Revision,
    Route,
    RouteSpec,
    Service,
    ServiceStatus,
    TrafficTarget,
)
from serving.controller.naming import name_conflict
from serving.controller.writes import Create, Patch, Write, controller_reference, merge_diff, status_patch

CONDITIONS = ConditionSet(dependents=("ConfigurationsReady", "RoutesReady"))
_API_VERSION = KSERVICES.api_version
_NOT_COPIED = frozenset({keys.LAST_APPLIED})


def reconcile_ksvc(
    ksvc: Service,
    *,
    configuration: Configuration | None,
    route: Route | None,
    named_revision: Revision | None,
    defaulted: Callable[[JsonObject], JsonObject],
    now: str,
) -> list[Write]:
    """Writes that bring children and status in line with a Service.

    `named_revision` is the Revision with the template's own name (BYO), if the template has one and it exists.
    `defaulted` gives a Configuration's spec the defaults of today: one that came later makes no new Revision.
    """
    writes: list[Write] = []
    conditions = CONDITIONS.initialise(ksvc.status.conditions, now=now)
    status = msgspec.structs.replace(ksvc.status, observed_generation=ksvc.metadata.generation)

    configuration_owned = configuration is None or configuration.metadata.is_controlled_by(ksvc.metadata.uid)
    if not configuration_owned:
        conditions = _not_owned(conditions, "ConfigurationsReady", "Configuration", ksvc, now)
        return _with_status(ksvc, status, conditions, writes)
    writes += _child(ksvc, configuration, desired_configuration(ksvc, existing=configuration), defaulted)
    current = not writes and configuration is not None
    if configuration is None or not current or _outdated(configuration):
        conditions = _out_of_date(conditions, "ConfigurationsReady", "Configuration", now)
        if (ksvc.spec.template.get("metadata") or {}).get("name"):
            return _with_status(ksvc, status, conditions, writes)
    else:
        ready = find_condition(configuration.status.conditions, "Ready")
        conditions = CONDITIONS.mark(conditions, "ConfigurationsReady", ready, now=now)
        status = msgspec.structs.replace(
            status,
            latest_created_revision_name=configuration.status.latest_created_revision_name,
            latest_ready_revision_name=configuration.status.latest_ready_revision_name,
        )
    if configuration is not None and name_conflict(configuration, named_revision):
        name = configuration.spec.template["metadata"]["name"]
        conditions = CONDITIONS.mark_false(
            conditions,
            "RoutesReady",
            reason="RevisionNameTaken",
            message=(
                f'The revision name "{name}" is taken by a conflicting Revision, so traffic will not be migrated'
            ),
            now=now,
        )
        return _with_status(ksvc, status, conditions, writes)

    if route is not None and not route.metadata.is_controlled_by(ksvc.metadata.uid):
        conditions = _not_owned(conditions, "RoutesReady", "Route", ksvc, now)
        return _with_status(ksvc, status, conditions, writes)
    route_writes = _child(ksvc, route, desired_route(ksvc), _as_it_is)
    if route is None or route_writes or _outdated(route):
        conditions = _out_of_date(conditions, "RoutesReady", "Route", now)
    else:
        conditions = CONDITIONS.mark(
            conditions, "RoutesReady", find_condition(route.status.conditions, "Ready"), now=now
        )
        status = msgspec.structs.replace(
            status, url=route.status.url, address=route.status.address, traffic=route.status.traffic
        )
        conditions = _check_migrated(ksvc, configuration, route, conditions, now)
    return _with_status(ksvc, status, conditions, writes + route_writes)


def is_under_way(configuration: Configuration | None, route: Route | None) -> bool:
    """Whether more is to come soon: no child failed, one is not ready yet. A Route that does not exist yet is on
    its way while the Configuration is new; later it may be what the Service has to make next."""
    if configuration is None or (route is None and not _outdated(configuration)):
        return False
    if route is None:
        return True
    found = [find_condition(child.status.conditions, "Ready") for child in (configuration, route)]
    states = [condition.status if condition is not None else "Unknown" for condition in found]
    return "Unknown" in states and "False" not in states


def desired_configuration(ksvc: Service, *, existing: Configuration | None) -> JsonObject:
    """The Configuration of a Service. Routes that others pointed at an `existing` one stay in its annotation."""
    meta = ksvc.metadata
    noted = existing.metadata.annotations.get(keys.ROUTES, "") if existing is not None else ""
    routes = ",".join(sorted({name for name in noted.split(",") if name} | {meta.name}))
    dropped = _NOT_COPIED | {keys.ROLLOUT_DURATION, "serving.knative.dev/rolloutDuration"}
    annotations = {key: value for key, value in meta.annotations.items() if key not in dropped}
    return {
        "apiVersion": CONFIGURATIONS.api_version,
        "kind": "Configuration",
        "metadata": _child_meta(
            meta,
            labels=meta.labels | {keys.SERVICE: meta.name, keys.SERVICE_UID: meta.uid},
            annotations=annotations | {keys.ROUTES: routes},
        ),
        "spec": {"template": ksvc.spec.template},
    }


def desired_route(ksvc: Service) -> JsonObject:
    meta = ksvc.metadata
    annotations = {key: value for key, value in meta.annotations.items() if key not in _NOT_COPIED}
    traffic = [
        target if target.revision_name else msgspec.structs.replace(target, configuration_name=meta.name)
        for target in ksvc.spec.traffic
    ]
    return {
        "apiVersion": ROUTES.api_version,
        "kind": "Route",
        "metadata": _child_meta(meta, labels=meta.labels | {keys.SERVICE: meta.name}, annotations=annotations),
        "spec": msgspec.to_builtins(RouteSpec(traffic=tuple(traffic))),
    }


def _child_meta(meta: ObjectMeta, *, labels: dict[str, str], annotations: dict[str, str]) -> JsonObject:
    owner = controller_reference(api_version=_API_VERSION, kind="Service", meta=meta)
    return {
        "name": meta.name,
        "namespace": meta.namespace,
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [owner],
    }


def _as_it_is(spec: JsonObject) -> JsonObject:
    return spec


def _child(
    ksvc: Service,
    existing: Configuration | Route | None,
    desired: JsonObject,
    defaulted: Callable[[JsonObject], JsonObject],
) -> list[Write]:
    resource = CONFIGURATIONS if desired["kind"] == "Configuration" else ROUTES
    if existing is None:
        return [Create(resource=resource, body=desired)]
    metadata: JsonObject = {}
    for field in ("labels", "annotations"):
        if difference := merge_diff(getattr(existing.metadata, field), desired["metadata"][field]):
            metadata[field] = difference
    patch: JsonObject = {"metadata": metadata} if metadata else {}
    spec: JsonObject = msgspec.to_builtins(existing.spec)
    difference = merge_diff(spec, desired["spec"])
    if difference and defaulted(spec) != desired["spec"]:
        patch["spec"] = difference
    if not patch:
        return []
    return [
        Patch(
            resource=resource,
            namespace=ksvc.metadata.namespace,
            name=ksvc.metadata.name,
            patch=patch,
            resource_version=existing.metadata.resource_version,
        )
    ]


def _outdated(child: Configuration | Route) -> bool:
    return child.metadata.generation != child.status.observed_generation


def _out_of_date(conditions: Conditions, kind: str, child: str, now: str) -> Conditions:
    message = f"The {child} is still working to reflect the latest desired specification."
    return CONDITIONS.mark_unknown(conditions, kind, reason="OutOfDate", message=message, now=now)


def _not_owned(conditions: Conditions, kind: str, child: str, ksvc: Service, now: str) -> Conditions:
    message = f'There is an existing {child} "{ksvc.metadata.name}" that we do not own.'
    return CONDITIONS.mark_false(conditions, kind, reason="NotOwned", message=message, now=now)


def _check_migrated(
    ksvc: Service, configuration: Configuration | None, route: Route, conditions: Conditions, now: str
) -> Conditions:
    ready = find_condition(conditions, "RoutesReady")
    if ready is None or ready.status != "True" or configuration is None:
        return conditions
    latest = configuration.status.latest_ready_revision_name
    if _shares(ksvc.spec.traffic, latest) == _shares(route.status.traffic, latest):
        return conditions
    return CONDITIONS.mark_unknown(
        conditions,
        "RoutesReady",
        reason="TrafficNotMigrated",
        message="Traffic is not yet migrated to the latest revision.",
        now=now,
    )


def _shares(traffic: tuple[TrafficTarget, ...], latest: str) -> dict[tuple[str, str], int]:
    """Percent by tag and Revision: a status merges targets that say the same."""
    shares: dict[tuple[str, str], int] = {}
    for target in traffic:
        key = (target.tag, target.revision_name or latest)
        shares[key] = shares.get(key, 0) + (target.percent or 0)
    return shares


def _with_status(ksvc: Service, status: ServiceStatus, conditions: Conditions, writes: list[Write]) -> list[Write]:
    new = msgspec.structs.replace(status, conditions=conditions)
    patch = status_patch(KSERVICES, ksvc.metadata, old=ksvc.status, new=new)
    return [*writes, patch] if patch else writes
