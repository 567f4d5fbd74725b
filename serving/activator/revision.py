"""One revision: its throttle, what is known of its pods, its wake-up. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

from envoy.service.auth.v3.external_auth_pb2 import CheckResponse

from serving.activator import readiness, timing
from serving.activator.check import Ask
from serving.activator.holds import NOTHING, Effects, Release, Slots
from serving.activator.model import PodEndpoint, RevisionConfig
from serving.activator.probe_schedule import ProbeTarget, probe_target
from serving.activator.readiness import PodView
from serving.activator.throttle import Throttle
from serving.api.reports import Decided


class Waiter:
    """One open Check. `cold`: no pod could take it when it came. `settle` answers it, the first time only;
    `release` is set when it was let through."""

    __slots__ = ("ask", "cold", "release", "settle")

    def __init__(self, ask: Ask, *, cold: bool, settle: Callable[[CheckResponse], None]) -> None:
        self.ask = ask
        self.cold = cold
        self.settle = settle
        self.release: int | None = None


class KnownPod:
    """A pod: how it stands, and when our probes of it failed and succeeded (Unix seconds)."""

    __slots__ = ("answered_at", "failed_at", "view")

    def __init__(self, view: PodView) -> None:
        self.view = view
        self.failed_at: float | None = None
        self.answered_at: float | None = None


class HeldRevision:
    """State of one revision. `poked`: the controller was told of the requests that wait now. `wake`: the
    last wake-up; `recorded`: its budget is."""

    def __init__(self, config: RevisionConfig, *, random: Random, ids: Iterable[int]) -> None:
        self.key = config.key
        self.throttle = Throttle(config, random=random, ids=ids)
        self.pods: dict[str, KnownPod] = {}
        self.poked = False
        self.wake: timing.Wake | None = None
        self.recorded = False

    def ready(self) -> frozenset[str]:
        return frozenset(uid for uid, pod in self.pods.items() if pod.view.listed)

    def slots(self) -> list[Slots]:
        return [
            Slots(uid=uid, address=pod.view.endpoint.address, open=pod.view.open) for uid, pod in self.pods.items()
        ]

    def to_probe(self) -> Iterator[tuple[str, ProbeTarget | None]]:
        """Every pod with its probe, None where there is nothing to probe."""
        config = self.throttle.config
        for uid, pod in self.pods.items():
            wanted = readiness.wants_probe(pod.view, config)
            yield uid, probe_target(config, pod.view.endpoint) if wanted else None

    def set_pods(self, config: RevisionConfig, endpoints: Sequence[PodEndpoint], now: float) -> list[str]:
        """Take over the truth about the pods; returns uids of those that can no longer be hoped for."""
        before = self.pods
        hoped = [uid for uid, known in before.items() if known.view.endpoint.eligible]
        self.pods = {}
        for endpoint in endpoints:
            known = before.get(endpoint.uid)
            view = readiness.observe(known.view if known else None, endpoint, config)
            if known is None or known.view.endpoint.address != endpoint.address:
                known = KnownPod(view)
            known.view = view
            if view.open and known.answered_at is None:
                known.answered_at = now
            self.pods[endpoint.uid] = known
        return [uid for uid in hoped if not self._eligible(uid)]

    def _eligible(self, uid: str) -> bool:
        return uid in self.pods and self.pods[uid].view.endpoint.eligible

    def probed(self, uid: str, *, answered: bool, now: float) -> Effects:
        """A probe came back; opens the pod, or closes one that was only suspected."""
        pod = self.pods.get(uid)
        if pod is None:
            return NOTHING
        pod.view = readiness.probed(pod.view, answered=answered)
        if answered:
            pod.answered_at = now
        else:
            pod.failed_at = now
        return self.throttle.set_open(uid, pod.view.open, now)

    def distrust(self, pod_uid: str, now: float) -> Effects:
        """A connection to the pod failed."""
        pod = self.pods.get(pod_uid)
        if pod is None:
            return NOTHING
        pod.view = readiness.refused(pod.view)
        return self.throttle.set_open(pod_uid, False, now)

    def drained(self, pod_uid: str) -> bool:
        """The pod is draining and nothing that we released runs on it."""
        pod = self.pods.get(pod_uid)
        return pod is not None and pod.view.endpoint.draining and not self.throttle.in_flight(pod_uid)

    def needs_poke(self) -> bool:
        """Requests wait, no pod can take them, and the controller was not told. Once told, no more until a
        pod was ready, nobody waits, or a pod vanished."""
        if not self.throttle.held or self.throttle.has_open_pod():
            self.poked = False
            return False
        return not self.poked

    def decided(self, message: Decided) -> None:
        """Times of the controller complete the wake-up that they answer; the first answer counts."""
        wake = self.wake
        if wake is not None and wake.decided_at is None and message.decided_at >= wake.poked_at:
            self.wake = timing.Wake(
                poked_at=wake.poked_at, decided_at=message.decided_at, created_at=message.created_at
            )

    def budget(self, release: Release) -> dict[str, float]:
        """Seconds by stage of one released request."""
        pod = self.pods[release.pod]
        times = timing.PodTimes(
            stages=pod.view.endpoint.stages, failed_at=pod.failed_at, answered_at=pod.answered_at
        )
        return timing.budget(started=release.hold.started, released=release.at, wake=self.wake, pod=times)
