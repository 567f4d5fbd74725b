"""Kubernetes objects to IR. Pure: the whole routing table from all Routes and Revisions.

A Route is served as its status says (`status.traffic` is already resolved to revisions by the controller). What
cannot be served is left out and named in the list of problems; it never takes anything else with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from serving.activator.model import RevisionConfig
from serving.api.config.features import DISABLED
from serving.api.config.store import ApiConfig
from serving.api.duration import parse_seconds
from serving.api.keys import ANNOTATION_BUDGET
from serving.api.pod import ExecAction, Probe
from serving.api.routing import (
    DEFAULT_CLUSTER_DOMAIN,
    DEFAULT_TAG,
    DEFAULT_TAG_TEMPLATE,
    HostClaim,
    host_owners,
    programmed_hash,
)
from serving.api.v1 import Revision, RevisionSpec, Route, TrafficTarget
from serving.gateway.ir import (
    DEFAULT_UPSTREAM_IDLE_SECONDS,
    SLOTS_LIMIT,
    Ir,
    Mode,
    Problem,
    RevisionCluster,
    Share,
    Target,
    VirtualHost,
)

ANNOTATION_UPSTREAM_IDLE: Final = "nodeless.dev/upstream-idle-timeout"
"""On a Revision: Go duration, 0s < value <= 1h, default 4s. How long an idle connection to a pod is kept."""

_DEFAULT_TIMEOUT_SECONDS: Final = 300
_LONGEST_IDLE_SECONDS: Final = 3600.0


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Cluster-wide settings that decide routing. `workers`: Envoy's worker threads; per-host limits are strict
    only with one, so with more every hard limit is kept by slots."""

    cluster_domain: str = DEFAULT_CLUSTER_DOMAIN
    tag_template: str = DEFAULT_TAG_TEMPLATE
    tag_headers: bool = False
    workers: int = 1


def config_from(api: ApiConfig, *, cluster_domain: str, workers: int) -> GatewayConfig:
    """From config-network and config-features."""
    return GatewayConfig(
        cluster_domain=cluster_domain,
        tag_template=api.network.tag_template.text,
        tag_headers=api.features.tag_header_based_routing != DISABLED,
        workers=workers,
    )


def build(
    routes: Iterable[Route],
    revisions: Mapping[str, Revision],
    *,
    config: GatewayConfig,
    populated: Iterable[str] = (),
) -> tuple[Ir, list[Problem]]:
    """IR of all Routes. `revisions` by key; `populated`: keys of revisions that have pods, which keep their
    cluster although no Route names them (they are about to be routed to, or their requests are running out)."""
    routes = list(routes)
    problems: list[Problem] = []
    granted, conflicts = host_owners(
        routes, cluster_domain=config.cluster_domain, tag_template=config.tag_template
    )
    problems += [
        Problem(object=f"Route {conflict.loser}", reason="HostConflict", message=conflict.message)
        for conflict in conflicts
    ]
    wanted = {
        f"{route.metadata.namespace}/{target.revision_name}" for route in routes for target in route.status.traffic
    }
    clusters = _clusters(sorted(wanted.union(populated)), revisions, config=config, problems=problems)
    public: dict[str, VirtualHost] = {}
    local: dict[str, VirtualHost] = {}
    served: dict[str, str] = {}
    for route in routes:
        hosts = _virtual_hosts(
            route, granted.get(route.metadata.key, {}), clusters, config=config, problems=problems
        )
        for outside, host in hosts:
            (public if outside else local)[host.name] = host
            served[route.metadata.key] = programmed_hash(route)
    return Ir(public=public, local=local, revisions=clusters, routes=served), problems


def revision_cluster(revision: Revision, *, workers: int = 1) -> tuple[RevisionCluster, list[Problem]]:
    """One Revision as the data path sees it. Raises ValueError (msgspec.ValidationError included) on a spec that
    admission would have refused."""
    spec = revision.view()
    port = spec.serving_port()
    cc = spec.container_concurrency or 0
    h2c = port.name == "h2c"
    idle, problems = _upstream_idle(revision)
    config = RevisionConfig(
        key=revision.metadata.key,
        uid=revision.metadata.uid,
        container_concurrency=cc,
        timeout_seconds=float(spec.timeout_seconds or _DEFAULT_TIMEOUT_SECONDS),
        response_start_timeout_seconds=_positive(spec.response_start_timeout_seconds),
        h2c=h2c,
        readiness=_readiness(spec),
        port=port.container_port,
        server_timing=revision.metadata.annotations.get(ANNOTATION_BUDGET, "").lower() == "enabled",
    )
    mode = _mode(cc, h2c=h2c, workers=workers)
    silence = _positive(spec.idle_timeout_seconds) or 0.0
    cluster = RevisionCluster(config=config, mode=mode, upstream_idle_seconds=idle, idle_seconds=silence)
    return cluster, problems


def _clusters(
    keys: Iterable[str],
    revisions: Mapping[str, Revision],
    *,
    config: GatewayConfig,
    problems: list[Problem],
) -> dict[str, RevisionCluster]:
    clusters: dict[str, RevisionCluster] = {}
    for key in keys:
        revision = revisions.get(key)
        if revision is None:
            continue
        try:
            clusters[key], found = revision_cluster(revision, workers=config.workers)
        except ValueError as error:
            problems.append(Problem(object=f"Revision {key}", reason="InvalidSpec", message=str(error)))
        else:
            problems += found
    return clusters


def _virtual_hosts(
    route: Route,
    claims: Mapping[str, HostClaim],
    clusters: Mapping[str, RevisionCluster],
    *,
    config: GatewayConfig,
    problems: list[Problem],
) -> list[tuple[bool, VirtualHost]]:
    """Virtual hosts of one Route, each with whether it is public."""
    key = route.metadata.key
    tagged = {target.tag: target for target in route.status.traffic if target.tag}
    missing = sorted(
        {t.revision_name for t in route.status.traffic if _key(route, t) not in clusters} - {""},
    )
    problems += [
        Problem(object=f"Route {key}", reason="RevisionMissing", message=f'Revision "{name}" is unknown.')
        for name in missing
    ]
    by_tag = tuple((tag, target) for tag, t in sorted(tagged.items()) if (target := _target(route, t, clusters)))
    hosts = []
    for tag in sorted({claim.tag for claim in claims.values()}):
        traffic = route.status.traffic if tag == DEFAULT_TAG else (tagged[tag],)
        shares = _shares(route, traffic, clusters, whole=tag != DEFAULT_TAG)
        if not shares:
            continue
        for public in (True, False):
            domains = tuple(sorted(h for h, c in claims.items() if c.tag == tag and c.public is public))
            if domains:
                host = VirtualHost(
                    name=f"{key}#{tag}" if tag else key,
                    route=key,
                    tag=tag,
                    domains=domains,
                    shares=shares,
                    by_tag=by_tag if config.tag_headers and tag == DEFAULT_TAG else (),
                    tag_headers=config.tag_headers,
                )
                hosts.append((public, host))
    return hosts


def _shares(
    route: Route,
    traffic: Iterable[TrafficTarget],
    clusters: Mapping[str, RevisionCluster],
    *,
    whole: bool,
) -> tuple[Share, ...]:
    """Percentages by revision, summing to 100. `whole`: one target takes all (a tag's host, even at 0 %).

    The share of a revision that is gone is given to the others in proportion.
    """
    percents: dict[Target, int] = {}
    for entry in traffic:
        percent = 100 if whole else (entry.percent or 0)
        target = _target(route, entry, clusters)
        if target is not None and percent > 0:
            percents[target] = percents.get(target, 0) + percent
    total = sum(percents.values())
    shares = []
    passed = given = 0
    for target, percent in percents.items():
        passed += percent
        upto = round(passed * 100 / total)
        if upto > given:
            shares.append(Share(target=target, percent=upto - given))
        given = upto
    return tuple(shares)


def _target(route: Route, entry: TrafficTarget, clusters: Mapping[str, RevisionCluster]) -> Target | None:
    cluster = clusters.get(_key(route, entry))
    if cluster is None:
        return None
    return Target(
        revision=cluster.key,
        response_start_seconds=cluster.config.hold_seconds,
        idle_seconds=cluster.idle_seconds,
    )


def _key(route: Route, entry: TrafficTarget) -> str:
    return f"{route.metadata.namespace}/{entry.revision_name}"


def _mode(cc: int, *, h2c: bool, workers: int) -> Mode:
    if cc == 0:
        return Mode.DIRECT
    return Mode.SLOTS if cc <= SLOTS_LIMIT or h2c or workers > 1 else Mode.LIMITED


def _readiness(spec: RevisionSpec) -> Probe | None:
    """With a startup probe only Kubernetes knows when the pod may be asked; an exec probe says the same."""
    container = spec.serving_container()
    return Probe(exec=ExecAction()) if container.startup_probe is not None else container.readiness_probe


def _positive(value: int | None) -> float | None:
    return float(value) if value else None


def _upstream_idle(revision: Revision) -> tuple[float, list[Problem]]:
    text = revision.metadata.annotations.get(ANNOTATION_UPSTREAM_IDLE)
    if text is None:
        return DEFAULT_UPSTREAM_IDLE_SECONDS, []
    try:
        seconds = parse_seconds(text)
    except ValueError as error:
        seconds, why = 0.0, str(error)
    else:
        why = f"want 0s < value <= 1h, got {text!r}"
    if 0 < seconds <= _LONGEST_IDLE_SECONDS:
        return seconds, []
    message = f"metadata.annotations.{ANNOTATION_UPSTREAM_IDLE}: {why}; using the default"
    return DEFAULT_UPSTREAM_IDLE_SECONDS, [
        Problem(object=f"Revision {revision.metadata.key}", reason="InvalidAnnotation", message=message)
    ]
