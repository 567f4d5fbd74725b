"""Route: which revisions get which share, under which hosts, and whether every gateway knows it.

`status.traffic` is what gateways serve. While a target is bad it keeps its last good value, so old revisions go
on serving. `IngressReady` is True once every live gateway reported that Envoy acknowledged exactly this status.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from serving.api import keys
from serving.api.conditions import Conditions, ConditionSet
from serving.api.meta import find_condition
from serving.api.resources import ROUTES
from serving.api.routing import HostConflict
from serving.api.v1 import Address, Configuration, Revision, Route, TrafficTarget
from serving.controller.writes import Write, status_patch

CONDITIONS = ConditionSet(dependents=("AllTrafficAssigned", "CertificateProvisioned", "IngressReady"))


class Urls(msgspec.Struct, frozen=True, kw_only=True):
    """Where a Route is reached: `tags` by tag name. `error` when the domain configuration is unusable."""

    url: str = ""
    local_url: str = ""
    tags: dict[str, str] = {}
    cluster_local: bool = False
    error: str = ""


class _Bad(Exception):
    """A target that cannot be served: False or Unknown, with Knative's reason and message."""

    def __init__(self, status: str, reason: str, message: str) -> None:
        self.status, self.reason, self.message = status, reason, message


class Lookup(msgspec.Struct, frozen=True):
    """Objects of the Route's namespace by name."""

    configuration: Callable[[str], Configuration | None]
    revision: Callable[[str], Revision | None]


def reconcile_route(
    route: Route,
    *,
    lookup: Lookup,
    urls: Urls,
    conflict: HostConflict | None,
    programmed: Callable[[Route], bool | None],
    now: str,
) -> list[Write]:
    """The status write that is due, if any.

    `programmed` tells whether all gateways serve a given Route (status included) as it is; None = not known yet,
    which changes nothing for a Route that is served as before.
    """
    conditions = CONDITIONS.initialise(route.status.conditions, now=now)
    status = msgspec.structs.replace(route.status, observed_generation=route.metadata.generation)
    reason = "TLSNotEnabled"
    message = (
        "TLS is not enabled for cluster-local" if urls.cluster_local else "external-domain-tls is not enabled"
    )
    conditions = CONDITIONS.mark_true(
        conditions, "CertificateProvisioned", reason=reason, message=message, now=now
    )
    try:
        if urls.error:
            raise _Bad("False", "ErrorConfig", urls.error)
        if conflict is not None:
            raise _Bad("False", "DomainConflict", conflict.message)
        traffic = resolve_traffic(route, lookup, urls)
    except _Bad as bad:
        mark = CONDITIONS.mark_false if bad.status == "False" else CONDITIONS.mark_unknown
        conditions = mark(conditions, "AllTrafficAssigned", reason=bad.reason, message=bad.message, now=now)
        if not route.status.traffic:
            conditions = _ingress_pending(conditions, now)
    else:
        conditions = CONDITIONS.mark_true(conditions, "AllTrafficAssigned", now=now)
        status = msgspec.structs.replace(status, traffic=traffic)
    if not urls.error:
        status = msgspec.structs.replace(status, url=urls.url, address=Address(url=urls.local_url))
    if status.traffic:
        served = msgspec.structs.replace(route, status=status)
        done = programmed(served)
        if done is None:
            done = _is_served(route) and (status.traffic, status.url) == (route.status.traffic, route.status.url)
        if done:
            conditions = CONDITIONS.mark_true(conditions, "IngressReady", now=now)
        else:
            conditions = CONDITIONS.mark_unknown(
                conditions,
                "IngressReady",
                reason="Uninitialized",
                message="Waiting for load balancer to be ready",
                now=now,
            )
    new = msgspec.structs.replace(status, conditions=conditions)
    patch = status_patch(ROUTES, route.metadata, old=route.status, new=new)
    return [patch] if patch else []


def _is_served(route: Route) -> bool:
    ready = find_condition(route.status.conditions, "IngressReady")
    return ready is not None and ready.status == "True"


def _ingress_pending(conditions: Conditions, now: str) -> Conditions:
    return CONDITIONS.mark_unknown(
        conditions,
        "IngressReady",
        reason="IngressNotConfigured",
        message="Ingress has not yet been reconciled.",
        now=now,
    )


def resolve_traffic(route: Route, lookup: Lookup, urls: Urls) -> tuple[TrafficTarget, ...]:
    """`status.traffic`: each target with its Revision. A False target beats an Unknown one."""
    resolved: list[TrafficTarget] = []
    worst: _Bad | None = None
    for target in route.spec.traffic:
        try:
            revision = _revision_of(route, target, lookup)
        except _Bad as bad:
            if worst is None or (worst.status == "Unknown" and bad.status == "False"):
                worst = bad
            continue
        resolved.append(
            TrafficTarget(
                revision_name=revision,
                latest_revision=target.latest_revision
                if target.latest_revision is not None
                else not target.revision_name,
                percent=target.percent or 0,
                tag=target.tag,
                url=urls.tags.get(target.tag, "") if target.tag else "",
            )
        )
    if worst is not None:
        raise worst
    return _merged(resolved)


def _merged(targets: list[TrafficTarget]) -> tuple[TrafficTarget, ...]:
    merged: dict[tuple[str, str, bool | None], TrafficTarget] = {}
    for target in targets:
        key = (target.tag, target.revision_name, target.latest_revision)
        if key in merged:
            percent = (merged[key].percent or 0) + (target.percent or 0)
            merged[key] = msgspec.structs.replace(merged[key], percent=percent)
        else:
            merged[key] = target
    return tuple(merged.values())


def _revision_of(route: Route, target: TrafficTarget, lookup: Lookup) -> str:
    if target.revision_name:
        return _explicit(route, target.revision_name, lookup)
    name = target.configuration_name
    configuration = lookup.configuration(name)
    if configuration is None:
        raise _Bad("False", "ConfigurationMissing", f'Configuration "{name}" referenced in traffic not found.')
    latest = configuration.status.latest_ready_revision_name
    if latest and lookup.revision(latest) is not None:
        return latest
    ready = find_condition(configuration.status.conditions, "Ready")
    if ready is not None and ready.status == "False":
        raise _Bad("False", "RevisionMissing", f'Configuration "{name}" does not have any ready Revision.')
    raise _Bad("Unknown", "RevisionMissing", f'Configuration "{name}" is waiting for a Revision to become ready.')


def _explicit(route: Route, name: str, lookup: Lookup) -> str:
    revision = lookup.revision(name)
    if revision is None:
        raise _Bad("False", "RevisionMissing", f'Revision "{name}" referenced in traffic not found.')
    service = route.metadata.labels.get(keys.SERVICE, "")
    if service and route.metadata.controller_ref() is not None:
        owner = revision.metadata.labels.get(keys.SERVICE, "")
        if owner != service:
            text = (
                f'Revision "{name}" belongs to Service "{owner}", not Service "{service}".'
                if owner
                else f'Revision "{name}" does not belong to Service "{service}".'
            )
            raise _Bad("False", "RevisionNotOwned", text)
    ready = find_condition(revision.status.conditions, "Ready")
    if ready is None or ready.status == "Unknown":
        raise _Bad("Unknown", "RevisionMissing", f'Revision "{name}" is not yet ready.')
    if ready.status == "False":
        raise _Bad("False", "RevisionMissing", f'Revision "{name}" failed to become ready.')
    return name
