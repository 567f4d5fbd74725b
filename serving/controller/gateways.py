"""What each gateway last reported: programmed routes, draining pods, revisions that go to the activator.

Pure state, fed by `reports_server`. A gateway that is silent keeps its last word until its Lease expires; who is
alive (the wait set) is therefore passed in by the caller, from the Leases.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from serving.api.reports import ColdRevisions, Drains, Hello, PodDrain, Programmed


class GatewayReports:
    """Last level of every gateway, by gateway name."""

    def __init__(self) -> None:
        self._programmed: dict[str, dict[str, str]] = {}
        self._drains: dict[str, dict[str, PodDrain]] = {}
        self._cold: dict[str, frozenset[str]] = {}
        self._incarnations: dict[str, str] = {}

    def hello(self, message: Hello) -> None:
        """A gateway (re)connected; what an earlier incarnation said no longer holds."""
        if self._incarnations.get(message.gateway) != message.incarnation:
            self.forget(message.gateway)
            self._incarnations[message.gateway] = message.incarnation

    def forget(self, gateway: str) -> None:
        for level in (self._programmed, self._drains, self._cold, self._incarnations):
            level.pop(gateway, None)

    def set_programmed(self, gateway: str, message: Programmed) -> set[str]:
        """Store; returns the routes whose programming changed."""
        old = self._programmed.get(gateway, {})
        self._programmed[gateway] = message.routes
        return {
            route for route in old.keys() | message.routes.keys() if old.get(route) != message.routes.get(route)
        }

    def set_drains(self, gateway: str, message: Drains) -> set[str]:
        """Store; returns the uids of pods whose drain changed."""
        old = self._drains.get(gateway, {})
        self._drains[gateway] = dict(message.pods)
        return {uid for uid in old.keys() | message.pods.keys() if old.get(uid) != message.pods.get(uid)}

    def forget_drain(self, uid: str) -> None:
        """A drain is taken back: what was said of it does not hold for the next drain of the same pod."""
        for pods in self._drains.values():
            pods.pop(uid, None)

    def set_cold(self, gateway: str, message: ColdRevisions) -> set[str]:
        """Store; returns the revisions whose membership changed."""
        old = self._cold.get(gateway, frozenset())
        self._cold[gateway] = message.revisions
        return set(old ^ message.revisions)

    def programmed(self, route: str, expected: str, *, alive: Collection[str]) -> bool | None:
        """Whether every live gateway serves `route` as `expected`; None while it is not known: no gateway
        lives, or one says nothing of the route, because it or this controller has just started."""
        said = [self._programmed.get(name, {}).get(route) for name in alive]
        if any(hash_ not in (None, expected) for hash_ in said):
            return False
        return True if said and None not in said else None

    def cold(self, revision: str, *, alive: Collection[str]) -> bool:
        """Whether every live gateway sends new requests of `revision` to its activator."""
        return all(revision in self._cold.get(name, frozenset()) for name in alive)

    @property
    def drains(self) -> Mapping[str, Mapping[str, PodDrain]]:
        """What each gateway says of draining pods, by gateway and pod uid."""
        return self._drains
