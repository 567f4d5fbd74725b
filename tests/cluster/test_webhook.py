"""The webhook behind its Service, as in a cluster, and its certificate over a renewal."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.kube.client import KubeClient
from serving.kube.connection import from_kubeconfig
from serving.webhook.certificate_keeper import SECRET_NAME, CertificateKeeper
from serving.webhook.certificates import OVERLAP_SECONDS, RENEW_SECONDS, VALID_SECONDS, read_secret, trusts
from serving.webhook.service import WebhookSettings
from serving.webhook.service import run as serve
from tests.cluster.components import Components
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import kubectl, service_account_kubeconfig

NAMESPACE = "knative-serving"
CONFIGURATIONS = (
    "mutatingwebhookconfiguration/webhook.serving.knative.dev",
    "validatingwebhookconfiguration/validation.webhook.serving.knative.dev",
    "validatingwebhookconfiguration/config.webhook.serving.knative.dev",
)


@pytest.fixture
def cluster(bare_control_plane: ControlPlane) -> ControlPlane:
    """Here the webhook is where its Service leads, or nowhere."""
    return bare_control_plane


def lead_to(cluster: ControlPlane, port: int) -> None:
    """Have the Service `webhook` lead to this machine: there is no network of a cluster here."""
    external = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "webhook", "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    kubectl(cluster, "apply", "-f", "-", stdin=json.dumps(external))
    patch = json.dumps([{"op": "add", "path": "/webhooks/0/clientConfig/service/port", "value": port}])
    for configuration in CONFIGURATIONS:
        kubectl(cluster, "patch", configuration, "--type=json", "-p", patch)


def admitted(cluster: ControlPlane) -> Any:
    """What a dry run of a Service's creation answers; it has been through both webhooks."""
    container = {"image": "dev.local/hello"}
    body = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    arguments = ("create", "--dry-run=server", "-o", "json", "-f", "-")
    return json.loads(kubectl(cluster, *arguments, stdin=json.dumps(body)))


def wait_until_admitted(cluster: ControlPlane, *, seconds: float = 10) -> None:
    """API servers learn of a changed configuration by a watch."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            admitted(cluster)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def test_two_replicas_behind_the_service_share_a_certificate(cluster: ControlPlane, tmp_path: Path) -> None:
    replicas = Components(cluster, tmp_path)
    try:
        for replica in ("webhook", "webhook-2"):
            replicas.start(replica, "--port", "0", account="webhook", command="webhook")
        for replica in ("webhook", "webhook-2"):
            lead_to(cluster, int(replicas.facts[replica]["url"].rpartition(":")[2]))
            wait_until_admitted(cluster)
        spec = admitted(cluster)["spec"]["template"]["spec"]
        assert (spec["timeoutSeconds"], spec["containerConcurrency"]) == (300, 0)
        secret = json.loads(kubectl(cluster, "get", "secret", SECRET_NAME, "-n", NAMESPACE, "-o", "json"))
        stored = read_secret(secret["data"])
        assert stored is not None
        for configuration in CONFIGURATIONS:
            body = json.loads(kubectl(cluster, "get", configuration, "-o", "json"))
            assert body["webhooks"][0]["clientConfig"]["caBundle"] == stored.bundle
    finally:
        replicas.close()


def test_the_service_account_may_not_touch_other_secrets(cluster: ControlPlane) -> None:
    kubeconfig = str(service_account_kubeconfig(cluster, "webhook"))
    for arguments, answer in (
        (("patch", f"secret/{SECRET_NAME}", "-n", NAMESPACE), "yes"),
        (("get", "secret/nodeless-reports", "-n", NAMESPACE), "no"),
        (("create", "secrets", "-n", NAMESPACE), "no"),
        (("patch", "validatingwebhookconfiguration/other"), "no"),
    ):
        done = subprocess.run(
            [str(cluster.assets / "kubectl"), "--kubeconfig", kubeconfig, "auth", "can-i", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == answer, arguments


class Replica:
    """A webhook in this process whose clock can be set."""

    def __init__(self, client: KubeClient) -> None:
        self.offset = 0.0
        self.keeper = CertificateKeeper(client, hosts=(), now=lambda: time.time() + self.offset)
        self.port = 0


@asynccontextmanager
async def replica(cluster: ControlPlane, *, offset: float) -> AsyncIterator[Replica]:
    kubeconfig = await asyncio.to_thread(service_account_kubeconfig, cluster, "webhook")
    async with KubeClient(await from_kubeconfig(kubeconfig)) as client:
        replica = Replica(client)
        replica.offset = offset
        started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(replica.keeper.run())]
            await replica.keeper.ready.wait()
            serving = serve(
                WebhookSettings(), client=client, tls=replica.keeper.context, on_started=started.set_result
            )
            tasks.append(group.create_task(serving))
            replica.port = int((await started).rpartition(":")[2])
            try:
                yield replica
            finally:
                for task in tasks:
                    task.cancel()


async def bundles(cluster: ControlPlane) -> list[str]:
    found = []
    for configuration in CONFIGURATIONS:
        text = await asyncio.to_thread(kubectl, cluster, "get", configuration, "-o", "json")
        found.append(json.loads(text)["webhooks"][0]["clientConfig"].get("caBundle", ""))
    return found


async def secret(cluster: ControlPlane) -> Any:
    text = await asyncio.to_thread(kubectl, cluster, "get", "secret", SECRET_NAME, "-n", NAMESPACE, "-o", "json")
    return read_secret(json.loads(text).get("data"))


async def test_a_certificate_is_renewed_while_requests_go_on(cluster: ControlPlane) -> None:
    """The clock of the replica begins in the past: the API server's stands, and must like all certificates."""
    empty = json.dumps({"data": None})
    await asyncio.to_thread(kubectl, cluster, "patch", "secret", SECRET_NAME, "-n", NAMESPACE, "-p", empty)
    age = VALID_SECONDS - RENEW_SECONDS
    async with asyncio.timeout(120), replica(cluster, offset=-age - OVERLAP_SECONDS - 120) as one:
        await asyncio.to_thread(lead_to, cluster, one.port)
        await asyncio.to_thread(wait_until_admitted, cluster)
        first = await secret(cluster)
        assert first.successor is None

        one.offset = -OVERLAP_SECONDS - 60
        one.keeper.look_again()
        while (announced := await secret(cluster)).successor is None:
            await asyncio.sleep(0.05)
        assert announced.serving == first.serving
        while not all(trusts(bundle, announced.successor) for bundle in await bundles(cluster)):
            await asyncio.sleep(0.05)
        await asyncio.to_thread(admitted, cluster)

        one.offset = 0.0
        one.keeper.look_again()
        while (promoted := await secret(cluster)).successor is not None:
            await asyncio.to_thread(admitted, cluster)
        assert promoted.serving == announced.successor
        while one.keeper.served != promoted.serving:
            await asyncio.to_thread(admitted, cluster)
        await asyncio.to_thread(admitted, cluster)
        assert all(trusts(bundle, first.serving) for bundle in await bundles(cluster))
        assert all(base64.b64decode(bundle).count(b"BEGIN CERTIFICATE") == 2 for bundle in await bundles(cluster))
