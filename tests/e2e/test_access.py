"""Users and service accounts with stock kubectl: tenants of one machine, tokens in pods, files that follow."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serving.api.meta import JsonObject
from tests.e2e.cluster import Cluster
from tests.e2e.contract import PYTHON, ask
from tests.e2e.http import Gateway
from tests.e2e.kubectl import Kubectl, Refused
from tests.e2e.manifests import service
from tests.e2e.stack import Stack

APP = Path(__file__).with_name("account_app.py").read_text()
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture
async def as_user(
    stack: Stack, kubectl: Kubectl, kubectl_binary: str | None, tmp_path: Path
) -> AsyncIterator[Any]:
    """Adds a user by the command line; gives a kubectl of theirs."""
    made = []

    async def add(name: str) -> Kubectl:
        done = await asyncio.to_thread(stack.cli, "-o", "json", "user", "add", name)
        assert done.returncode == 0, done.stderr
        made.append(name)
        env = await asyncio.to_thread(stack.cli, "-o", "json", "env", "--user", name)
        kubeconfig = Path(json.loads(env.stdout)["KUBECONFIG"])
        assert kubectl_binary is not None
        return Kubectl(kubectl_binary, kubeconfig=kubeconfig, cache=tmp_path / name)

    yield add
    for name in made:
        await asyncio.to_thread(stack.cli, "user", "remove", name)


async def test_two_tenants_do_not_see_each_other(
    kubectl: Kubectl, as_user: Any, gateway: Gateway, name: str
) -> None:
    alice, bob = await as_user("alice"), await as_user("bob")
    for tenant, who in (("team-a", "alice"), ("team-b", "bob")):
        await kubectl("create", "namespace", tenant)
        await kubectl("create", "rolebinding", who, "--clusterrole=edit", f"--user={who}", "-n", tenant)
    body = service(name)
    body["metadata"]["namespace"] = "team-a"
    try:
        await alice.apply(body)
        await alice("wait", "ksvc", name, "--for=condition=Ready", "-n", "team-a", "--timeout=60s")
        assert (await gateway.get(gateway.host(name, "team-a"))).status == 200
        for arguments in (["get", "ksvc", "-n", "team-a"], ["delete", "ksvc", name, "-n", "team-a"]):
            with pytest.raises(Refused, match=r'User "bob" cannot (list|delete) resource "services" in API group'):
                await bob(*arguments)
        with pytest.raises(Refused, match='cannot list resource "services" in API group'):
            await alice("get", "ksvc", "-A")
        with pytest.raises(Refused, match="cannot create resource"):
            await alice("create", "rolebinding", "x", "--clusterrole=admin", "--user=bob", "-n", "team-a")
        assert "alice" in await alice("auth", "whoami")
        assert (await alice("auth", "can-i", "create", "ksvc", "-n", "team-a")).strip() == "yes"
        with pytest.raises(Refused):  # "no" is a failure
            await bob("auth", "can-i", "create", "ksvc", "-n", "team-a")
        listed = await bob("auth", "can-i", "--list", "-n", "team-b")
        assert re.search(r"\*\.serving\.knative\.dev .*\[.*create.*\]", listed)
    finally:
        await kubectl("delete", "namespace", "team-a", "team-b")


def with_account(name: str, image: str, account: str) -> JsonObject:
    container = {
        "command": [PYTHON, "-I", "-S", "-c", APP],
        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
    }
    volumes = [{"name": "config", "configMap": {"name": name, "optional": True}}]
    return service(
        name,
        image=image,
        container=container,
        spec={"serviceAccountName": account, "volumes": volumes},
        annotations={"autoscaling.knative.dev/min-scale": "1"},
    )


async def test_a_pod_acts_as_its_account_and_its_files_follow(
    cluster: Cluster, kubectl: Kubectl, gateway: Gateway, name: str, python_image: str
) -> None:
    await cluster.apply(with_account(name, python_image, name))
    wanted = rf'error looking up service account default/{name}: serviceaccount "{name}" not found'

    async def message() -> str:
        found = await kubectl.json("ksvc", name)
        return " ".join(c.get("message", "") for c in found.get("status", {}).get("conditions", []))

    async with asyncio.timeout(20):
        while wanted not in await message():
            await asyncio.sleep(0.1)
    await kubectl("create", "serviceaccount", name)
    await kubectl("create", "rolebinding", name, "--clusterrole=view", f"--serviceaccount=default:{name}")
    await cluster.ready(name)
    namespace = await ask(gateway, name, f"/file?path={ACCOUNT}/namespace")
    assert namespace == {"content": "default"}
    pods = await ask(gateway, name, "/api?path=/api/v1/namespaces/default/pods")
    assert pods["status"] == 200
    refused = await ask(gateway, name, "/api?path=/api/v1/namespaces/default/secrets")
    assert refused["body"]["message"] == (
        f'secrets is forbidden: User "system:serviceaccount:default:{name}" cannot list resource "secrets" in API '
        'group "" in the namespace "default"'
    )
    await kubectl("create", "configmap", name, "--from-literal=k=one")
    await becomes(gateway, name, "one")
    await kubectl("patch", "configmap", name, "-p", '{"data":{"k":"two"}}')
    await becomes(gateway, name, "two")
    token = (await ask(gateway, name, f"/file?path={ACCOUNT}/token"))["content"]
    (pod,) = (await kubectl.json("pods", "-l", f"serving.knative.dev/service={name}"))["items"]
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    answer = json.loads(
        await kubectl("create", "--validate=false", "-f", "-", "-o", "json", stdin=json.dumps(review))
    )
    extra = answer["status"]["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-name"] == [pod["metadata"]["name"]]
    issued = (await kubectl("create", "token", name, "--duration=10m")).strip()
    assert issued.count(".") == 2


async def becomes(gateway: Gateway, name: str, content: str) -> None:
    """Files tell nobody that they changed."""
    async with asyncio.timeout(10):
        while await ask(gateway, name, "/file?path=/config/k") != {"content": content}:
            await asyncio.sleep(0.05)
