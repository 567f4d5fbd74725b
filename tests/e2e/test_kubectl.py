"""Stock kubectl: apply, tables with Knative's columns, watches, waits, logs, edits, and deletion of children."""

from __future__ import annotations

import asyncio
import json

import pytest
import yaml

from tests.e2e.cluster import Cluster
from tests.e2e.http import Gateway
from tests.e2e.kubectl import Kubectl, Refused, columns
from tests.e2e.manifests import service


async def test_a_service_from_apply_to_answer(
    kubectl: Kubectl, cluster: Cluster, gateway: Gateway, name: str
) -> None:
    body = service(name, env={"TARGET": "e2e"})
    assert f"service.serving.knative.dev/{name} created" in await kubectl.apply(body)
    assert "condition met" in await kubectl("wait", "--for=condition=Ready", f"ksvc/{name}", "--timeout=30s")
    answer = await gateway.get(name)
    assert (answer.status, answer.text) == (200, "Hello e2e!\n")
    await kubectl.apply(body)
    assert (await kubectl.json("ksvc", name))["metadata"]["generation"] == 1, "the same manifest changes nothing"
    assert (await gateway.get("nobody")).status == 404


async def test_tables(kubectl: Kubectl, cluster: Cluster, name: str) -> None:
    await cluster.deploy(service(name))
    url = f"http://{name}.default.{cluster.stack.facts['domain']}"
    first = f"{name}-00001"
    assert columns(await kubectl("get", "ksvc", name)) == [
        ["NAME", "URL", "LATESTCREATED", "LATESTREADY", "READY", "REASON"],
        [name, url, first, first, "True"],
    ]
    assert columns(await kubectl("get", "rt", name)) == [["NAME", "URL", "READY", "REASON"], [name, url, "True"]]
    assert columns(await kubectl("get", "cfg", name)) == [
        ["NAME", "LATESTCREATED", "LATESTREADY", "READY", "REASON"],
        [name, first, first, "True"],
    ]
    table = columns(await kubectl("get", "rev", first))
    assert table[0] == [
        *("NAME", "CONFIG NAME", "GENERATION", "READY", "REASON", "ACTUAL REPLICAS", "DESIRED REPLICAS")
    ]
    assert table[1][:4] == [first, name, "1", "True"]
    pods = columns(await kubectl("get", "pods", "-l", f"serving.knative.dev/service={name}"))
    assert pods[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert pods[1][1:3] == ["1/1", "Running"]
    assert pods[1][0].startswith(f"{first}-deployment-")
    listed = await kubectl("get", "ksvc,rev,rt,cfg", "-l", f"serving.knative.dev/service={name}", "-o", "name")
    assert listed.split() == [
        f"revision.serving.knative.dev/{first}",
        f"route.serving.knative.dev/{name}",
        f"configuration.serving.knative.dev/{name}",
    ]


async def test_output_forms(kubectl: Kubectl, cluster: Cluster, name: str) -> None:
    await cluster.deploy(service(name, env={"TARGET": "x"}))
    assert yaml.safe_load(await kubectl("get", "ksvc", name, "-o", "yaml"))["kind"] == "Service"
    assert (await kubectl.json("ksvc", name))["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert await kubectl("get", "ksvc", name, "-o", "name") == f"service.serving.knative.dev/{name}\n"
    wide = columns(await kubectl("get", "pods", "-o", "wide", "-l", f"serving.knative.dev/service={name}"))
    assert wide[0][5:7] == ["IP", "NODE"]
    described = await kubectl("describe", "ksvc", name)
    assert "Latest Ready Revision Name:" in described
    assert f"{name}-00001" in described
    path = "jsonpath={.status.url}"
    assert await kubectl("get", "ksvc", name, "-o", path) == f"http://{name}.default.localhost"


async def test_watching_follows_changes(kubectl: Kubectl, cluster: Cluster, name: str) -> None:
    process = await kubectl.start("get", "ksvc", "--watch-only", "-o", "name")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            # The first line tells that the watch is open; nothing else does.
            seen = ""
            attempt = 0
            while name not in seen:
                attempt += 1
                await cluster.apply(service(name, annotations={"attempt": str(attempt)}))
                try:
                    async with asyncio.timeout(1):
                        seen = (await process.stdout.readline()).decode()
                except TimeoutError:
                    continue
        assert seen == f"service.serving.knative.dev/{name}\n"
    finally:
        process.terminate()
        await process.communicate()


async def test_edits(kubectl: Kubectl, cluster: Cluster, gateway: Gateway, name: str) -> None:
    await cluster.deploy(service(name, env={"TARGET": "one"}))
    await kubectl("label", "ksvc", name, "team=blue")
    await kubectl("annotate", "ksvc", name, "note=this")
    assert await kubectl("get", "ksvc", "-l", "team=blue", "-o", "name") == f"service.serving.knative.dev/{name}\n"
    stored = await kubectl.json("ksvc", name)
    assert stored["metadata"]["annotations"]["note"] == "this"
    assert stored["metadata"]["generation"] == 1
    patch = json.dumps(service(name, env={"TARGET": "two"})["spec"])
    await kubectl("patch", "ksvc", name, "--type=merge", "-p", f'{{"spec": {patch}}}')
    assert (await cluster.ready(name))["status"]["latestReadyRevisionName"] == f"{name}-00002"
    assert (await gateway.get(name)).text == "Hello two!\n"
    assert len(await cluster.list("revision", f"serving.knative.dev/service={name}")) == 2


async def test_logs_follow_a_pod(kubectl: Kubectl, cluster: Cluster, name: str, python_image: str) -> None:
    await cluster.deploy(service(name, image=python_image))
    (pod,) = await cluster.list("pod", f"serving.knative.dev/service={name}")
    pod_name = pod["metadata"]["name"]
    assert "hello: listening on" in await kubectl("logs", pod_name)
    process = await kubectl.start("logs", "-f", pod_name, "-c", "user-container")
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert b"listening" in await process.stdout.readline()
        await cluster.delete("ksvc", name)
        rest, _ = await process.communicate()
    assert b"hello: stopped" in rest
    assert process.returncode == 0


async def test_create(kubectl: Kubectl, cluster: Cluster, name: str) -> None:
    text = yaml.safe_dump(service(name))
    assert f"service.serving.knative.dev/{name} created" in await kubectl("create", "-f", "-", stdin=text)
    with pytest.raises(Refused) as caught:
        await kubectl("create", "-f", "-", stdin=text)
    assert str(caught.value).splitlines()[-1] == (
        'Error from server (AlreadyExists): error when creating "STDIN": '
        f'services.serving.knative.dev "{name}" already exists'
    )


async def test_deletion_takes_children_and_pods(
    kubectl: Kubectl, cluster: Cluster, gateway: Gateway, name: str
) -> None:
    await cluster.deploy(service(name))
    assert "deleted" in await kubectl("delete", "ksvc", name)
    selector = f"serving.knative.dev/service={name}"
    for kind in ("configuration", "route", "revision", "pod"):
        await cluster.until(kind, lambda items: not items, selector=selector, what=f"no {kind} is left of {name}")
    assert (await gateway.get(name)).status == 404


async def test_api_resources(kubectl: Kubectl) -> None:
    table = await kubectl("api-resources", "--api-group=serving.knative.dev")
    rows = {tuple(row.split()) for row in table.splitlines()}
    assert rows >= {
        ("configurations", "config,cfg", "serving.knative.dev/v1", "true", "Configuration"),
        ("revisions", "rev", "serving.knative.dev/v1", "true", "Revision"),
        ("routes", "rt", "serving.knative.dev/v1", "true", "Route"),
        ("services", "kservice,ksvc", "serving.knative.dev/v1", "true", "Service"),
    }
