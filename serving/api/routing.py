"""Which hosts a Route asks for, who owns a host, and what of a Route decides how gateways serve it.

Shared by the gateway, which programs hosts, and the controller, which reports losers and waits until gateways
have programmed what it wrote. A Route asks for what its status says: `status.url`, `status.traffic[].url` and
the cluster-local forms of both. Every host has one owner, the oldest claimant; uid breaks ties.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import msgspec

from serving.api import timestamps
from serving.api.config.template import Template, parse_template
from serving.api.http_option import http_option
from serving.api.rollout import read_rollout
from serving.api.v1 import Route
from serving.api.v1beta1 import DomainMapping

DEFAULT_CLUSTER_DOMAIN: Final = "cluster.local"
DEFAULT_TAG_TEMPLATE: Final = "{{.Tag}}-{{.Name}}"
DEFAULT_TAG: Final = ""
"""The target that the Route's own host leads to."""

_HOST = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)


class HostClaim(msgspec.Struct, frozen=True, kw_only=True):
    """One host that a Route asks for. `tag` is empty for the Route's own host. `public`: reachable from outside
    the cluster; otherwise only on the cluster-local listener."""

    host: str
    tag: str
    public: bool


class HostConflict(msgspec.Struct, frozen=True, kw_only=True):
    """`loser` asked for `host`, which belongs to `owner`. Both are Route keys, `namespace/name`."""

    host: str
    owner: str
    loser: str

    @property
    def message(self) -> str:
        return f'Host "{self.host}" is already in use by Route "{self.owner}".'


def host_claims(
    route: Route,
    *,
    cluster_domain: str = DEFAULT_CLUSTER_DOMAIN,
    tag_template: str = DEFAULT_TAG_TEMPLATE,
) -> tuple[HostClaim, ...]:
    """Hosts of a Route, its own first, then by tag. Empty while its status has no URL, or once it is deleted."""
    if not route.status.url or route.metadata.deletion_timestamp:
        return ()
    suffix = f".svc.{cluster_domain}"
    urls = {DEFAULT_TAG: route.status.url}
    urls |= {target.tag: target.url for target in route.status.traffic if target.tag}
    claims: list[HostClaim] = []
    for tag in sorted(urls):
        host = _host(urls[tag])
        name = tag_name(tag, route.metadata.name, template=tag_template) if tag else route.metadata.name
        if host and not host.endswith(suffix):
            claims.append(HostClaim(host=host, tag=tag, public=True))
        base = f"{name}.{route.metadata.namespace}"
        claims.extend(
            HostClaim(host=form, tag=tag, public=False) for form in (base, f"{base}.svc", f"{base}{suffix}")
        )
    return tuple(claims)


def tag_name(tag: str, name: str, *, template: str = DEFAULT_TAG_TEMPLATE) -> str:
    """Name that stands for the Route's in the hosts of a tag: `tag-template` of config-network, filled in.

    Raises TemplateError (a ValueError) for a template that config-network would have refused.
    """
    return _parsed(template).render({"Name": name, "Tag": tag})


@lru_cache(maxsize=8)
def _parsed(template: str) -> Template:
    return parse_template(template, name="tag-template")


def seniority(route: Route) -> tuple[float, str]:
    """Sort key by which the owner of a host is found: smaller wins. A Route without a time is the youngest."""
    created = route.metadata.creation_timestamp
    return (timestamps.parse(created) if created else float("inf"), route.metadata.uid)


def host_owners(
    routes: Iterable[Route],
    *,
    cluster_domain: str = DEFAULT_CLUSTER_DOMAIN,
    tag_template: str = DEFAULT_TAG_TEMPLATE,
) -> tuple[dict[str, dict[str, HostClaim]], list[HostConflict]]:
    """What each Route may serve: Route key to its claims by host; and the claims that were lost.

    A Route that claims a host twice keeps its first claim.
    """
    owner_of: dict[str, str] = {}
    granted: dict[str, dict[str, HostClaim]] = {}
    conflicts: list[HostConflict] = []
    for route in sorted(routes, key=seniority):
        key = route.metadata.key
        mine = granted.setdefault(key, {})
        for claim in host_claims(route, cluster_domain=cluster_domain, tag_template=tag_template):
            owner = owner_of.setdefault(claim.host, key)
            if owner == key:
                mine.setdefault(claim.host, claim)
            else:
                conflicts.append(HostConflict(host=claim.host, owner=owner, loser=key))
    return granted, conflicts


def tag_shares(route: Route) -> dict[str, tuple[tuple[str, int], ...]]:
    """Revisions behind each tag's own hosts with their percentages, summing to 100: one Revision takes all, but
    while a rollout is under way."""
    rollout = read_rollout(route.status.annotations)
    shares: dict[str, tuple[tuple[str, int], ...]] = {}
    for target in route.status.traffic:
        if not target.tag or target.tag in shares:
            continue
        shares[target.tag] = ((target.revision_name, 100),)
        for one in rollout.of_tag(target.tag) if rollout is not None else ():
            shares[target.tag] = tuple((row.revision_name, row.percent) for row in one.revisions)
    return shares


def programmed_hash(route: Route) -> str:
    """16 hex digits over what of a Route decides its programming: identity, hosts, traffic and redirect.

    The controller compares it with what gateways report as acknowledged.
    """
    traffic = [
        (target.revision_name, target.percent or 0, target.tag, target.url) for target in route.status.traffic
    ]
    facts = (route.metadata.key, route.metadata.uid, route.status.url, traffic)
    return hashlib.sha256(msgspec.json.encode((*facts, *_special(route)))).hexdigest()[:16]


def mapping_hash(mapping: DomainMapping) -> str:
    """As `programmed_hash`, of a DomainMapping."""
    facts = (mapping.metadata.key, mapping.metadata.uid, *mapping_facts(mapping))
    return hashlib.sha256(msgspec.json.encode(facts)).hexdigest()[:16]


def mapping_facts(mapping: DomainMapping) -> tuple[object, ...]:
    """What of a DomainMapping decides how gateways serve it."""
    return (mapping.metadata.uid, mapping.target(), http_option(mapping.metadata.annotations))


def routing_facts(route: Route) -> tuple[object, ...]:
    """What of a Route decides how gateways serve it. Equal facts need no new routing table."""
    meta = route.metadata
    gone = meta.deletion_timestamp is not None
    return (meta.uid, meta.creation_timestamp, gone, route.status.url, route.status.traffic, *_special(route))


def _special(route: Route) -> tuple[object, ...]:
    """What few Routes have."""
    found: list[object] = []
    if route.status.annotations:
        found.append(sorted(tag_shares(route).items()))
    if option := http_option(route.metadata.annotations):
        found.append(option)
    return tuple(found)


def _host(url: str) -> str:
    """Host of a URL without its port; empty when it has none, or one that no Route may have (a wildcard)."""
    host = (urlsplit(url).hostname or "").lower()
    return host if _HOST.fullmatch(host) else ""
