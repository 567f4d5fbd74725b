"""Which pods belong to which revision, and which addresses are claimed twice. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from serving.activator.model import PodEndpoint
from serving.api.keys import REVISION_UID
from serving.api.pod import Pod
from serving.gateway.pods import pod_endpoint, revision_of


class PodTable:
    """`port` gives the container port of a revision, `uid` that of the Revision which has the name now."""

    def __init__(self, *, port: Callable[[str], int], uid: Callable[[str], str | None]) -> None:
        self._port = port
        self._uid = uid
        self._objects: dict[str, Pod] = {}
        self._pods: dict[str, dict[str, PodEndpoint]] = {}
        self._filed: dict[str, tuple[str, str]] = {}
        self._claims: dict[str, set[str]] = {}
        self._owners: dict[str, str] = {}

    def put(self, key: str, pod: Pod | None) -> set[str]:
        """A Pod came, changed or went; returns the revisions whose endpoints may change. `key` is the Pod's own:
        one that is created again under its name replaces the former."""
        if pod is not None:
            self._objects[key] = pod
        else:
            self._objects.pop(key, None)
        return self._file(key, pod)

    def file_again(self) -> None:
        """Ports, and whose pods these are, may only now be known."""
        for key, pod in self._objects.items():
            self._file(key, pod)

    def adopt(self, pods: Mapping[str, Iterable[PodEndpoint]]) -> None:
        """Show these in place of what is known of the API server, until `drop_adopted`."""
        self._pods = {key: {pod.uid: pod for pod in found} for key, found in pods.items()}
        self._owners = {uid: key for key, found in self._pods.items() for uid in found}

    def drop_adopted(self) -> None:
        """Show what the API server said."""
        self._pods, self._filed, self._claims, self._owners = {}, {}, {}, {}
        self.file_again()

    def revisions(self) -> Collection[str]:
        """Keys of the revisions that have pods."""
        return self._pods.keys()

    def of(self, key: str) -> Mapping[str, PodEndpoint]:
        """Pods of a revision by uid."""
        return self._pods.get(key, {})

    def owner(self, uid: str) -> str | None:
        """Key of the revision of a pod."""
        return self._owners.get(uid)

    def leaving(self) -> list[tuple[str, PodEndpoint]]:
        """Pods that drain or terminate, with their revisions."""
        return [
            (key, pod)
            for key, pods in self._pods.items()
            for pod in pods.values()
            if pod.draining or pod.terminating
        ]

    def uids(self) -> Iterable[str]:
        return (uid for pods in self._pods.values() for uid in pods)

    def is_contested(self, address: str) -> bool:
        """More than one pod claims the address."""
        return len(self._claims.get(address, ())) > 1

    def _file(self, key: str, pod: Pod | None) -> set[str]:
        touched: set[str] = set()
        former = self._filed.pop(key, None)
        if former is not None:
            revision, uid = former
            touched.add(revision)
            gone = self._pods.get(revision, {}).pop(uid, None)
            if not self._pods.get(revision):
                self._pods.pop(revision, None)
            self._owners.pop(uid, None)
            if gone is not None:
                touched |= self._claim(gone.address, uid, claimed=False)
        owner = revision_of(pod) if pod is not None else None
        if pod is None or owner is None:
            return touched
        endpoint = pod_endpoint(pod, port=self._port(owner))
        touched.add(owner)
        if endpoint is not None and self._is_of_former(pod, owner):
            endpoint = msgspec.structs.replace(endpoint, terminating=True)
        if endpoint is not None:
            self._pods.setdefault(owner, {})[endpoint.uid] = endpoint
            self._filed[key] = (owner, endpoint.uid)
            self._owners[endpoint.uid] = owner
            touched |= self._claim(endpoint.address, endpoint.uid, claimed=True)
        return touched

    def _is_of_former(self, pod: Pod, owner: str) -> bool:
        """The Pod was made for a Revision of this name that is gone: it gets no request of its successor."""
        now, then = self._uid(owner), pod.metadata.labels.get(REVISION_UID)
        return now is not None and then is not None and then != now

    def _claim(self, address: str, uid: str, *, claimed: bool) -> set[str]:
        """Returns the revisions of the other pods that claim this address."""
        if not address:
            return set()
        claims = self._claims.setdefault(address, set())
        if claimed:
            claims.add(uid)
        else:
            claims.discard(uid)
        if not claims:
            del self._claims[address]
        return {self._owners[other] for other in claims if other != uid and other in self._owners}
