"""Shares of traffic, tag hosts, and rollouts that lose nothing."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.e2e.cluster import Cluster
from tests.e2e.http import Gateway, Load
from tests.e2e.manifests import AUTOSCALING, service


async def test_half_and_half_with_tags(cluster: Cluster, gateway: Gateway, name: str) -> None:
    first, second = f"{name}-00001", f"{name}-00002"
    pinned = {f"{AUTOSCALING}/min-scale": "1"}
    await cluster.deploy(service(name, env={"TARGET": "blue"}, annotations=pinned))
    split = [
        {"revisionName": first, "percent": 50, "tag": "blue"},
        {"revisionName": second, "percent": 50, "tag": "green"},
    ]
    await cluster.deploy(service(name, env={"TARGET": "green"}, annotations=pinned))
    await cluster.deploy(service(name, env={"TARGET": "green"}, annotations=pinned, traffic=split))
    answers = await asyncio.gather(*(gateway.get(name) for _ in range(200)))
    assert {answer.status for answer in answers} == {200}
    counted = Counter(answer.text for answer in answers)
    assert sum(counted.values()) == 200
    # Of 200 fair draws fewer than 65 on one side happen once in a million.
    assert min(counted["Hello blue!\n"], counted["Hello green!\n"]) >= 65, counted
    for colour in ("blue", "green"):
        tagged = await gateway.get(f"{colour}-{name}.default.{gateway.domain}")
        assert (tagged.status, tagged.text) == (200, f"Hello {colour}!\n")
    status = (await cluster.get("ksvc", name))["status"]["traffic"]
    assert [target["url"] for target in status] == [
        f"http://{colour}-{name}.default.{gateway.domain}" for colour in ("blue", "green")
    ]


async def test_a_rollout_under_load_loses_nothing(cluster: Cluster, gateway: Gateway, name: str) -> None:
    await cluster.deploy(service(name, env={"TARGET": "1"}))
    async with Load(gateway, name, users=10) as load:
        await load.more(50)
        for generation in (2, 3):
            await cluster.deploy(service(name, env={"TARGET": str(generation)}))
            await load.more(100)
            assert load.results[-1].text == f"Hello {generation}!\n"
    assert not load.failures, load.summary()
    revisions = f"serving.knative.dev/service={name}"
    await cluster.until(
        "pod",
        lambda items: (
            {item["metadata"]["labels"]["serving.knative.dev/revision"] for item in items} <= {f"{name}-00003"}
        ),
        selector=revisions,
        what="pods of the old revisions are gone",
    )
