"""Each of our processes killed in turn, under load: recovery, and no failed request but those in flight on a
killed Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest

from tests.e2e.cluster import Cluster, open_cluster
from tests.e2e.http import Gateway, Load, open_gateway
from tests.e2e.manifests import AUTOSCALING, STATIC, service
from tests.e2e.stack import Stack, alive, poll, residue

CHILDREN = ("apiserver", "webhook", "controller", "gateway", "node")
VICTIMS = (*CHILDREN, "spawner", "envoy")
WARM = "warm"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of this module's own, with one warm service, and a cold one for each victim."""
    stack = Stack(tmp_path_factory.mktemp("faults"))
    stack.start()
    try:
        stack.build_image("hello-static")
        for name in (WARM, *(f"cold-{victim}" for victim in (*VICTIMS, "supervisor"))):
            scale = ["--min-scale", "1"] if name == WARM else ["--window", "6s"]
            done = stack.cli("deploy", name, "--image", STATIC, "--env", f"TARGET={name}", *scale)
            assert done.returncode == 0, f"{done.stderr}\n{stack.log_tails()}"
        yield stack
    finally:
        stack.close()


@pytest.fixture
async def cluster(own: Stack, kubectl_binary: str | None) -> AsyncIterator[Cluster]:
    async with open_cluster(own, kubectl_binary) as opened:
        yield opened


@pytest.fixture
async def gateway(own: Stack) -> AsyncIterator[Gateway]:
    async with open_gateway(own.facts["url"], own.facts["domain"]) as opened:
        yield opened


def find(stack: Stack, victim: str) -> psutil.Process | None:
    try:
        match victim:
            case "envoy":
                return stack.envoy()
            case "spawner":
                return stack.spawner()
            case _:
                return stack.child(victim)
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return None


def returned(stack: Stack, killed: psutil.Process, victim: str) -> bool:
    found = find(stack, victim)
    return found is not None and found.pid != killed.pid and found.is_running()


@pytest.mark.parametrize("victim", VICTIMS)
async def test_killed_under_load(own: Stack, cluster: Cluster, gateway: Gateway, victim: str) -> None:
    await cluster.at_zero(f"cold-{victim}", seconds=60)
    before = await warm_processes(own, cluster)
    async with Load(gateway, WARM, "/sleep?ms=20", users=10) as load:
        await load.more(100)
        process = find(own, victim)
        assert process is not None
        process.kill()
        killed = time.monotonic()
        # At once: the cold one must wake although something is missing.
        cold = asyncio.create_task(cold_answer(gateway, f"cold-{victim}"))
        await load.more(100)
        await asyncio.to_thread(
            poll,
            lambda: returned(own, process, victim),
            seconds=30,
            what=lambda: f"{victim} was not started again\n{own.log_tails()}",
        )
        assert await cold == f"Hello cold-{victim}!\n"
        await load.more(100)
    allowed = [result for result in load.failures if victim == "envoy" and result.began <= killed <= result.ended]
    unexpected = [result for result in load.failures if result not in allowed]
    assert not unexpected, f"{load.summary()}\n{unexpected[:3]}\n{own.log_tails()}"
    assert len(allowed) <= 10
    if victim != "envoy":
        assert load.refused == 0
    assert await warm_processes(own, cluster) == before, "the pod outlives it"


async def warm_processes(own: Stack, cluster: Cluster) -> set[int]:
    """Of the warm service's only pod."""
    (pod,) = await cluster.list("pod", f"serving.knative.dev/service={WARM}")
    found = own.pod_processes(pod["metadata"]["name"])
    assert found
    return found


async def cold_answer(gateway: Gateway, service: str) -> str:
    """The service's text; a connection that is refused (Envoy is not back yet) is tried again."""
    async with Load(gateway, service, users=1) as load:
        await load.more(1, seconds=50)
    assert not load.failures, f"{service}: {load.summary()}"
    return load.results[0].text


async def test_a_new_service_after_all_kills(own: Stack, cluster: Cluster, gateway: Gateway) -> None:
    done = await asyncio.to_thread(own.cli, "deploy", "after", "--image", STATIC, "--env", "TARGET=after")
    assert done.returncode == 0, done.stderr
    assert (await gateway.get("after")).text == "Hello after!\n"
    await cluster.delete("ksvc", "after")


async def test_a_controller_killed_between_its_writes_goes_on(
    own: Stack, cluster: Cluster, gateway: Gateway
) -> None:
    """Killed when each child has just appeared, it still ends with one of each."""
    name = "half"
    selector = f"serving.knative.dev/service={name}"
    await cluster.apply(service(name, env={"TARGET": name}, annotations={f"{AUTOSCALING}/min-scale": "1"}))
    for kind in ("configuration", "revision", "pod"):
        await cluster.until(kind, bool, selector=selector, what=f"a {kind}")
        process = find(own, "controller")
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):  # the one killed before, still on its way out
                process.kill()
    await cluster.ready(name)
    assert (await gateway.get(name)).text == f"Hello {name}!\n"
    for kind in ("configuration", "route", "revision", "pod"):
        assert len(await cluster.list(kind, selector)) == 1, f"one {kind}"
    await cluster.delete("ksvc", name)


async def test_a_killed_supervisor_is_succeeded(own: Stack, cluster: Cluster, gateway: Gateway) -> None:
    await cluster.at_zero("cold-supervisor", seconds=60)
    envoy, children = own.envoy().pid, own.children()
    pods = await warm_processes(own, cluster)
    async with Load(gateway, WARM, "/sleep?ms=20", users=10) as load:
        await load.more(50)
        own.stop(signal.SIGKILL)
        await load.more(100)
        assert await cold_answer(gateway, "cold-supervisor") == "Hello cold-supervisor!\n"
        url = own.facts["url"]
        await asyncio.to_thread(own.start)
        await load.more(100)
    assert not load.failures, f"{load.summary()}\n{own.log_tails()}"
    assert load.refused == 0
    assert own.facts["url"] == url
    assert own.envoy().pid == envoy, "Envoy is adopted"
    assert await warm_processes(own, cluster) == pods, "pods are adopted"
    assert not alive(children.values()), "old children are gone"
    await cluster.condition("ksvc", WARM)
    assert (await gateway.get(WARM)).text == f"Hello {WARM}!\n"


async def test_down_after_a_crash_removes_everything(own: Stack) -> None:
    processes = own.processes()
    own.stop(signal.SIGKILL)
    assert residue(own.instance, own.data_dir), "something is left, or this test shows nothing"
    done = await asyncio.to_thread(own.cli, "down")
    assert done.returncode == 0, done.stderr
    assert "removed what was left" in done.stdout
    assert not alive(processes)
    assert not residue(own.instance, own.data_dir)
    again = await asyncio.to_thread(own.cli, "down")
    assert "nothing runs here" in again.stdout
