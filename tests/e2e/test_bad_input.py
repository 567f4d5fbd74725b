"""What is refused, in Knative's and Kubernetes' words, with nothing stored changed; services that cannot run."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp
import pytest

from serving.api.meta import JsonObject
from serving.kube.errors import NotFound
from tests.e2e.cluster import Cluster
from tests.e2e.http import Gateway
from tests.e2e.kubectl import Refused
from tests.e2e.manifests import service

LATEST = {"latestRevision": True}


def changed(name: str, **spec: Any) -> JsonObject:
    body = service(name)
    body["spec"] |= spec
    return body


def unknown_field(name: str) -> JsonObject:
    return changed(name, bogus=1)


def unknown_nested_field(name: str) -> JsonObject:
    return service(name, container={"imagePullPolice": "Always"})


def wrong_type(name: str) -> JsonObject:
    return service(name, spec={"timeoutSeconds": "soon"})


def percent_sum(name: str) -> JsonObject:
    return service(name, traffic=[LATEST | {"percent": 60}])


def no_containers(name: str) -> JsonObject:
    return changed(name, template={"spec": {"containers": []}})


def reserved_variable(name: str) -> JsonObject:
    return service(name, env={"PORT": "9"})


def bad_annotation(name: str) -> JsonObject:
    return service(name, window="1s")


REFUSED = {
    unknown_field: 'unknown field "spec.bogus"',
    unknown_nested_field: 'unknown field "spec.template.spec.containers[0].imagePullPolice"',
    wrong_type: "timeoutSeconds of type int64",
    percent_sum: "validation failed: Traffic targets sum to 60, want 100: spec.traffic",
    no_containers: "validation failed: missing field(s): spec.template.spec.containers",
    reserved_variable: 'validation failed: "PORT" is a reserved environment variable: spec.template.spec',
    bad_annotation: "spec.template.metadata.annotations.autoscaling.knative.dev/window",
}


@pytest.mark.parametrize("make", REFUSED, ids=[make.__name__ for make in REFUSED])
async def test_refused_when_created(cluster: Cluster, name: str, make: Any) -> None:
    with pytest.raises(Refused) as caught:
        await cluster.apply(make(name))
    assert REFUSED[make] in str(caught.value)
    assert str(caught.value).startswith("Error from server (BadRequest)")
    with pytest.raises(NotFound):
        await cluster.get("ksvc", name)


async def test_a_refused_change_leaves_what_was_stored(cluster: Cluster, gateway: Gateway, name: str) -> None:
    before = await cluster.deploy(service(name, env={"TARGET": "kept"}))
    for make, text in REFUSED.items():
        with pytest.raises(Refused) as caught:
            await cluster.apply(make(name))
        assert text in str(caught.value)
    assert await cluster.get("ksvc", name) == before
    assert (await gateway.get(name)).text == "Hello kept!\n"


async def test_invalid_name(cluster: Cluster, name: str) -> None:
    with pytest.raises(Refused) as caught:
        await cluster.apply(service("Not_A_Name"))
    assert ' "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name"' in str(caught.value)
    with pytest.raises(Refused, match="not a DNS 1035 label"):
        await cluster.apply(service("1-starts-with-a-digit"))


async def test_oversized_body(cluster: Cluster, name: str) -> None:
    layout = cluster.stack.data_dir
    token = (layout / "token").read_text().strip()
    body = json.dumps(service(name, env={"TARGET": "y" * 4_000_000}))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    url = f"{cluster.stack.facts['api']}/apis/serving.knative.dev/v1/namespaces/default/services"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=io.BytesIO(body.encode()), headers=headers, ssl=False) as response,
    ):
        status = await response.json()
    assert (status["code"], status["reason"]) == (413, "RequestEntityTooLarge")
    assert status["message"].startswith("Request entity too large: limit is")


async def test_traffic_to_a_missing_revision(cluster: Cluster, gateway: Gateway, name: str) -> None:
    """The Route says so; what was served before is served on."""
    await cluster.deploy(service(name, env={"TARGET": "old"}))
    missing = f"{name}-00009"
    await cluster.patch("ksvc", name, {"spec": {"traffic": [{"revisionName": missing, "percent": 100}]}})
    condition = await cluster.condition("route", name, status="False")
    assert condition["reason"] == "RevisionMissing"
    assert condition["message"] == f'Revision "{missing}" referenced in traffic not found.'
    await cluster.condition("ksvc", name, type="RoutesReady", status="False")
    assert (await cluster.condition("ksvc", name, status="False"))["reason"] == "RevisionMissing"
    assert (await gateway.get(name)).text == "Hello old!\n"
    await cluster.patch("ksvc", name, {"spec": {"traffic": [LATEST | {"percent": 100}]}})
    await cluster.ready(name)


async def test_a_registry_that_does_not_answer(cluster: Cluster, name: str) -> None:
    image = "127.0.0.1:9/none/such"
    await cluster.apply(service(name, image=image))
    condition = await cluster.condition("revision", f"{name}-00001", status="False")
    assert condition["reason"] == "ContainerMissing"
    text = f'Unable to fetch image "{image}": failed to resolve image to digest: '
    assert condition["message"].startswith(text)
    configuration = await cluster.condition("configuration", name, status="False")
    assert configuration["reason"] == "RevisionFailed"
    assert configuration["message"].startswith(f'Revision "{name}-00001" failed with message: {text}')
    await cluster.condition("ksvc", name, type="RoutesReady", status="False")
    ready = await cluster.condition("ksvc", name, status="False")
    assert ready["reason"] == "RevisionMissing"
    assert ready["message"] == f'Configuration "{name}" does not have any ready Revision.'


async def fails_to_run(cluster: Cluster, body: JsonObject, *, type: str, reason: str) -> str:
    """Apply a Service and wait for its Revision to fail with a reason; returns the message."""
    body["spec"]["template"]["metadata"]["annotations"]["serving.knative.dev/progress-deadline"] = "4s"
    await cluster.apply(body)
    name = body["metadata"]["name"]
    condition = await cluster.condition("revision", f"{name}-00001", type=type, status="False")
    assert condition["reason"] == reason
    ready = await cluster.condition("revision", f"{name}-00001", status="False")
    assert (ready["reason"], ready["message"]) == (reason, condition["message"])
    message: str = condition["message"]
    return message


async def test_an_image_that_is_not_there(cluster: Cluster, name: str) -> None:
    body = service(name, image="dev.local/none")
    message = await fails_to_run(cluster, body, type="ResourcesAvailable", reason="ImagePullBackOff")
    assert "dev.local/none" in message


async def test_a_crash_loop(cluster: Cluster, name: str, python_image: str) -> None:
    body = service(
        name, image=python_image, container={"command": ["/usr/bin/python3", "-c", "raise SystemExit(3)"]}
    )
    message = await fails_to_run(cluster, body, type="ContainerHealthy", reason="ExitCode3")
    assert message.startswith("Container failed with: ")


async def test_a_port_that_is_never_opened(cluster: Cluster, name: str, python_image: str) -> None:
    body = service(
        name, image=python_image, container={"command": ["/usr/bin/python3", "-c", "import time; time.sleep(99)"]}
    )
    message = await fails_to_run(cluster, body, type="ResourcesAvailable", reason="ProgressDeadlineExceeded")
    assert message == "Initial scale was never achieved"


async def test_a_bad_revision_leaves_the_good_one_serving(
    cluster: Cluster, gateway: Gateway, name: str, python_image: str
) -> None:
    await cluster.deploy(service(name, image=python_image, env={"TARGET": "good"}))
    broken = service(
        name, image=python_image, container={"command": ["/usr/bin/python3", "-c", "raise SystemExit(7)"]}
    )
    await cluster.apply(broken)
    condition = await cluster.condition("ksvc", name, status="False")
    assert condition["reason"] == "RevisionFailed"
    assert (await cluster.get("ksvc", name))["status"]["latestReadyRevisionName"] == f"{name}-00001"
    assert (await gateway.get(name)).text == "Hello good!\n"
