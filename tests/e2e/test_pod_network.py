"""Pods call each other by cluster-local names, waking what sleeps, and the API server by its own."""

from __future__ import annotations

from tests.e2e.cluster import Cluster
from tests.e2e.contract import ask, contract
from tests.e2e.http import Gateway
from tests.e2e.manifests import service


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
