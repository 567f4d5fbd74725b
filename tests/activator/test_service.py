"""The activator over gRPC, with a fake Envoy and real sockets for pods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse

from serving.api.pod import ExecAction, HttpGetAction, Probe
from serving.api.reports import Decided
from tests.activator.agent import Agent, serving_agent
from tests.activator.client import FakeEnvoy, check_request, fake_envoy, metadata, until
from tests.activator.values import KEY, config, pod


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    async with serving_agent(tmp_path / "agent.sock") as made:
        yield made


@pytest.fixture
async def envoy(agent: Agent, tmp_path: Path) -> AsyncIterator[FakeEnvoy]:
    async with fake_envoy(tmp_path / "agent.sock") as made:
        yield made


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """Address of something that accepts connections."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()


def denial(answer: CheckResponse) -> tuple[int, str]:
    return answer.denied_response.status.code, answer.denied_response.body


async def test_hold_poke_probe_release(agent: Agent, envoy: FakeEnvoy, address: str) -> None:
    agent.activator.update(config(), [])
    request = check_request()
    call = envoy.check(request)
    await agent.poked.wait()
    assert (agent.pokes, agent.activator.held(KEY)) == ([(KEY, 1)], 1)

    agent.activator.update(config(), [pod("a", "")])
    assert agent.activator.ready(KEY) == frozenset()
    agent.activator.update(config(), [pod("a", address)])
    answer = await call
    assert metadata(answer)["pod"] == address
    assert (agent.activator.ready(KEY), agent.activator.held(KEY)) == (frozenset("a"), 0)
    assert agent.activator.in_flight("a") == 1
    assert agent.changes == [KEY]

    await envoy.log(request, answer)
    await until(lambda: agent.activator.in_flight("a") == 0)
    assert agent.pokes == [(KEY, 1)], "one poke for one wake-up"


async def test_thousands_held_one_poke(agent: Agent, envoy: FakeEnvoy, address: str) -> None:
    wanted = config(queue_depth=500)
    agent.activator.update(wanted, [])
    calls = [envoy.check(check_request()) for _ in range(510)]
    await until(lambda: agent.activator.held(KEY) == 500 and sum(call.done() for call in calls) == 10)
    agent.activator.update(wanted, [pod("a", address)])
    answers = [await call for call in calls]
    assert sum(answer.HasField("ok_response") for answer in answers) == 500
    assert {denial(answer) for answer in answers if answer.HasField("denied_response")} == {
        (503, "pending request queue full\n")
    }
    assert len(agent.pokes) == 1


async def test_an_unknown_revision(agent: Agent, envoy: FakeEnvoy) -> None:
    status, text = denial(await envoy.check(check_request(key="default/nope")))
    assert (status, text) == (
        404,
        'Error getting active endpoint: revision.serving.knative.dev "nope" not found\n',
    )


async def test_a_revision_that_goes_away(agent: Agent, envoy: FakeEnvoy) -> None:
    agent.activator.update(config(), [pod("a", "")])
    call = envoy.check(check_request())
    await agent.poked.wait()
    agent.activator.forget(KEY)
    agent.activator.forget(KEY)
    assert denial(await call)[0] == 404
    assert (agent.activator.held(KEY), agent.activator.ready(KEY)) == (0, frozenset())


async def test_a_recreated_revision_is_another(agent: Agent, envoy: FakeEnvoy) -> None:
    agent.activator.update(config(), [])
    call = envoy.check(check_request())
    await agent.poked.wait()
    agent.activator.update(config(uid="another"), [])
    assert denial(await call)[0] == 404


async def test_the_deadline(agent: Agent, envoy: FakeEnvoy) -> None:
    agent.activator.update(config(timeout_seconds=0.5), [])
    before = time.time()
    call = envoy.check(check_request(started=before - 0.3))
    assert denial(await call) == (504, "activator request timeout\n")
    assert 0.1 <= time.time() - before < 0.45
    assert agent.activator.held(KEY) == 0


async def test_a_client_that_leaves(agent: Agent, envoy: FakeEnvoy) -> None:
    agent.activator.update(config(), [])
    call = envoy.check(check_request())
    await agent.poked.wait()
    call.cancel()
    await until(lambda: agent.activator.held(KEY) == 0)
    agent.poked.clear()
    again = envoy.check(check_request())
    await agent.poked.wait()
    assert agent.pokes == [(KEY, 1), (KEY, 1)], "a new request wakes again"
    again.cancel()


async def test_a_client_that_left_before_it_learnt_of_its_release(
    agent: Agent, envoy: FakeEnvoy, address: str
) -> None:
    hard = config(container_concurrency=1)
    agent.activator.update(hard, [pod("a", address, kube_ready=True)])
    lost = check_request()
    await envoy.check(lost)
    waiting = envoy.check(check_request())
    await until(lambda: agent.activator.held(KEY) == 1)
    await envoy.log(lost, None)
    assert metadata(await waiting)["pod"] == address


async def test_slots_are_strict_and_first_in_first_out(agent: Agent, envoy: FakeEnvoy, address: str) -> None:
    hard = config(container_concurrency=2)
    agent.activator.update(hard, [pod("a", address, kube_ready=True)])
    requests = [check_request() for _ in range(6)]
    calls = []
    for index, request in enumerate(requests):
        calls.append(envoy.check(request))
        wanted = index + 1
        await until(lambda wanted=wanted: agent.activator.held(KEY) + agent.activator.in_flight("a") == wanted)
    for index in range(0, 6, 2):
        first, second = await calls[index], await calls[index + 1]
        assert agent.activator.in_flight("a") == 2
        assert not any(call.done() for call in calls[index + 2 :])
        await envoy.log(requests[index], first)
        await envoy.log(requests[index + 1], second)
    await until(lambda: agent.activator.in_flight("a") == 0)
    assert agent.pokes == [], "a ready pod needs no wake-up"


async def test_asked_again_takes_over_the_place(agent: Agent, envoy: FakeEnvoy, address: str) -> None:
    agent.activator.update(config(), [])
    request = check_request(stream="77")
    first = envoy.check(request)
    await agent.poked.wait()
    second = envoy.check(request)
    assert (await first).HasField("denied_response"), "nobody listens to it any more"
    assert agent.activator.held(KEY) == 1
    agent.activator.update(config(), [pod("a", address)])
    assert metadata(await second)["pod"] == address
    assert agent.activator.in_flight("a") == 1


async def test_a_pod_that_cannot_be_connected_to_is_distrusted(
    agent: Agent, envoy: FakeEnvoy, address: str
) -> None:
    dead = pod("dead", "127.0.0.1:1", kube_ready=True)
    agent.activator.update(config(timeout_seconds=5.0), [dead])
    assert agent.activator.ready(KEY) == {"dead"}
    request = check_request(request_id="r", started=time.time() - 1.0)
    answer = await envoy.check(request)
    await envoy.log(request, answer, connect_failed=True)
    await until(lambda: agent.activator.ready(KEY) == frozenset())
    again = envoy.check(check_request(request_id="r"))
    await agent.poked.wait()
    alive = pod("alive", address)
    agent.activator.update(config(timeout_seconds=5.0), [dead, alive])
    assert metadata(await again)["pod"] == address
    assert agent.activator.ready(KEY) == {"alive"}
    assert agent.activator.in_flight("dead") == 0


async def test_poked_again_when_pods_vanish(agent: Agent, envoy: FakeEnvoy) -> None:
    starting = pod("a", "127.0.0.1:1")
    agent.activator.update(config(), [starting])
    call = envoy.check(check_request())
    await agent.poked.wait()
    agent.activator.update(config(), [starting])
    assert len(agent.pokes) == 1
    agent.activator.update(config(), [pod("a", "127.0.0.1:1", draining=True)])
    assert len(agent.pokes) == 2
    agent.activator.update(config(), [starting])
    agent.activator.update(config(), [])
    assert len(agent.pokes) == 3
    call.cancel()


async def test_an_exec_probe_waits_for_kubernetes(agent: Agent, envoy: FakeEnvoy, address: str) -> None:
    wanted = config(readiness=Probe(exec=ExecAction(command=("true",))))
    agent.activator.update(wanted, [pod("a", address)])
    call = envoy.check(check_request())
    await agent.poked.wait()
    assert agent.activator.ready(KEY) == frozenset()
    agent.activator.update(wanted, [pod("a", address, kube_ready=True)])
    assert metadata(await call)["pod"] == address


async def test_not_ready_any_more_is_probed_before_it_is_trusted(agent: Agent, envoy: FakeEnvoy) -> None:
    wanted = config(readiness=Probe(http_get=HttpGetAction(path="/")))
    status = b"500 No"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    agent.activator.update(wanted, [pod("a", address, kube_ready=True)])
    agent.activator.update(wanted, [pod("a", address, kube_ready=False)])
    assert agent.activator.ready(KEY) == {"a"}, "listed until its own probe fails"
    call = envoy.check(check_request())
    await agent.poked.wait()
    await until(lambda: agent.activator.ready(KEY) == frozenset())
    status = b"200 OK"
    assert metadata(await call)["pod"] == address
    assert agent.activator.ready(KEY) == {"a"}
    server.close()


async def test_drained_is_told(agent: Agent, envoy: FakeEnvoy, address: str) -> None:
    agent.activator.update(config(), [pod("a", address, kube_ready=True)])
    request = check_request()
    answer = await envoy.check(request)
    agent.activator.update(config(), [pod("a", address, kube_ready=True, draining=True)])
    assert (agent.activator.ready(KEY), agent.activator.in_flight("a")) == (frozenset("a"), 1)
    agent.changed.clear()
    await envoy.log(request, answer)
    await asyncio.wait_for(agent.changed.wait(), 5)
    assert agent.activator.in_flight("a") == 0


async def test_slots_survive_the_agent(tmp_path: Path, address: str) -> None:
    socket, state = tmp_path / "agent.sock", tmp_path / "state"
    hard = config(container_concurrency=1)
    pods = [pod("a", address, kube_ready=True)]
    request = check_request()
    async with serving_agent(socket, state_dir=state) as first, fake_envoy(socket) as envoy:
        first.activator.update(hard, pods)
        answer = await envoy.check(request)
    async with serving_agent(socket, state_dir=state) as second, fake_envoy(socket) as envoy:
        assert second.activator.in_flight("a") == 1, "known before its revision is"
        second.activator.update(hard, pods)
        assert second.activator.in_flight("a") == 1
        waiting = envoy.check(check_request())
        await until(lambda: second.activator.held(KEY) == 1)
        await envoy.log(request, answer)
        assert metadata(await waiting)["pod"] == address
    async with serving_agent(socket, state_dir=state) as third:
        third.activator.update(hard, pods)
        assert third.activator.in_flight("a") == 1


async def test_lost_ends_are_reconciled_with_load_reports(tmp_path: Path, address: str) -> None:
    socket = tmp_path / "agent.sock"
    hard = config(container_concurrency=1)
    async with serving_agent(socket) as agent, fake_envoy(socket) as envoy:
        agent.activator.update(hard, [pod("a", address, kube_ready=True)])
        await envoy.log(check_request(), None)
        await envoy.check(check_request())
        waiting = envoy.check(check_request())
        await until(lambda: agent.activator.held(KEY) == 1)
        agent.activator.reconcile_revision(KEY, 1, time.time())
        assert agent.activator.held(KEY) == 1, "nobody doubts it"
        envoy.break_log()

        def reconciled() -> bool:
            agent.activator.reconcile_revision(KEY, 1, time.time())
            return agent.activator.held(KEY) == 0

        await until(reconciled)
        assert metadata(await waiting)["pod"] == address
        agent.activator.reconcile_load("a", 0)
        assert agent.activator.in_flight("a") == 1, "too young for a report of unknown age"
        agent.activator.reconcile_revision("default/unknown", 0, 0.0)
        agent.activator.reconcile_load("unknown", 0)


async def test_a_broken_access_log_makes_releases_expire(agent: Agent, envoy: FakeEnvoy, address: str) -> None:
    hard = config(container_concurrency=1, timeout_seconds=1.0)
    agent.activator.update(hard, [pod("a", address, kube_ready=True)])
    first = check_request()
    await envoy.log(check_request(), None)
    await envoy.check(first)
    envoy.break_log()
    await asyncio.sleep(0.5)
    assert metadata(await envoy.check(check_request()))["pod"] == address


async def test_the_budget_of_a_wake_up(agent: Agent, envoy: FakeEnvoy, address: str) -> None:
    agent.activator.update(config(), [])
    request = check_request(nodeless_server_timing="1")
    call, follower = envoy.check(request), envoy.check(check_request())
    await until(lambda: agent.activator.held(KEY) == 2)
    now = time.time()
    decided = Decided(revision=KEY, poke_at=now, decided_at=now + 0.001, created_at=now + 0.002, pods=("p",))
    agent.activator.note_decided(decided)
    agent.activator.note_decided(Decided(revision="no/such", poke_at=0, decided_at=0, created_at=0, pods=()))
    agent.activator.update(config(), [pod("a", address, stages={"seen": now + 0.003})])
    (option,) = (await call).ok_response.response_headers_to_add
    assert option.header.key == "server-timing"
    stages = [part.split(";")[0] for part in option.header.value.split(", ")]
    assert stages == ["queue", "decide", "create", "schedule", "probe", "release", "total"]
    assert not (await follower).ok_response.response_headers_to_add
    (budget,) = agent.budgets
    assert (budget.revision, budget.pod) == (KEY, "hello-00001-deployment-a")
    assert agent.registry.get_sample_value("nodeless_hold_seconds_count", {"start": "cold"}) == 2
    assert agent.registry.get_sample_value("nodeless_cold_start_stage_seconds_count", {"stage": "probe"}) == 1


async def test_server_timing_by_annotation(agent: Agent, envoy: FakeEnvoy, address: str) -> None:
    agent.activator.update(config(server_timing=True), [pod("a", address, kube_ready=True)])
    answer = await envoy.check(check_request())
    assert answer.ok_response.response_headers_to_add[0].header.value.startswith("probe;dur=0.0, release;dur=")
    assert agent.budgets == []
    assert agent.registry.get_sample_value("nodeless_hold_seconds_count", {"start": "warm"}) == 1


async def test_a_stopping_server_leaves_held_requests_to_its_successor(tmp_path: Path) -> None:
    socket = tmp_path / "agent.sock"
    async with serving_agent(socket) as agent, fake_envoy(socket) as envoy:
        agent.activator.update(config(), [])
        call = envoy.check(check_request())
        await agent.poked.wait()
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await call
