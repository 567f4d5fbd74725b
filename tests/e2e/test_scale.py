"""From zero, up under load, and down to zero again."""

from __future__ import annotations

import asyncio

from tests.e2e.cluster import Cluster
from tests.e2e.http import Gateway, Load
from tests.e2e.manifests import AUTOSCALING, service


async def test_to_zero_and_awake_again(cluster: Cluster, gateway: Gateway, name: str) -> None:
    await cluster.deploy(service(name, env={"TARGET": "zero"}))
    await cluster.at_zero(name)
    revision = f"{name}-00001"
    await cluster.until(
        "revision",
        lambda items: any(
            item["metadata"]["name"] == revision
            and item["status"].get("actualReplicas", 0) == 0
            and item["status"].get("desiredReplicas", 0) == 0
            for item in items
        ),
        what="status without replicas",
    )
    inactive = await cluster.condition("revision", revision, type="Active", status="False")
    assert inactive["reason"] == "NoTraffic"
    await cluster.condition("ksvc", name)
    answer = await gateway.get(name, headers={"nodeless-server-timing": "1"})
    assert (answer.status, answer.text) == (200, "Hello zero!\n")
    parts = (stage.strip().split(";dur=") for stage in answer.headers["Server-Timing"].split(","))
    stages = {stage: float(milliseconds) for stage, milliseconds in parts}
    total = stages.pop("total")
    assert {"create", "probe"} <= stages.keys(), stages
    assert sum(stages.values()) <= total + len(stages) * 0.1
    assert total <= answer.seconds * 1000
    await cluster.until(
        "revision",
        lambda items: any(
            item["metadata"]["name"] == revision and item["status"].get("actualReplicas") == 1 for item in items
        ),
        what="one replica in the status",
    )
    await cluster.condition("revision", revision, type="Active")


async def test_many_wait_for_one_pod(cluster: Cluster, gateway: Gateway, name: str) -> None:
    await cluster.deploy(service(name))
    await cluster.at_zero(name)
    answers = await asyncio.gather(*(gateway.get(name) for _ in range(200)))
    assert {answer.status for answer in answers} == {200}


async def test_up_and_down_under_load(cluster: Cluster, gateway: Gateway, name: str) -> None:
    target = {f"{AUTOSCALING}/target": "5", f"{AUTOSCALING}/max-scale": "6"}
    await cluster.deploy(service(name, annotations=target))
    async with Load(gateway, name, "/sleep?ms=100", users=4) as few:
        await few.more(10)
        async with Load(gateway, name, "/sleep?ms=100", users=20) as many:
            await cluster.pods(name, lambda count: count >= 4, what="four or more under load")
            await many.more(100)
        await cluster.pods(name, lambda count: count <= 2, seconds=60, what="two or fewer when load falls")
        await few.more(10)
    assert not many.failures, many.summary()
    assert not few.failures, few.summary()
    await cluster.at_zero(name)
