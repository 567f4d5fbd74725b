"""Pods call each other by cluster-local names, waking what sleeps, and the API server by its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from tests.e2e.cluster import Cluster, open_cluster
from tests.e2e.contract import ask, contract
from tests.e2e.http import Gateway, open_gateway
from tests.e2e.manifests import service
from tests.e2e.stack import Stack, residue


async def test_a_pod_calls_a_service_that_sleeps(
    cluster: Cluster, gateway: Gateway, name: str, python_image: str
) -> None:
    callee = f"{name}-callee"
    body = service(callee)
    body["metadata"]["labels"] = {"networking.knative.dev/visibility": "cluster-local"}
    body["spec"]["traffic"] = [{"latestRevision": True, "percent": 100, "tag": "blue"}]
    await cluster.deploy(body)
    await cluster.deploy(contract(name, image=python_image))
    await cluster.at_zero(callee)
    for host in (f"{callee}.default.svc.cluster.local", f"{callee}.default", f"blue-{callee}.default.svc"):
        answer = await ask(gateway, name, f"/fetch?url=http://{host}/")
        assert answer == {"status": 200, "body": "Hello World!\n"}, host


async def test_names_that_mean_nothing(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    await cluster.deploy(contract(name, image=python_image))
    answer = await ask(gateway, name, "/resolve?name=nobody.default.svc.cluster.local")
    assert "error" in answer
    short = await ask(gateway, name, f"/resolve?name={name}")
    assert short == await ask(gateway, name, f"/resolve?name={name}.default.svc.cluster.local")


async def test_a_pod_finds_the_api_server_and_nothing_else_of_the_host(
    cluster: Cluster, gateway: Gateway, name: str, python_image: str
) -> None:
    await cluster.deploy(contract(name, image=python_image))
    # The certificate is checked, and is for this name: what is missing is trust in its authority.
    answer = await ask(gateway, name, "/fetch?url=https://kubernetes.default.svc/version")
    assert "CERTIFICATE_VERIFY_FAILED" in answer["error"]
    (resolver,) = (
        line.split()[1]
        for line in (await ask(gateway, name, "/runtime"))["resolv"].splitlines()
        if line.startswith("nameserver")
    )
    public = cluster.stack.facts["url"].rsplit(":", 1)[1]
    for port in (public, "8080", "22"):
        answer = await ask(gateway, name, f"/fetch?url=http://{resolver}:{port}/")
        assert "error" in answer


async def test_the_way_in_outlives_everybody(tmp_path: Path, kubectl_binary: str | None) -> None:
    """Envoy started anew finds the pods' network by a node agent that was started anew, too."""
    stack = Stack(tmp_path / "stack")
    await asyncio.to_thread(stack.start)
    try:
        await asyncio.to_thread(stack.build_image, "hello-static")
        image = await asyncio.to_thread(stack.build_image, "hello-python")
        async with (
            open_cluster(stack, kubectl_binary) as cluster,
            open_gateway(stack.facts["url"], stack.facts["domain"]) as gateway,
        ):
            await cluster.deploy(service("callee"))
            await cluster.deploy(contract("caller", image=image, window="300s"))
            stack.child("node").kill()
            stack.envoy().kill()
            async with asyncio.timeout(40):
                while not await _reaches(gateway, "callee"):
                    await asyncio.sleep(0.2)
    finally:
        stack.close()
    assert residue(stack.instance, stack.data_dir) == set()


async def _reaches(gateway: Gateway, callee: str) -> bool:
    """Whether the caller is there, and reaches the other one. Envoy may not be back yet."""
    try:
        answer = await gateway.get("caller", f"/fetch?url=http://{callee}.default/")
    except aiohttp.ClientError:
        return False
    return answer.status == 200 and "Hello World!" in answer.text
