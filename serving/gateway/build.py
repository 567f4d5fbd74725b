"""Kubernetes objects to IR. Pure: the whole routing table from all Routes and Revisions.

A Route is served as its status says (`status.traffic` is already resolved to revisions by the controller). What
cannot be served is left out and named in the list of problems; it never takes anything else with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from serving.activator.model import RevisionConfig
from serving.api.config.features import ENABLED
from serving.api.config.network import HTTP_ENABLED
from serving.api.config.store import ApiConfig
from serving.api.duration import parse_seconds
from serving.api.http_option import redirects
from serving.api.keys import ANNOTATION_BUDGET, CONFIGURATION, SERVICE, SERVING_GROUP
from serving.api.pod import ExecAction, Probe
from serving.api.routing import (
    DEFAULT_CLUSTER_DOMAIN,
    DEFAULT_TAG,
    DEFAULT_TAG_TEMPLATE,
    HostClaim,
    host_owners,
    mapping_hash,
    programmed_hash,
    tag_shares,
)
from serving.api.v1 import Revision, RevisionSpec, Route
from serving.api.v1beta1 import DomainMapping
from serving.gateway.ir import (
    DEFAULT_UPSTREAM_IDLE_SECONDS,
    SLOTS_LIMIT,
    Ir,
    Mode,
    Problem,
    RequestLog,
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
    http_protocol: str = HTTP_ENABLED
    direct_mappings: bool = False
    workers: int = 1
    request_log: RequestLog | None = None


def config_from(
    api: ApiConfig, *, cluster_domain: str, workers: int, request_log_path: str = "/dev/stdout"
) -> GatewayConfig:
    """From config-network and config-features."""
    return GatewayConfig(
        cluster_domain=cluster_domain,
        tag_template=api.network.tag_template.text,
        tag_headers=api.features.tag_header_based_routing == ENABLED,
        http_protocol=api.network.http_protocol,
        direct_mappings=api.features.domainmapping_direct_route_traffic == ENABLED,
        workers=workers,
        request_log=RequestLog(
            template=api.observability.request_log_template,
            probes=api.observability.enable_probe_request_log,
            path=request_log_path,
        )
        if api.observability.enable_request_log
        else None,
    )


def build(
    routes: Iterable[Route],
    revisions: Mapping[str, Revision],
    *,
    config: GatewayConfig,
    populated: Iterable[str] = (),
    mappings: Iterable[DomainMapping] = (),
) -> tuple[Ir, list[Problem]]:
    """IR of all Routes and DomainMappings. `revisions` by key; `populated`: keys of revisions that have pods,
    which keep their cluster although no Route names them (they are about to be routed to, or their requests are
    running out)."""
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
    taken = {host for claims in granted.values() for host in claims}
    by_key = {route.metadata.key: route for route in routes}
    for mapping in sorted(mappings, key=lambda one: one.metadata.key):
        extra = _mapped(mapping, by_key, clusters, taken, config=config, problems=problems)
        if extra is not None:
            public[extra.name] = extra
            taken.add(mapping.metadata.name)
            served[mapping.programmed_key] = mapping_hash(mapping)
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
    labels = revision.metadata.labels
    cluster = RevisionCluster(
        config=config,
        mode=mode,
        upstream_idle_seconds=idle,
        idle_seconds=silence,
        service=labels.get(SERVICE, ""),
        configuration=labels.get(CONFIGURATION, ""),
    )
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
    missing = sorted(
        {t.revision_name for t in route.status.traffic if _key(route, t.revision_name) not in clusters} - {""},
    )
    problems += [
        Problem(object=f"Route {key}", reason="RevisionMissing", message=f'Revision "{name}" is unknown.')
        for name in missing
    ]
    by_tag = _by_tag(route, clusters)
    redirect = redirects(route.metadata.annotations, default=config.http_protocol)
    hosts = []
    for tag in sorted({claim.tag for claim in claims.values()}):
        shares = _own_shares(route, clusters) if tag == DEFAULT_TAG else by_tag.get(tag, ())
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
                    by_tag=tuple(by_tag.items()) if config.tag_headers and tag == DEFAULT_TAG else (),
                    tag_headers=config.tag_headers,
                    redirect=redirect and public,
                )
                hosts.append((public, host))
    return hosts


def _mapped(
    mapping: DomainMapping,
    routes: Mapping[str, Route],
    clusters: Mapping[str, RevisionCluster],
    taken: set[str],
    *,
    config: GatewayConfig,
    problems: list[Problem],
) -> VirtualHost | None:
    """The virtual host of a DomainMapping: what its Route serves inside the cluster, under another name."""
    target = mapping.target()
    route = routes.get(target[0]) if target else None
    if target is None or route is None:
        return None
    meta, tag = mapping.metadata, target[1]
    if meta.name in taken:
        message = f'Host "{meta.name}" is already in use.'
        problems.append(Problem(object=f"DomainMapping {meta.key}", reason="HostConflict", message=message))
        return None
    by_tag = _by_tag(route, clusters)
    shares = by_tag.get(tag, ()) if tag else _own_shares(route, clusters)
    if not shares:
        return None
    ref = mapping.spec.ref
    direct = config.direct_mappings and ref.api_version.startswith(f"{SERVING_GROUP}/")
    return VirtualHost(
        name=mapping.programmed_key,
        route=mapping.programmed_key,
        tag=tag,
        domains=(meta.name,),
        shares=shares,
        by_tag=tuple(by_tag.items()) if config.tag_headers and not tag else (),
        tag_headers=config.tag_headers,
        redirect=redirects(meta.annotations, default=config.http_protocol),
        mapped=True,
        rewrite="" if direct else f"{ref.name}.{meta.namespace}.svc.{config.cluster_domain}",
    )


def _by_tag(route: Route, clusters: Mapping[str, RevisionCluster]) -> dict[str, tuple[Share, ...]]:
    """Shares behind each tag that has a revision to serve."""
    found = {tag: _shares(route, rows, clusters) for tag, rows in sorted(tag_shares(route).items())}
    return {tag: shares for tag, shares in found.items() if shares}


def _own_shares(route: Route, clusters: Mapping[str, RevisionCluster]) -> tuple[Share, ...]:
    return _shares(route, [(one.revision_name, one.percent or 0) for one in route.status.traffic], clusters)


def _shares(
    route: Route, rows: Iterable[tuple[str, int]], clusters: Mapping[str, RevisionCluster]
) -> tuple[Share, ...]:
    """Percentages by revision, summing to 100. The share of a revision that is gone is given to the others in
    proportion."""
    percents: dict[Target, int] = {}
    for revision, percent in rows:
        target = _target(clusters.get(_key(route, revision)))
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


def _target(cluster: RevisionCluster | None) -> Target | None:
    if cluster is None:
        return None
    return Target(
        revision=cluster.key,
        response_start_seconds=cluster.config.hold_seconds,
        idle_seconds=cluster.idle_seconds,
    )


def _key(route: Route, revision: str) -> str:
    return f"{route.metadata.namespace}/{revision}"


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
