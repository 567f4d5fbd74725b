"""An activator that believes what Kubernetes says."""

from __future__ import annotations

from collections.abc import Sequence

from serving.activator.model import PodEndpoint, RevisionConfig


class FakeActivator:
    def __init__(self) -> None:
        self.revisions: dict[str, RevisionConfig] = {}
        self.pods: dict[str, tuple[PodEndpoint, ...]] = {}
        self.on: dict[str, int] = {}
        self.waiting: dict[str, int] = {}

    def update(self, revision: RevisionConfig, pods: Sequence[PodEndpoint]) -> None:
        self.revisions[revision.key] = revision
        self.pods[revision.key] = tuple(pods)

    def forget(self, key: str) -> None:
        self.revisions.pop(key)
        self.pods.pop(key)

    def ready(self, key: str) -> frozenset[str]:
        return frozenset(
            pod.uid for pod in self.pods.get(key, ()) if pod.kube_ready and not pod.terminating and pod.address
        )

    def held(self, key: str) -> int:
        return self.waiting.get(key, 0)

    def in_flight(self, pod_uid: str) -> int:
        return self.on.get(pod_uid, 0)
