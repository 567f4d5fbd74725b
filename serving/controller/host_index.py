"""Who owns which host, kept up to date route by route. Pure state: the gateway decides by the same rule."""

from __future__ import annotations

from serving.api.routing import DEFAULT_TAG_TEMPLATE, HostConflict, host_claims, seniority
from serving.api.v1 import Route


class HostIndex:
    """Claims by host; a host belongs to its most senior claimant."""

    def __init__(self) -> None:
        self._claims: dict[str, dict[str, Route]] = {}
        self._hosts: dict[str, frozenset[str]] = {}

    def put(self, route: Route, *, tag_template: str = DEFAULT_TAG_TEMPLATE) -> set[str]:
        """Replace the claims of a Route; returns the other Routes whose conflicts may have changed."""
        claims = host_claims(route, tag_template=tag_template)
        return self._replace(route.metadata.key, frozenset(claim.host for claim in claims), route)

    def remove(self, key: str) -> set[str]:
        """Drop a Route's claims; returns the Routes that may own more now."""
        return self._replace(key, frozenset(), None)

    def owner(self, host: str) -> str:
        """Key of the Route that owns a host; empty when none claims it."""
        claims = self._claims.get(host)
        return min(claims.values(), key=seniority).metadata.key if claims else ""

    def conflict(self, key: str) -> HostConflict | None:
        """The first host, by name, that the Route asks for and an older one owns."""
        for host in sorted(self._hosts.get(key, ())):
            owner = min(self._claims[host].values(), key=seniority).metadata.key
            if owner != key:
                return HostConflict(host=host, owner=owner, loser=key)
        return None

    def _replace(self, key: str, hosts: frozenset[str], route: Route | None) -> set[str]:
        before = self._hosts.get(key, frozenset())
        affected: set[str] = set()
        for host in before ^ hosts:
            affected |= self._claims.get(host, {}).keys()
        for host in before - hosts:
            claims = self._claims[host]
            claims.pop(key, None)
            if not claims:
                del self._claims[host]
        if route is not None:
            for host in hosts:
                self._claims.setdefault(host, {})[key] = route
        if hosts:
            self._hosts[key] = hosts
        else:
            self._hosts.pop(key, None)
        affected.discard(key)
        return affected
