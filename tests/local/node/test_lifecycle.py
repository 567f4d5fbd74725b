"""The pod state machine: a table for each state."""

from __future__ import annotations

import msgspec
import pytest

from serving.api.keys import AWAIT_DRAIN, DRAINED
from serving.api.meta import find_condition
from serving.api.timestamps import format_seconds
from serving.local.node import lifecycle as lc
from serving.local.node import state as s
from serving.local.node.seed import seed
from tests.local.node.pods import container, make_pod
from tests.local.node.world import T0, World


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
    meta = msgspec.structs.replace(pod.metadata, annotations={AWAIT_DRAIN: "true"})
    world = World(msgspec.structs.replace(pod, metadata=meta))
    world.step()
    world.delete(grace=300)
    world.step()
    assert world.signals == []
    world.after(100)
    assert world.signals == []
    marks = {AWAIT_DRAIN: "true", DRAINED: "2026-01-01T00:00:00Z"}
    meta = msgspec.structs.replace(world.pod.metadata, annotations=marks)
    world.pod = msgspec.structs.replace(world.pod, metadata=meta)
    world.step()
    assert world.signals == [(T0 + 100, "app", 15)]


def test_draining_ends_with_the_grace_period() -> None:
    pod = make_pod()
    meta = msgspec.structs.replace(pod.metadata, annotations={AWAIT_DRAIN: "true"})
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
