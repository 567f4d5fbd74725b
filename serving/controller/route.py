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
from serving.api.rollout import ROLLOUT_ANNOTATION, Rollout, read_rollout, write_rollout
from serving.api.routing import HostConflict
from serving.api.v1 import Address, Configuration, Revision, Route, RouteStatus, TrafficTarget
from serving.controller.rollout import Goal, observe_ready, split, steady, step
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


class Placeholders(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the Route's placeholder Services: `foreign` is the name of one that somebody else has."""

    complete: bool = True
    foreign: str = ""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a new revision takes over: in `seconds` (0 = at once). `now` is Unix time in nanoseconds."""

    seconds: int = 0
    now: int = 0


def reconcile_route(
    route: Route,
    *,
    lookup: Lookup,
    urls: Urls,
    conflict: HostConflict | None,
    programmed: Callable[[Route], bool | None],
    placeholders: Placeholders,
    pace: Pace,
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
    resolved: tuple[Resolved, ...] = ()
    try:
        if urls.error:
            raise _Bad("False", "ErrorConfig", urls.error)
        if conflict is not None:
            raise _Bad("False", "DomainConflict", conflict.message)
        resolved = resolve_traffic(route, lookup, urls)
    except _Bad as bad:
        mark = CONDITIONS.mark_false if bad.status == "False" else CONDITIONS.mark_unknown
        conditions = mark(conditions, "AllTrafficAssigned", reason=bad.reason, message=bad.message, now=now)
        if not route.status.traffic or route.metadata.generation != route.status.observed_generation:
            conditions = _ingress_pending(conditions, now)
    else:
        conditions = CONDITIONS.mark_true(conditions, "AllTrafficAssigned", now=now)
        ready = pace.seconds > 0 and programmed(route) is True
        rollout = _rollout(route, resolved, lookup, pace=pace, ready=ready)
        status = _assigned(status, resolved, rollout)
    if not urls.error:
        status = msgspec.structs.replace(status, url=urls.url, address=Address(url=urls.local_url))
    if resolved:
        served = msgspec.structs.replace(route, status=status)
        conditions = _ingress(conditions, route, served, programmed(served), placeholders, now)
    new = msgspec.structs.replace(status, conditions=conditions)
    patch = status_patch(ROUTES, route.metadata, old=route.status, new=new)
    return [patch] if patch else []


def _ingress(
    conditions: Conditions, before: Route, served: Route, done: bool | None, placeholders: Placeholders, now: str
) -> Conditions:
    """`IngressReady` of a Route that is to be `served` so; `done`: whether all gateways do, None = unknown."""
    if placeholders.foreign:
        message = f'There is an existing placeholder Service "{placeholders.foreign}" that we do not own.'
        return CONDITIONS.mark_false(conditions, "IngressReady", reason="NotOwned", message=message, now=now)
    old, new = before.status, served.status
    if new.annotations.get(ROLLOUT_ANNOTATION):
        return CONDITIONS.mark_unknown(
            conditions,
            "IngressReady",
            reason="RolloutInProgress",
            message="A gradual rollout of the latest revision(s) is in progress.",
            now=now,
        )
    was_served = _is_served(before) and (new.traffic, new.url) == (old.traffic, old.url)
    if done is None:
        done = was_served
    if done and (placeholders.complete or was_served):
        return CONDITIONS.mark_true(conditions, "IngressReady", now=now)
    return CONDITIONS.mark_unknown(
        conditions,
        "IngressReady",
        reason="Uninitialized",
        message="Waiting for load balancer to be ready",
        now=now,
    )


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


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """One target with its Revision, and the Configuration whose latest it follows (empty: a fixed Revision)."""

    target: TrafficTarget
    configuration: str = ""


def resolve_traffic(route: Route, lookup: Lookup, urls: Urls) -> tuple[Resolved, ...]:
    """Each target of the spec with its Revision. A False target beats an Unknown one."""
    resolved: list[Resolved] = []
    worst: _Bad | None = None
    for target in route.spec.traffic:
        try:
            revision = _revision_of(route, target, lookup)
        except _Bad as bad:
            if worst is None or (worst.status == "Unknown" and bad.status == "False"):
                worst = bad
            continue
        latest = target.latest_revision if target.latest_revision is not None else not target.revision_name
        shown = TrafficTarget(
            revision_name=revision,
            latest_revision=latest,
            percent=target.percent or 0,
            tag=target.tag,
            url=urls.tags.get(target.tag, "") if target.tag else "",
        )
        resolved.append(Resolved(target=shown, configuration=target.configuration_name if latest else ""))
    if worst is not None:
        raise worst
    return tuple(resolved)


def _rollout(route: Route, resolved: tuple[Resolved, ...], lookup: Lookup, *, pace: Pace, ready: bool) -> Rollout:
    """How far each target is; without a state in the status it begins from what is served now."""
    goal = steady(_goals(resolved))
    if pace.seconds <= 0:
        return goal
    before = read_rollout(route.status.annotations)
    if before is None:
        before = steady(_goals(_as_resolved(route, lookup)))
    elif ready:
        before = observe_ready(before, now=pace.now, duration_seconds=pace.seconds)
    return step(goal, before, now=pace.now)


def _goals(resolved: tuple[Resolved, ...]) -> list[Goal]:
    """Targets that follow a Configuration: their sum under the Route's own host, and each tag as a whole."""
    own: dict[tuple[str, str], int] = {}
    goals = []
    for one in resolved:
        if not one.configuration:
            continue
        revision, percent = one.target.revision_name, one.target.percent or 0
        own[one.configuration, revision] = own.get((one.configuration, revision), 0) + percent
        if one.target.tag:
            goals.append(Goal(configuration=one.configuration, tag=one.target.tag, revision=revision, percent=100))
    goals += [
        Goal(configuration=configuration, tag="", revision=revision, percent=percent)
        for (configuration, revision), percent in own.items()
    ]
    return goals


def _as_resolved(route: Route, lookup: Lookup) -> tuple[Resolved, ...]:
    """What the status says is served, with the Configurations that its latest revisions belong to."""
    found = []
    for target in route.status.traffic:
        revision = lookup.revision(target.revision_name)
        if target.latest_revision and revision is not None:
            name = revision.metadata.labels.get(keys.CONFIGURATION, "")
            found.append(Resolved(target=target, configuration=name))
    return tuple(found)


def _assigned(status: RouteStatus, resolved: tuple[Resolved, ...], rollout: Rollout) -> RouteStatus:
    """`status` with the traffic of this moment, and the state of the rollout while there is one."""
    percents: dict[str, list[int]] = {}
    for one in resolved:
        if one.configuration:
            percents.setdefault(one.configuration, []).append(one.target.percent or 0)
    dealt = split(rollout, percents)
    targets: list[TrafficTarget] = []
    for one in resolved:
        shares = dealt[one.configuration].pop(0) if one.configuration else []
        rows = {share.revision_name: share.percent for share in shares}
        tagged = rollout.of(one.configuration, one.target.tag) if one.configuration and one.target.tag else None
        for share in tagged.revisions if tagged is not None else ():
            rows.setdefault(share.revision_name, 0)  # behind the tag's own host it still has its share
        if not rows:
            rows = {one.target.revision_name: one.target.percent or 0}
        targets += [
            msgspec.structs.replace(one.target, revision_name=name, percent=percent)
            for name, percent in rows.items()
        ]
    annotations = {key: text for key, text in status.annotations.items() if key != ROLLOUT_ANNOTATION}
    if not rollout.done:
        annotations[ROLLOUT_ANNOTATION] = write_rollout(rollout)
    return msgspec.structs.replace(status, traffic=_merged(targets), annotations=annotations)


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
    if latest:
        return _ready(latest, lookup)
    ready = find_condition(configuration.status.conditions, "Ready")
    if ready is not None and ready.status == "False":
        raise _Bad("False", "RevisionMissing", f'Configuration "{name}" does not have any ready Revision.')
    raise _Bad("Unknown", "RevisionMissing", f'Configuration "{name}" is waiting for a Revision to become ready.')


def _explicit(route: Route, name: str, lookup: Lookup) -> str:
    revision = lookup.revision(name)
    if revision is None:
        return _ready(name, lookup)
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
    return _ready(name, lookup)


def _ready(name: str, lookup: Lookup) -> str:
    revision = lookup.revision(name)
    if revision is None:
        raise _Bad("False", "RevisionMissing", f'Revision "{name}" referenced in traffic not found.')
    ready = find_condition(revision.status.conditions, "Ready")
    if ready is None or ready.status == "Unknown":
        raise _Bad("Unknown", "RevisionMissing", f'Revision "{name}" is not yet ready.')
    if ready.status == "False":
        raise _Bad("False", "RevisionMissing", f'Revision "{name}" failed to become ready.')
    return name
