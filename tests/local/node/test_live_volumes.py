"""Volumes of running pods: tokens, and files that follow ConfigMaps, Secrets and the pod's own metadata."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from serving.api.meta import JsonObject
from serving.api.pod import Pod
from serving.api.resources import CONFIG_MAPS, EVENTS, PODS, SECRETS
from serving.kube.errors import from_status
from serving.local.node.envvars import ConfigError
from serving.local.node.events import EventRecorder
from serving.local.node.metrics import NodeMetrics
from serving.local.node.object_cache import ObjectCache
from serving.local.node.paths import NodePaths
from serving.local.node.pod_volumes import PodVolumes, SandboxUp
from serving.local.node.prober import Prober
from serving.local.node.settings import NodeContext, NodeSettings
from serving.local.sandbox.protocol import Sandbox
from tests.local.node.fakes import FakeImages, FakeKube, FakeRuntime
from tests.local.node.harness import Node, node
from tests.local.node.pods import NODE, container, pod_json

MOUNT = {"name": "v", "mountPath": "/v"}
TOKEN: JsonObject = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}


def pod(source: JsonObject, *, mount: JsonObject | None = None, name: str = "p", **spec: Any) -> JsonObject:
    app = container(volumeMounts=[mount or MOUNT])
    return pod_json(name, containers=[app], volumes=[{"name": "v", **source}], **spec)


def projected(*sources: JsonObject, **more: Any) -> JsonObject:
    return {"projected": {"sources": list(sources), **more}}


def config_map(name: str, /, **data: str) -> JsonObject:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def mounted(it: Node, name: str = "p") -> Path:
    (mount,) = it.sandbox(name).started[-1].mounts
    return mount.source


async def until(check: Callable[[], bool]) -> None:
    """For files, which tell nobody."""
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.005)


async def test_a_token_is_asked_for_once_and_bound_to_the_pod() -> None:
    async with node() as it:
        it.kube.put(CONFIG_MAPS, config_map("ca", **{"ca.crt": "C"}))
        source = projected(
            TOKEN,
            {"configMap": {"name": "ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        )
        it.add(pod(source, serviceAccountName="builder"))
        await it.ready()
        ((namespace, account, spec),) = it.kube.token_requests
        assert (namespace, account) == ("default", "builder")
        assert (spec["expirationSeconds"], spec["audiences"]) == (3607, [])
        assert spec["boundObjectRef"] == {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p"}
        directory = mounted(it)
        assert {p.name: p.read_text() for p in directory.iterdir() if not p.name.startswith("..")} == {
            "token": "token-1",
            "ca.crt": "C",
            "namespace": "default",
        }
        assert (directory / "token").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("security", "mode"),
    [({"runAsUser": os.getuid()}, 0o600), ({"fsGroup": os.getgid()}, 0o640), ({}, 0o400)],
)
async def test_who_may_read_a_token(security: JsonObject, mode: int) -> None:
    async with node() as it:
        it.add(pod(projected(TOKEN, defaultMode=0o400), securityContext=security))
        await it.ready()
        assert (mounted(it) / "token").stat().st_mode & 0o777 == mode


async def test_a_token_is_renewed_before_it_expires() -> None:
    async with node() as it:
        it.kube.token_seconds = 2.0
        it.add(pod(projected(TOKEN)))
        await it.ready()
        it.kube.token_seconds = None
        assert (mounted(it) / "token").read_text() == "token-1"
        async with asyncio.timeout(20):
            while (mounted(it) / "token").read_text() == "token-1":
                await asyncio.sleep(0.05)
        assert (mounted(it) / "token").read_text() == "token-2"


async def test_a_token_that_is_refused_is_told_of() -> None:
    async with node() as it:
        it.kube.token_failures.append(from_status(404, {"message": 'serviceaccounts "x" not found'}))
        it.add(pod(projected(TOKEN)))
        events: Callable[[], list[JsonObject]] = lambda: [  # noqa: E731
            item for (plural, _, _), item in it.kube.objects.items() if plural == EVENTS.plural
        ]
        text = 'MountVolume.SetUp failed for volume "v" : failed to fetch token: serviceaccounts "x" not found'
        await it.kube.until(lambda: any(text in event["message"] for event in events()))
        await it.ready()  # the next try


@pytest.mark.parametrize("kind", ["configMap", "secret"])
async def test_files_follow_their_object(kind: str) -> None:
    async with node() as it:
        resource = CONFIG_MAPS if kind == "configMap" else SECRETS
        name = {"configMap": {"name": "c"}, "secret": {"secretName": "c"}}[kind]
        values = {"configMap": ("one", "two"), "secret": ("b25l", "dHdv")}[kind]
        it.kube.put(resource, config_map("c", k=values[0]))
        it.add(pod({kind: name}))
        await it.ready()
        directory = mounted(it)
        before = (directory / "..data").resolve()
        assert (directory / "k").read_text() == "one"
        it.kube.put(resource, config_map("c", k=values[1], more=values[1]))
        await until(lambda: (directory / "more").exists())
        assert (directory / "k").read_text() == "two"
        await until(lambda: not before.exists())
        it.kube.remove(resource, "c", "default")  # nothing can be made of it: the files stay
        it.kube.put(resource, config_map("c", only=values[0]))
        await until(lambda: (directory / "only").exists() and not (directory / "k").exists())


async def test_an_optional_object_may_come_later_and_go() -> None:
    async with node() as it:
        it.add(pod({"configMap": {"name": "late", "optional": True}}))
        await it.ready()
        assert not (mounted(it) / "k").exists()
        it.kube.put(CONFIG_MAPS, config_map("late", k="v"))
        await until(lambda: (mounted(it) / "k").exists())
        it.kube.remove(CONFIG_MAPS, "late", "default")
        await until(lambda: not (mounted(it) / "k").exists())


async def test_sub_paths_stay_as_they_were() -> None:
    async with node() as it:
        it.kube.put(CONFIG_MAPS, config_map("c", k="one"))
        it.add(pod({"configMap": {"name": "c"}}, mount={**MOUNT, "subPath": "k"}))
        await it.ready()
        source = mounted(it)
        with source.open() as held:  # as a bind mount holds it
            it.kube.put(CONFIG_MAPS, config_map("c", k="two"))
            await until(lambda: not source.exists())
            assert held.read() == "one"


async def test_labels_are_followed_and_other_changes_cost_nothing() -> None:
    labels = {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    async with node() as it:
        it.add(pod(labels))
        await it.ready()
        changed = it.kube.find(PODS, "p", "default")
        assert changed is not None
        changed["metadata"]["labels"] = {"a": "b"}
        it.kube.put(PODS, changed)
        await until(lambda: (mounted(it) / "labels").read_text() == 'a="b"')


async def test_one_watch_for_many_pods_and_none_left_behind() -> None:
    async with node() as it:
        it.kube.put(CONFIG_MAPS, config_map("c", k="one"))
        for number in range(5):
            it.add(pod({"configMap": {"name": "c"}}, name=f"p{number}"))
        for number in range(5):
            await it.ready(f"p{number}")
        assert it.kube.watches["configmaps"] == 1
        it.kube.put(CONFIG_MAPS, config_map("c", k="two"))
        for number in range(5):
            await until(lambda n=number: (mounted(it, f"p{n}") / "k").read_text() == "two")  # type: ignore[misc]


async def test_a_new_agent_goes_on_with_the_volumes_of_the_old() -> None:
    async with node() as it:
        it.kube.put(CONFIG_MAPS, config_map("c", k="one"))
        it.add(pod(projected(TOKEN, {"configMap": {"name": "c"}})))
        await it.ready()
        directory = mounted(it)
        await it.stop()
        it.kube.put(CONFIG_MAPS, config_map("c", k="two"))
        await it.start()
        await until(lambda: (directory / "k").read_text() == "two")
        assert (directory / "token").read_text() == "token-2"
        assert len(it.sandbox().started) == 1


async def test_nothing_is_written_for_a_pod_that_is_gone() -> None:
    async with node() as it:
        it.kube.put(CONFIG_MAPS, config_map("c", k="one"))
        it.add(pod({"configMap": {"name": "c"}}))
        await it.ready()
        directory = mounted(it)
        it.kube.put(CONFIG_MAPS, config_map("c", k="two"))
        await it.kube.delete(PODS, "p", "default", grace_period_seconds=1)
        await it.kube.until(lambda: it.kube.find(PODS, "p", "default") is None)
        it.kube.put(CONFIG_MAPS, config_map("c", k="three"))
        assert not directory.exists()


async def test_what_is_being_set_up_is_not_written_once_the_volumes_are_closed(tmp_path: Path) -> None:
    kube, paths = FakeKube(), NodePaths(tmp_path)
    kube.token_gate.clear()
    one = msgspec.convert(pod(projected(TOKEN)), Pod)

    async def no_sandbox() -> Sandbox:
        raise AssertionError("no volume names the pod's address")

    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:

        def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            return group.create_task(work, name=name)

        objects, metrics, prober = ObjectCache(kube, spawn), NodeMetrics(), Prober()
        stack.callback(objects.close)
        stack.push_async_callback(prober.close)
        context = NodeContext(
            NodeSettings(name=NODE, data_dir=tmp_path, instance="test"),
            client=kube,
            runtime=FakeRuntime(),
            images=FakeImages(),
            paths=paths,
            prober=prober,
            events=EventRecorder(kube, node=NODE, now=time.time, dropped=metrics.events_dropped),
            metrics=metrics,
            objects=objects,
            allocatable={},
            now=time.time,
        )
        volumes = PodVolumes(lambda: one, context, spawn=spawn)
        early = group.create_task(refusal_of(volumes, no_sandbox))
        await asyncio.sleep(0)
        await volumes.close()
        kube.token_gate.set()
        assert "removed meanwhile" in await early
        assert not paths.volume("uid-p", "v", in_memory=True).exists()
        (again,) = (await volumes.ready(no_sandbox)).values()
        assert (again / "token").read_text() == "token-1"
        await volumes.close()


async def refusal_of(volumes: PodVolumes, sandbox: SandboxUp) -> str:
    with pytest.raises(ConfigError) as caught:
        await volumes.ready(sandbox)
    return caught.value.message
