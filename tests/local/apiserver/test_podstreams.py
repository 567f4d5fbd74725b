"""exec, attach and port-forward, as far as the API server has a say."""

from __future__ import annotations

from pathlib import Path

import pytest
from multidict import MultiDict

from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.podstreams import kubelet_target
from tests.local.apiserver.objects import pod
from tests.local.apiserver.requests import PODS, Api

UPGRADE = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}


@pytest.mark.parametrize(
    ("subresource", "query", "target"),
    [
        pytest.param(
            "exec",
            [("command", "sh"), ("command", "-c"), ("command", "a b&c"), ("stdout", "true"), ("stderr", "1")],
            "/exec/default/p/c?output=1&error=1&command=sh&command=-c&command=a+b%26c",
            id="exec",
        ),
        pytest.param(
            "exec",
            [("command", "sh"), ("stdin", "true"), ("stdout", "true"), ("tty", "true"), ("stderr", "false")],
            "/exec/default/p/c?input=1&output=1&tty=1&command=sh",
            id="exec in a terminal",
        ),
        pytest.param(
            "attach", [("stdout", "true"), ("container", "c")], "/attach/default/p/c?output=1", id="attach"
        ),
        pytest.param("portforward", [], "/portForward/default/p", id="portforward"),
        pytest.param(
            "portforward",
            [("ports", "80"), ("ports", "443")],
            "/portForward/default/p?port=80%2C443",
            id="portforward of ports",
        ),
    ],
)
def test_where_it_is_on_the_node(subresource: str, query: list[tuple[str, str]], target: str) -> None:
    obj = pod("p", nodeName="n", containers=[{"name": "c"}])
    obj["metadata"]["namespace"] = "default"
    assert kubelet_target(obj, subresource, MultiDict(query)) == target


@pytest.mark.parametrize(
    ("subresource", "query", "node", "message"),
    [
        ("exec", [("container", "x")], "n", "container x is not valid for pod p"),
        ("exec", [], "", "pod p does not have a host assigned"),
        ("portforward", [], "", "pod p does not have a host assigned"),
        ("portforward", [("ports", "http")], "n", 'parsing "http": invalid syntax'),
    ],
)
def test_refusals(subresource: str, query: list[tuple[str, str]], node: str, message: str) -> None:
    obj = pod("p", nodeName=node, containers=[{"name": "c"}])
    obj["metadata"]["namespace"] = "default"
    with pytest.raises(StatusError, match=message) as refused:
        kubelet_target(obj, subresource, MultiDict(query))
    assert refused.value.code == 400


async def test_through_the_api(api: Api, tmp_path: Path) -> None:
    answer = await api.send("GET", f"{PODS}/none/exec", command="ls", stdout="true")
    assert answer.status == 404
    annotations = {"nodeless.dev/kubelet": f"unix:{tmp_path / 'nobody.sock'}"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "annotations": annotations}}
    await api.create("/api/v1/nodes", node)
    await api.create(PODS, pod("p", nodeName="n"))
    answer = await api.send("POST", f"{PODS}/p/exec", command="ls", stdout="true")
    assert (answer.status, answer.message) == (400, "Upgrade request required")
    url = f"{PODS}/p/exec?command=ls&stdout=true"
    async with api.session.post(url, headers=UPGRADE) as response:
        body = await response.json()
    assert (response.status, "cannot reach the node agent of default/p" in body["message"]) == (500, True)
    async with api.session.put(url, headers=UPGRADE) as response:
        assert response.status == 405
