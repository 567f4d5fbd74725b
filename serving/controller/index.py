"""Secondary indexes of the informers: which objects have to be looked at again when another one changes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Generic, TypeVar

from serving.api import keys
from serving.api.kube_service import KubeService
from serving.api.meta import Model
from serving.api.pod import Pod
from serving.api.v1 import Configuration, Revision, Route
from serving.controller.naming import wanted_name

T = TypeVar("T", bound=Model)


class Index(Generic[T]):
    """Objects grouped by keys that a function finds in them. Feed it every change of the informer."""

    def __init__(self, groups_of: Callable[[T], Iterable[str]]) -> None:
        self._groups_of = groups_of
        self._groups: dict[str, dict[str, T]] = {}

    def change(self, key: str, old: T | None, new: T | None) -> set[str]:
        """Update for one object; returns the groups that it was in or is in now."""
        touched: set[str] = set()
        for group in self._groups_of(old) if old is not None else ():
            touched.add(group)
            members = self._groups.get(group, {})
            members.pop(key, None)
            if not members:
                self._groups.pop(group, None)
        for group in self._groups_of(new) if new is not None else ():
            touched.add(group)
            self._groups.setdefault(group, {})[key] = new  # type: ignore[assignment]
        return touched

    def get(self, group: str) -> Collection[T]:
        return self._groups.get(group, {}).values()

    def keys(self, group: str) -> Collection[str]:
        return self._groups.get(group, {}).keys()


def revision_of_pod(pod: Pod) -> tuple[str, ...]:
    """Key of the Revision that a pod belongs to."""
    name = pod.metadata.labels.get(keys.REVISION)
    return (f"{pod.metadata.namespace}/{name}",) if name else ()


def uids_of_pod(pod: Pod) -> tuple[str, ...]:
    """The pod's own uid, and that of its Revision: names are used again, uids are not."""
    revision = pod.metadata.labels.get(keys.REVISION_UID)
    return (pod.metadata.uid, revision) if revision else (pod.metadata.uid,)


def revision_named_by_configuration(configuration: Configuration) -> tuple[str, ...]:
    """Key of the Revision that the Configuration wants now: named by its template, else by its generation."""
    meta = configuration.metadata
    return (f"{meta.namespace}/{wanted_name(configuration)}",)


def configuration_of_revision(revision: Revision) -> tuple[str, ...]:
    name = revision.metadata.labels.get(keys.CONFIGURATION)
    return (f"{revision.metadata.namespace}/{name}",) if name else ()


def targets_of_route(route: Route) -> tuple[str, ...]:
    """`configuration/<key>` and `revision/<key>` of everything that a Route names, in spec or status."""
    namespace = route.metadata.namespace
    found = set()
    for target in (*route.spec.traffic, *route.status.traffic):
        if target.configuration_name:
            found.add(f"configuration/{namespace}/{target.configuration_name}")
        if target.revision_name:
            found.add(f"revision/{namespace}/{target.revision_name}")
    return tuple(found)


def route_of_service(service: KubeService) -> tuple[str, ...]:
    """Key of the Route that a placeholder Service is labelled with."""
    name = service.metadata.labels.get(keys.ROUTE)
    return (f"{service.metadata.namespace}/{name}",) if name else ()


class KeyIndex:
    """Which objects name a key, kept up to date object by object."""

    def __init__(self) -> None:
        self._named: dict[str, frozenset[str]] = {}
        self._users: dict[str, set[str]] = {}

    def put(self, user: str, named: frozenset[str]) -> None:
        """Replace what `user` names; an empty set forgets it."""
        for key in self._named.pop(user, frozenset()) - named:
            self._users[key].discard(user)
            if not self._users[key]:
                del self._users[key]
        for key in named:
            self._users.setdefault(key, set()).add(user)
        if named:
            self._named[user] = named

    def users(self, key: str) -> frozenset[str]:
        return frozenset(self._users.get(key, ()))
