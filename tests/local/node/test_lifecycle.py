"""The pod state machine: tables for each state, and a model under hypothesis."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.keys import DRAIN_FINALIZER
from serving.api.meta import find_condition
from serving.api.pod import Pod
from serving.api.timestamps import format_seconds
from serving.local.node import lifecycle as lc
from serving.local.node import state as s
from serving.local.node.podstatus import pod_status, status_patch
from serving.local.node.seed import Adopted, seed
from serving.local.sandbox.protocol import ContainerExit, ContainerState, PodAddress
from tests.local.node.pods import container, make_pod

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
        fields = {"exit_code": code, "started_at": known.started_at, "finished_at": self.now}
        self.kept[key] = msgspec.structs.replace(
            self.kept[key], exit=ContainerExit(name=name, attempt=known.attempt, **fields)
        )
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


def test_a_plain_pod_asks_for_everything_at_once() -> None:
    pod = make_pod(containers=[container("a"), container("b")])
    record = seed(pod, now=T0, host_ip="", adopted=None)
    decision = lc.decide(pod, record, T0)
    assert decision.actions == (lc.CreateSandbox(), lc.Start("a", 0), lc.Start("b", 0))
    assert decision.hold_until == T0 + lc.STATUS_HOLD_SECONDS


def test_one_status_carries_address_and_running_container() -> None:
    world = World(make_pod())
    world.step()
    status = world.pod.status
    assert not world.held
    assert (status.phase, status.pod_ip, status.host_ip) == ("Running", "198.18.0.2", "10.0.0.1")
    assert world.state().state.running.started_at == format_seconds(T0)
    assert [world.condition(kind) for kind in ("Ready", "ContainersReady", "Initialized", "PodScheduled")] == [
        "True"
    ] * 4
    assert world.state().ready


def test_readiness_is_waited_for_and_may_go_away() -> None:
    world = World(make_pod(containers=[container(readinessProbe={"tcpSocket": {"port": 8080}})]))
    world.step()
    assert world.pod.status.phase == "Running"
    assert world.condition("Ready") == "False"
    world.post(s.ReadinessChanged("app", 0, True))
    world.after(2)
    assert world.condition("Ready") == "True"
    ready = find_condition(world.pod.status.conditions, "Ready")
    assert ready is not None
    assert ready.last_transition_time == format_seconds(T0 + 2)
    world.post(s.ReadinessChanged("app", 0, False))
    world.after(5)
    ready = find_condition(world.pod.status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", "ContainersNotReady")
    assert ready.message == "containers with unready status: [app]"


def test_startup_probe_gates_readiness() -> None:
    world = World(make_pod(containers=[container(startupProbe={"tcpSocket": {"port": 1}})]))
    world.step()
    assert (world.state().started, world.state().ready) == (False, False)
    world.post(s.StartupPassed("app", 0))
    world.step()
    assert (world.state().started, world.state().ready) == (True, True)


def test_init_containers_run_in_order_and_later_images_are_fetched_meanwhile() -> None:
    pod = make_pod(initContainers=[container("i1"), container("i2")])
    record = seed(pod, now=T0, host_ip="", adopted=None)
    actions = lc.decide(pod, record, T0).actions
    assert actions == (
        lc.CreateSandbox(),
        lc.Start("i1", 0),
        lc.PrefetchImage("i2"),
        lc.PrefetchImage("app"),
    )
    world = World(pod)
    world.step()
    assert world.running == {"i1"}
    world.after(lc.STATUS_HOLD_SECONDS)
    assert world.pod.status.phase == "Pending"
    assert world.state().state.waiting.reason == "PodInitializing"
    initialized = find_condition(world.pod.status.conditions, "Initialized")
    assert initialized is not None
    assert initialized.message == "containers with incomplete status: [i1 i2]"
    world.exit("i1", 0)
    world.step()
    assert world.running == {"i2"}
    world.exit("i2", 0)
    world.step()
    assert world.running == {"app"}
    assert world.pod.status.phase == "Running"
    assert world.state("i1").ready


def test_failed_init_with_never_fails_the_pod() -> None:
    world = World(make_pod(initContainers=[container("i")], restartPolicy="Never"))
    world.step()
    world.exit("i", 3)
    world.step()
    assert world.pod.status.phase == "Failed"
    assert not world.sandbox
    assert world.state("i").state.terminated.exit_code == 3


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarted"),
    [
        ("Always", 0, "Running", True),
        ("Always", 1, "Running", True),
        ("OnFailure", 0, "Succeeded", False),
        ("OnFailure", 1, "Running", True),
        ("Never", 0, "Succeeded", False),
        ("Never", 1, "Failed", False),
    ],
)
def test_restart_policy(policy: str, code: int, phase: str, restarted: bool) -> None:
    world = World(make_pod(restartPolicy=policy))
    world.step()
    world.exit("app", code)
    world.after(1)
    assert world.pod.status.phase == phase
    assert bool(world.running) == restarted
    assert world.state().restart_count == int(restarted)
    ended = world.state().last_state if restarted else world.state().state
    assert ended.terminated.exit_code == code
    if not restarted:
        assert not world.sandbox
        ready = find_condition(world.pod.status.conditions, "Ready")
        assert ready is not None
        assert ready.reason == ("PodCompleted" if phase == "Succeeded" else "PodFailed")


def test_crash_loop_back_off_doubles_says_so_and_resets() -> None:
    world = World(make_pod())
    world.step()
    waits = []
    for _ in range(8):
        world.exit("app", 5)
        world.step()
        if world.running:
            waits.append("0s")
            continue
        waiting = world.state().state.waiting
        assert waiting.reason == "CrashLoopBackOff"
        waits.append(waiting.message.split()[1])
        assert waiting.message.endswith("restarting failed container=app pod=p_default(uid-p)")
        assert world.state().last_state.terminated.exit_code == 5
        assert world.wake is not None
        world.now = world.wake - 0.01
        world.step()
        assert not world.running
        world.after(0.01)
        assert world.running
    assert waits == ["0s", "10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]
    assert world.state().restart_count == 8
    world.after(601)
    world.exit("app", 5)
    world.step()
    assert world.running
    world.exit("app", 5)
    world.step()
    assert world.state().state.waiting.message.startswith("back-off 10s")


def test_image_errors_show_their_reason_then_the_back_off() -> None:
    world = World(make_pod())
    world.image_error = ("ErrImagePull", "manifest unknown")
    world.step()
    assert world.pod.status.phase == "Pending"
    assert world.state().state.waiting.reason == "ErrImagePull"
    assert world.state().state.waiting.message == "manifest unknown"
    world.now = world.wake or 0
    world.step()
    waiting = world.state().state.waiting
    assert waiting.reason == "ImagePullBackOff"
    assert waiting.message == 'Back-off pulling image "img-app": ErrImagePull: manifest unknown'
    assert world.wake == pytest.approx(T0 + 10)
    unchanged = world.pod.status
    for pause in (10, 20, 40):
        world.after(pause)
        assert world.pod.status == unchanged
    world.image_error = None
    world.after(300)
    assert world.pod.status.phase == "Running"
    assert world.state().restart_count == 0


@pytest.mark.parametrize("reason", ["InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"])
def test_other_reasons_stay(reason: str) -> None:
    world = World(make_pod())
    world.image_error = (reason, "why")
    world.step()
    world.after(5)
    assert (world.state().state.waiting.reason, world.state().state.waiting.message) == (reason, "why")


def test_a_program_that_cannot_run_counts_as_exit_128() -> None:
    world = World(make_pod())
    world.start_error = ("RunContainerError", 'exec: "x": not found', True)
    world.step()
    waiting, last = world.state().state.waiting, world.state().last_state.terminated
    assert waiting.reason == "CrashLoopBackOff"
    assert (last.exit_code, last.reason, last.message) == (128, "StartError", 'exec: "x": not found')
    assert world.state().restart_count == 1


def test_a_sandbox_that_fails_is_tried_again() -> None:
    world = World(make_pod())
    world.sandbox_error = True
    world.step()
    assert world.state().state.waiting.reason == "ContainerCreating"
    assert world.wake == T0 + 1
    world.sandbox_error = False
    world.after(1)
    assert world.running == {"app"}


def test_a_lost_sandbox_is_replaced_and_init_runs_again() -> None:
    world = World(make_pod(initContainers=[container("i")]))
    world.step()
    world.exit("i", 0)
    world.step()
    world.exit("app", 137)
    world.running.clear()
    world.post(s.SandboxLost())
    world.step()
    assert world.running == {"i"}
    world.exit("i", 0)
    world.step()
    assert world.running == {"app"}
    assert world.state().restart_count == 1
    assert world.state("i").restart_count == 1


@pytest.mark.parametrize("kind", ["liveness", "startup"])
def test_a_failed_probe_restarts_the_container_with_grace(kind: str) -> None:
    world = World(make_pod(terminationGracePeriodSeconds=4))
    world.step()
    world.post(s.ProbeFailed("app", 0, kind))
    world.after(1)
    assert [signum for _, _, signum in world.signals] == [15]
    world.after(3.9)
    assert len(world.signals) == 1
    world.after(0.1)
    assert [signum for _, _, signum in world.signals] == [15, 9]
    world.step()
    assert world.running == {"app"}
    assert world.state().restart_count == 1
    assert world.state().last_state.terminated.exit_code == 137


def test_deletion_is_graceful_then_final() -> None:
    world = World(make_pod())
    world.step()
    world.delete(grace=10)
    world.step()
    assert world.signals == [(T0, "app", 15)]
    assert world.wake == T0 + 10
    world.now += 3
    world.exit("app", 0)
    world.step()
    assert not world.sandbox
    assert world.finalized == 1
    assert world.pod.status.phase == "Succeeded"
    assert world.state().state.terminated.exit_code == 0
    assert world.condition("Ready") == "False"
    world.after(1)
    assert world.finalized == 1
    world.post(s.Vanished())
    world.step()
    assert world.forgotten


def test_deletion_kills_who_does_not_listen() -> None:
    world = World(make_pod())
    world.step()
    world.delete(grace=10)
    world.step()
    world.after(10)
    assert world.signals[-1] == (T0 + 10, "app", 9)
    assert world.pod.status.phase == "Failed"


def test_deletion_without_grace_kills_at_once() -> None:
    world = World(make_pod())
    world.step()
    world.delete(grace=0)
    world.step()
    assert [signum for _, _, signum in world.signals] == [9]


def test_a_draining_pod_is_left_alone_until_it_is_drained() -> None:
    pod = make_pod()
    meta = msgspec.structs.replace(pod.metadata, finalizers=(DRAIN_FINALIZER,))
    world = World(msgspec.structs.replace(pod, metadata=meta))
    world.step()
    world.delete(grace=300)
    world.step()
    assert world.signals == []
    world.after(100)
    assert world.signals == []
    meta = msgspec.structs.replace(world.pod.metadata, finalizers=())
    world.pod = msgspec.structs.replace(world.pod, metadata=meta)
    world.step()
    assert world.signals == [(T0 + 100, "app", 15)]


def test_draining_ends_with_the_grace_period() -> None:
    pod = make_pod()
    meta = msgspec.structs.replace(pod.metadata, finalizers=(DRAIN_FINALIZER,))
    world = World(msgspec.structs.replace(pod, metadata=meta))
    world.step()
    world.delete(grace=20)
    world.step()
    world.after(20)
    assert world.signals == [(T0 + 20, "app", 15)]
    world.after(lc.LATE_DRAIN_GRACE_SECONDS)
    assert world.signals[-1] == (T0 + 22, "app", 9)


def test_a_vanished_pod_is_destroyed_at_once() -> None:
    world = World(make_pod())
    world.step()
    world.post(s.Vanished())
    world.step()
    assert not world.sandbox
    assert world.forgotten
    assert world.finalized == 0


def test_a_rejected_pod_fails_with_its_reason() -> None:
    pod = make_pod()
    record = seed(pod, now=T0, host_ip="", adopted=None, rejected=("OutOfpods", "full"))
    decision = lc.decide(pod, record, T0)
    assert decision.actions == ()
    assert (decision.status.phase, decision.status.reason, decision.status.message) == (
        "Failed",
        "OutOfpods",
        "full",
    )


def test_a_slow_start_is_reported_after_a_second() -> None:
    pod = make_pod()
    record = seed(pod, now=T0, host_ip="", adopted=None)
    for action in lc.decide(pod, record, T0).actions:
        record = lc.issued(record, action, T0)
    assert lc.decide(pod, record, T0 + 0.5).wake_at == T0 + lc.STATUS_HOLD_SECONDS
    late = lc.decide(pod, record, T0 + lc.STATUS_HOLD_SECONDS)
    assert late.hold_until is None
    assert late.status.phase == "Pending"
    waiting = late.status.container_statuses[0].state.waiting
    assert waiting is not None
    assert waiting.reason == "ContainerCreating"


def test_late_and_foreign_events_change_nothing() -> None:
    world = World(make_pod())
    world.step()
    before = world.record
    old = s.Exit(exit_code=1, reason="Error", started_at=T0, finished_at=T0)
    for event in (
        s.Exited("app", -1, old),
        s.Exited("nobody", 0, old),
        s.ReadinessChanged("app", 3, False),
        s.Started("app", 0, T0 + 9, T0 + 9),
        s.StartFailed("app", 0, "ErrImagePull", "", T0),
        s.StartAborted("app"),
    ):
        world.post(event)
    assert world.record == before


POLICIES = st.sampled_from(["Always", "OnFailure", "Never"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("exit"), st.sampled_from(["i", "a", "b"]), st.integers(0, 2)),
        st.tuples(st.just("ready"), st.sampled_from(["a", "b"]), st.booleans()),
        st.tuples(st.just("unhealthy"), st.sampled_from(["a", "b"]), st.just(0)),
        st.tuples(st.just("time"), st.sampled_from([0.5, 2.0, 11.0, 400.0]), st.just(0)),
        st.tuples(st.just("image"), st.booleans(), st.just(0)),
        st.tuples(st.just("start"), st.booleans(), st.booleans()),
        st.tuples(st.just("sandbox"), st.booleans(), st.just(0)),
        st.tuples(st.just("lost"), st.just(0), st.just(0)),
        st.tuples(st.just("delete"), st.sampled_from([0, 5]), st.just(0)),
        st.tuples(st.just("vanish"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(policy=POLICIES, steps=STEPS)
def test_any_history_converges(policy: str, steps: list[tuple[str, Any, Any]]) -> None:
    world = World(
        make_pod(
            restartPolicy=policy,
            initContainers=[container("i")],
            containers=[container("a", readinessProbe={"tcpSocket": {"port": 1}}), container("b")],
        )
    )
    world.step()
    counts: dict[str, int] = {}
    finished = ""
    for kind, what, more in steps:
        if world.forgotten:
            break
        match kind:
            case "exit" if what in world.running:
                world.exit(what, more)
            case "ready":
                world.post(s.ReadinessChanged(what, world.record.containers[what].attempt, more))
            case "unhealthy":
                world.post(s.ProbeFailed(what, world.record.containers[what].attempt, "liveness"))
            case "time":
                world.now += what
            case "image":
                world.image_error = ("ErrImagePull", "no") if what else None
            case "start":
                world.start_error = ("RunContainerError", "no", more) if what else None
            case "sandbox":
                world.sandbox_error = what
            case "lost" if world.sandbox:
                for name in sorted(world.running):
                    world.exit(name, 137)
                world.post(s.SandboxLost())
            case "delete" if world.record.deleted_at is None:
                world.delete(what)
            case "vanish":
                world.post(s.Vanished())
        world.step()
        status = world.pod.status
        for each in (*status.init_container_statuses, *status.container_statuses):
            assert each.restart_count >= counts.get(each.name, 0)
            counts[each.name] = each.restart_count
            states = [each.state.waiting, each.state.running, each.state.terminated]
            assert sum(state is not None for state in states) == 1
        assert not finished or status.phase == finished
        finished = status.phase if status.phase in ("Succeeded", "Failed") else ""
        # What the record says runs is what runs, and only in a sandbox.
        if not world.forgotten:
            said = {c.name for c in world.record.containers.values() if c.phase is s.Phase.RUNNING}
            assert said == world.running
            assert world.sandbox or not world.running
        if finished:
            assert not world.sandbox
    world.image_error = world.start_error = None
    world.sandbox_error = False
    if not world.forgotten and world.record.deleted_at is None and world.sandbox and not world.held:
        check_restart(world)
    if not world.forgotten:
        # Left alone, the status settles: the same again, and nothing to write.
        for _ in range(4):
            world.after(700)
        settled = world.pod.status
        world.after(700)
        assert status_patch(settled, world.pod.status) == {}
        assert pod_status(world.pod, world.record, world.now) == world.pod.status
        # Deleted, it ends, whatever went before.
        if world.record.deleted_at is None:
            world.delete(1)
        for _ in range(4):
            world.after(5)
        assert not world.running
        assert not world.sandbox
        assert world.finalized == 1
        world.post(s.Vanished())
        world.step()
    assert world.forgotten
    assert not world.running
    assert not world.sandbox


def check_restart(world: World) -> None:
    """An agent that restarts while the pod's sandbox is up finds nothing to write, unless it has to act."""
    record = world.restarted()
    for name, known in world.record.containers.items():
        again = record.containers[name]
        assert again.attempt == known.attempt
        assert known.init or (again.started, again.ready) == (known.started, known.ready)
        running = (known.phase is s.Phase.RUNNING, again.phase is s.Phase.RUNNING)
        assert running[0] == running[1]
    blocked = any(c.blocked for c in world.record.containers.values())
    decision = lc.decide(world.pod, record, world.now)
    if not blocked and not decision.actions:
        assert status_patch(world.pod.status, decision.status) == {}
