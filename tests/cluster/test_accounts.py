"""Service accounts' tokens and volumes of running pods, on a real API server: only verbs that it has."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.components import NODE, Components
from tests.cluster.install import kubectl
from tests.e2e import streams, toolbox
from tests.e2e.streams import Streams

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@pytest.fixture(scope="module")
def client(components: Components, tmp_path_factory: pytest.TempPathFactory) -> Streams:
    directory = tmp_path_factory.mktemp("toolbox")
    root = toolbox.make(directory)
    components.cli("image", "build", str(root), "-t", streams.TOOLBOX, "--entrypoint", "/bin/sh")
    plane = components.control_plane
    command = [
        str(plane.assets / "kubectl"),
        f"--kubeconfig={plane.kubeconfig}",
        f"--cache-dir={directory / 'cache'}",
    ]
    return Streams(command, websockets=True)


@pytest.fixture(scope="module")
def reader(client: Streams) -> Iterator[str]:
    """A pod with its account's token and a ConfigMap that is not there yet."""
    body = streams.pod("reader", NODE, "echo up; sleep 100000")
    spec = body["spec"]
    spec["automountServiceAccountToken"] = True
    spec["volumes"] = [{"name": "late", "configMap": {"name": "late", "optional": True}}]
    spec["containers"][0]["volumeMounts"] = [{"name": "late", "mountPath": "/late"}]
    yield client.start_pod(body)
    client.delete("reader")


def read(client: Streams, pod: str, path: str) -> str:
    """Empty when there is no such file."""
    done = client.run("exec", pod, "--", "sh", "-c", f"test ! -e {path} || cat {path}")
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def until(check: Callable[[], bool]) -> None:
    """For files, which tell nobody."""
    end = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_the_api_server_knows_the_token(components: Components, client: Streams, reader: str) -> None:
    token = read(client, reader, f"{ACCOUNT}/token")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    plane = components.control_plane
    answer = kubectl(plane, "create", "-f", "-", "-o", "json", stdin=json.dumps(review))
    status = json.loads(answer)["status"]
    assert status["user"]["username"] == "system:serviceaccount:default:default"
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == [reader]
    assert read(client, reader, f"{ACCOUNT}/namespace") == "default"
    assert "BEGIN CERTIFICATE" in read(client, reader, f"{ACCOUNT}/ca.crt")


def test_files_follow_their_object(components: Components, client: Streams, reader: str) -> None:
    plane = components.control_plane
    assert read(client, reader, "/late/k") == ""
    kubectl(plane, "create", "configmap", "late", "--from-literal=k=one")
    try:
        until(lambda: read(client, reader, "/late/k") == "one")
        kubectl(plane, "patch", "configmap", "late", "-p", '{"data":{"k":"two"}}')
        until(lambda: read(client, reader, "/late/k") == "two")
    finally:
        kubectl(plane, "delete", "configmap", "late")
    until(lambda: read(client, reader, "/late/k") == "")
