"""Any history of a pod under hypothesis: invariants at each step, and convergence at the end."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.local.node import lifecycle as lc
from serving.local.node import state as s
from serving.local.node.podstatus import pod_status, status_patch
from tests.local.node.pods import container, make_pod
from tests.local.node.world import World

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


@settings(max_examples=200, deadline=None)
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
