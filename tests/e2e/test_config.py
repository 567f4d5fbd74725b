"""ConfigMaps of knative-serving are read live, and a bad edit is refused in upstream's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from serving.api.resources import KSERVICES
from tests.e2e.cluster import Cluster
from tests.e2e.http import Gateway
from tests.e2e.kubectl import Refused
from tests.e2e.manifests import service

SYSTEM = "knative-serving"
CONFIG_MAPS = ("config-autoscaler", "config-domain", "config-defaults")


@pytest.fixture
async def edit(cluster: Cluster) -> AsyncIterator[None]:
    """What the test changed in the ConfigMaps is put back."""
    before = {name: await cluster.get("configmap", name, namespace=SYSTEM) for name in CONFIG_MAPS}
    yield
    for name, old in before.items():
        now = await cluster.get("configmap", name, namespace=SYSTEM)
        data = dict.fromkeys(now["data"]) | old["data"]
        await cluster.patch("configmap", name, {"data": data}, namespace=SYSTEM)


@pytest.mark.usefixtures("edit")
async def test_scale_to_zero_is_switched_off_and_on(cluster: Cluster, name: str) -> None:
    await cluster.patch(
        "configmap", "config-autoscaler", {"data": {"enable-scale-to-zero": "false"}}, namespace=SYSTEM
    )
    await cluster.deploy(service(name))
    with pytest.raises(AssertionError, match="at zero"):
        await cluster.at_zero(name, seconds=10)
    await cluster.patch(
        "configmap", "config-autoscaler", {"data": {"enable-scale-to-zero": None}}, namespace=SYSTEM
    )
    await cluster.at_zero(name)


@pytest.mark.usefixtures("edit")
async def test_min_scale_of_the_cluster(cluster: Cluster, name: str) -> None:
    await cluster.deploy(service(name))
    await cluster.patch("configmap", "config-autoscaler", {"data": {"min-scale": "2"}}, namespace=SYSTEM)
    await cluster.pods(name, lambda count: count == 2, what="two, as config-autoscaler says")


REFUSED = {
    ("config-autoscaler", "stable-window", "1s"): "stable-window = 1s, must be in [6s; 1h0m0s] range",
    ("config-autoscaler", "container-concurrency-target-percentage", "x"): (
        'failed to parse data: failed to parse "container-concurrency-target-percentage": '
        'strconv.ParseFloat: parsing "x": invalid syntax'
    ),
    ("config-autoscaler", "max-scale-up-rate", "1"): "max-scale-up-rate = 1, must be greater than 1.0",
    ("config-defaults", "revision-timeout-seconds", "601"): (
        "revision-timeout-seconds (601) cannot be greater than max-revision-timeout-seconds (600)"
    ),
}


@pytest.mark.parametrize(("config", "key", "value"), REFUSED)
async def test_a_bad_edit_is_refused(cluster: Cluster, config: str, key: str, value: str) -> None:
    before = await cluster.get("configmap", config, namespace=SYSTEM)
    with pytest.raises(Refused) as caught:
        await cluster.patch("configmap", config, {"data": {key: value}}, namespace=SYSTEM)
    assert "validation failed: " in str(caught.value)
    assert REFUSED[config, key, value] in str(caught.value)
    assert await cluster.get("configmap", config, namespace=SYSTEM) == before


@pytest.mark.usefixtures("edit")
async def test_a_new_domain_moves_the_urls(cluster: Cluster, gateway: Gateway, name: str) -> None:
    await cluster.deploy(service(name, env={"TARGET": "moved"}))
    old, new = f"{name}.default.{gateway.domain}", f"{name}.default.example.org"
    assert (await gateway.get(old)).status == 200
    await cluster.patch(
        "configmap", "config-domain", {"data": {gateway.domain: None, "example.org": ""}}, namespace=SYSTEM
    )
    await cluster.until(
        "ksvc",
        lambda items: any(
            item["status"].get("url") == f"http://{new}"
            and any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"]["conditions"])
            for item in items
        ),
        what=f"{name} is Ready at {new}",
    )
    answer = await gateway.get(new)
    assert (answer.status, answer.text) == (200, "Hello moved!\n")
    assert (await gateway.get(old)).status == 404


@pytest.mark.usefixtures("edit")
async def test_defaults_of_the_cluster(cluster: Cluster, name: str) -> None:
    await cluster.patch(
        "configmap", "config-defaults", {"data": {"revision-timeout-seconds": "77"}}, namespace=SYSTEM
    )

    async def default() -> int:
        stored = await cluster.client.create(KSERVICES, service(name), dry_run=True)
        seconds: int = stored["spec"]["template"]["spec"]["timeoutSeconds"]
        return seconds

    async with asyncio.timeout(10):
        while await default() != 77:
            await asyncio.sleep(0.05)
    assert (await cluster.deploy(service(name)))["spec"]["template"]["spec"]["timeoutSeconds"] == 77
