"""The node agent as a node of a real API server: Node, Lease, pods' lives, and the kubelet API behind kubectl."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.components import NODE, Components
from tests.cluster.install import kubectl
from tests.e2e import streams, toolbox
from tests.e2e.streams import Streams


@pytest.fixture(scope="module")
def command(components: Components, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("toolbox")
    root = toolbox.make(directory)
    components.cli("image", "build", str(root), "-t", streams.TOOLBOX, "--entrypoint", "/bin/sh")
    plane = components.control_plane
    return [
        str(plane.assets / "kubectl"),
        f"--kubeconfig={plane.kubeconfig}",
        f"--cache-dir={directory / 'cache'}",
    ]


@pytest.fixture(params=["websocket", "spdy"])
def client(request: pytest.FixtureRequest, command: list[str]) -> Streams:
    return Streams(command, websockets=request.param == "websocket")


@pytest.fixture(scope="module")
def box(command: list[str]) -> Iterator[str]:
    client = Streams(command, websockets=True)
    yield client.start_pod(streams.pod("box", NODE, "echo up; sleep 100000"))
    client.delete("box")


def test_exec(client: Streams, box: str) -> None:
    streams.check_exec(client, box)


def test_a_shell_in_a_terminal(client: Streams, box: str) -> None:
    streams.check_terminal(client, box)


def test_copy_both_ways(client: Streams, box: str, tmp_path: Path) -> None:
    streams.check_copy(client, box, tmp_path)


def test_attach(client: Streams) -> None:
    streams.check_attach(client, NODE, "attached")


def test_run_in_a_terminal(client: Streams, box: str) -> None:
    streams.check_run_in_terminal(client, NODE, "interactive")


def test_port_forward(client: Streams) -> None:
    streams.check_port_forward(client, NODE, "forwarded")


def test_logs(command: list[str]) -> None:
    streams.check_logs(Streams(command, websockets=True), NODE, "logged")


def _get(components: Components, *arguments: str) -> Any:
    return json.loads(kubectl(components.control_plane, "get", *arguments, "-o", "json"))


def test_the_node_and_its_lease(components: Components) -> None:
    node = _get(components, "node", NODE)
    assert {"key": "virtual-kubelet.io/provider", "value": "nodeless", "effect": "NoSchedule"} in node["spec"][
        "taints"
    ]
    assert node["metadata"]["labels"]["type"] == "virtual-kubelet"
    assert node["status"]["addresses"] == [{"type": "InternalIP", "address": "127.0.0.1"}]
    assert node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] > 0
    conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    lease = _get(components, "lease", NODE, "-n", "kube-node-lease")
    assert lease["spec"]["holderIdentity"] == NODE
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
    deadline = time.monotonic() + 30
    while (
        _get(components, "lease", NODE, "-n", "kube-node-lease")["spec"]["renewTime"] == lease["spec"]["renewTime"]
    ):
        assert time.monotonic() < deadline, "the lease is not renewed"
        time.sleep(0.5)


def test_a_pod_from_binding_to_deletion(components: Components, command: list[str]) -> None:
    client = Streams(command, websockets=True)
    body = streams.pod("whole", NODE, "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done")
    body["spec"]["terminationGracePeriodSeconds"] = 20
    client.start_pod(body)
    pod = _get(components, "pod", "whole")
    status = pod["status"]
    assert status["phase"] == "Running"
    assert status["hostIP"] == "127.0.0.1"
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert status["qosClass"] == "BestEffort"
    assert status["startTime"]
    (container,) = status["containerStatuses"]
    assert container["started"]
    assert container["state"]["running"]["startedAt"]
    true = {one["type"] for one in status["conditions"] if one["status"] == "True"}
    assert {"PodScheduled", "Initialized", "ContainersReady", "Ready", "PodReadyToStartContainers"} <= true
    with client.started("logs", "-f", "whole") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"up\n"
        began = time.monotonic()
        client.ok("delete", "pod", "whole")
        assert time.monotonic() - began < 15, "it ended when its program did, not with its grace period"
        assert following.stdout.read() == b"bye\n"


def test_a_pod_made_again_under_its_name_is_another(components: Components, command: list[str]) -> None:
    client = Streams(command, websockets=True)
    for _ in range(2):
        client.start_pod(streams.pod("again", NODE, "echo $HOSTNAME; sleep 1000"))
        first = _get(components, "pod", "again")["metadata"]["uid"]
        client.ok("delete", "pod", "again", "--grace-period=0", "--force", "--wait=false")
        client.start_pod(streams.pod("again", NODE, "sleep 1000"))
        assert _get(components, "pod", "again")["metadata"]["uid"] != first
        client.delete("again")


def _kubelet(components: Components, path: str, token: str = "") -> tuple[int, str]:
    node = _get(components, "node", NODE)
    port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # its own certificate
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_who_may_use_the_kubelet_api(components: Components, box: str) -> None:
    plane = components.control_plane
    kubectl(plane, "create", "serviceaccount", "reader")
    documents = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "kubelet-metrics"},
            "rules": [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "kubelet-metrics"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "kubelet-metrics",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}],
        },
    ]
    kubectl(plane, "apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
    token = kubectl(plane, "create", "token", "reader").strip()
    assert _kubelet(components, "/pods")[0] == HTTPStatus.UNAUTHORIZED
    assert _kubelet(components, "/pods", "made-up")[0] == HTTPStatus.UNAUTHORIZED
    status, text = _kubelet(components, "/pods", token)
    assert status == HTTPStatus.FORBIDDEN
    who = "system:serviceaccount:default:reader"
    assert text == f"Forbidden (user={who}, verb=get, resource=nodes, subresource(s)=[pods proxy])"
    status, text = _kubelet(components, "/metrics/resource", token)
    assert status == HTTPStatus.OK
    assert 'container_memory_working_set_bytes{container="main",namespace="default",pod="box"}' in text
    status, _ = _kubelet(components, "/exec/default/box/main?command=ls&output=1", token)
    assert status == HTTPStatus.FORBIDDEN
