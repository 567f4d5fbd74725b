"""A perfect shell for the pure core: carries every action out at once, on virtual time."""

from __future__ import annotations

from typing import Any

import msgspec

from serving.api.meta import find_condition
from serving.api.pod import Pod
from serving.api.timestamps import format_seconds
from serving.local.node import lifecycle as lc
from serving.local.node import state as s
from serving.local.node.seed import Adopted, seed
from serving.local.sandbox.protocol import ContainerExit, ContainerState, PodAddress

T0 = 1_000_000.0
ADDRESS = PodAddress(ip="198.18.0.2")


class World:
    """Carries actions out at once and on virtual time, as a perfect shell would."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.now = T0
        self.record = seed(pod, now=T0, host_ip="10.0.0.1", adopted=None)
        self.running: set[str] = set()
        self.sandbox = False
        self.forgotten = False
        self.image_error: tuple[str, str] | None = None
        self.start_error: tuple[str, str, bool] | None = None
        self.sandbox_error = False
        self.signals: list[tuple[float, str, int]] = []
        self.held = False
        self.finalized = 0
        self.kept: dict[tuple[str, int], ContainerState] = {}
        self.exits: dict[tuple[str, int], s.Exit] = {}

    def step(self) -> lc.Decision:
        for _ in range(20):
            decision = lc.decide(self.pod, self.record, self.now)
            before = self.record
            for action in decision.actions:
                self.record = lc.issued(self.record, action, self.now)
            for action in decision.actions:
                self.do(action)
            if self.record == before:
                break
        else:
            raise AssertionError("does not settle")
        self.held = decision.hold_until is not None
        if not self.held:
            self.pod = msgspec.structs.replace(self.pod, status=decision.status)
        self.wake = decision.wake_at
        return decision

    def do(self, action: lc.Action) -> None:
        match action:
            case lc.CreateSandbox():
                if self.sandbox_error:
                    self.post(s.SandboxFailed("CreatePodSandboxError", "no", self.now))
                    return
                self.sandbox = True
                self.post(s.SandboxCreated(ADDRESS, self.now))
            case lc.Start(name, attempt):
                self.start(name, attempt)
            case lc.Signal(name, signum, _):
                self.signals.append((self.now, name, signum))
            case lc.Kill(name):
                self.signals.append((self.now, name, 9))
                if name in self.running:
                    self.exit(name, 137)
            case lc.DestroySandbox():
                assert self.sandbox
                self.sandbox = False
                self.kept.clear()
                self.exits.clear()
                self.running.clear()
                self.post(s.SandboxDestroyed())
            case lc.Finalize():
                self.finalized += 1
                self.post(s.Finalized())
            case lc.Forget():
                self.forgotten = True
            case lc.PrefetchImage() | lc.AbortStart():
                pass

    def start(self, name: str, attempt: int) -> None:
        if not self.sandbox:
            self.post(s.StartAborted(name))
        elif self.image_error is not None:
            self.post(s.StartFailed(name, attempt, *self.image_error, self.now))
        elif self.start_error is not None:
            reason, message, executed = self.start_error
            self.post(s.StartFailed(name, attempt, reason, message, self.now, executed))
        else:
            assert name not in self.running
            self.post(s.ImageReady(name, f"img@{name}", "SIGTERM", self.now))
            self.running.add(name)
            self.kept[name, attempt] = ContainerState(name=name, attempt=attempt, pid=1, started_at=self.now)
            self.post(s.Started(name, attempt, self.now, self.now))

    def post(self, event: s.Event) -> None:
        self.record = s.fold(self.record, event)

    def exit(self, name: str, code: int) -> None:
        self.running.discard(name)
        known = self.record.containers[name]
        reason = "Completed" if code == 0 else "Error"
        ended = s.Exit(exit_code=code, reason=reason, started_at=known.started_at, finished_at=self.now)
        key = (name, known.attempt)
        seen = ContainerExit(
            name=name,
            attempt=known.attempt,
            exit_code=code,
            started_at=known.started_at,
            finished_at=self.now,
        )
        self.kept[key] = msgspec.structs.replace(self.kept[key], exit=seen)
        self.exits[key] = ended
        self.post(s.Exited(name, known.attempt, ended))

    def restarted(self) -> s.PodRecord:
        """The record of an agent that starts now."""
        adopted = Adopted(address=ADDRESS, containers=list(self.kept.values()), exits=self.exits)
        return seed(self.pod, now=self.now, host_ip="10.0.0.1", adopted=adopted if self.sandbox else None)

    def delete(self, grace: int = 30) -> None:
        meta = msgspec.structs.replace(
            self.pod.metadata,
            deletion_timestamp=format_seconds(self.now + grace),
            deletion_grace_period_seconds=grace,
        )
        self.pod = msgspec.structs.replace(self.pod, metadata=meta)
        self.post(s.DeletionSeen(self.now))

    def after(self, seconds: float) -> lc.Decision:
        self.now += seconds
        return self.step()

    def state(self, name: str = "app") -> Any:
        statuses = (*self.pod.status.init_container_statuses, *self.pod.status.container_statuses)
        return next(status for status in statuses if status.name == name)

    def condition(self, kind: str) -> str:
        found = find_condition(self.pod.status.conditions, kind)
        assert found is not None
        return found.status
