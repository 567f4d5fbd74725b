"""Logs, passed through from a node agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.podstreams import choose_container
from tests.local.apiserver.nodeagent import running_node_agent
from tests.local.apiserver.objects import pod
from tests.local.apiserver.requests import PODS, Api


async def test_logs(api: Api, tmp_path: Path) -> None:
    async with running_node_agent(tmp_path / "k.sock") as agent:
        await api.create("/api/v1/nodes", agent.node("n"))
        await api.create(PODS, pod("p", nodeName="n"))
        agent.write(b"one\n")
        answer = await api.send("GET", f"{PODS}/p/log", tailLines="5", timestamps="true", insecure="x")
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"one\n", "text/plain")
        assert agent.asked == [("/containerLogs/default/p/c", {"tailLines": "5", "timestamps": "true"})]
        answer = await api.send("GET", f"{PODS}/p/log", previous="true")
        assert (answer.status, answer.json["reason"]) == (400, "BadRequest")
        assert answer.message == 'previous terminated container "c" in pod "p" not found'
        assert (await api.send("GET", f"{PODS}/p/log", container="x")).status == 400


async def test_following(api: Api, tmp_path: Path) -> None:
    async with running_node_agent(tmp_path / "k.sock") as agent:
        await api.create("/api/v1/nodes", agent.node("n"))
        await api.create(PODS, pod("p", nodeName="n"))
        agent.write(b"one\n")
        async with api.session.get(f"{PODS}/p/log", params={"follow": "true"}) as response, asyncio.timeout(10):
            assert await response.content.readline() == b"one\n"
            await agent.following.wait()
            agent.write(b"two\n")
            assert await response.content.readline() == b"two\n"
            agent.close_streams()
            assert await response.content.read() == b""


async def test_no_node_or_no_agent(api: Api) -> None:
    await api.create(PODS, pod("unbound"))
    answer = await api.send("GET", f"{PODS}/unbound/log")
    assert (answer.status, answer.body) == (204, b"")
    await api.create(PODS, pod("p", nodeName="n"))
    answer = await api.send("GET", f"{PODS}/p/log")
    assert (answer.status, "nodeless.dev/kubelet" in answer.message) == (500, True)
    node = {"metadata": {"name": "n", "annotations": {"nodeless.dev/kubelet": "http://127.0.0.1:1"}}}
    await api.create("/api/v1/nodes", node)
    answer = await api.send("GET", f"{PODS}/p/log")
    assert (answer.status, "cannot get the logs of default/p" in answer.message) == (500, True)


def test_which_container() -> None:
    obj = pod("p", containers=[{"name": "a"}, {"name": "b"}], initContainers=[{"name": "i"}])
    assert choose_container(pod("one", containers=[{"name": "a"}]), "") == "a"
    assert choose_container(obj, "i") == "i"
    with pytest.raises(StatusError, match=r"must be specified for pod p, choose one of: \[i a b\]"):
        choose_container(obj, "")
    with pytest.raises(StatusError, match="container x is not valid for pod p"):
        choose_container(obj, "x")
