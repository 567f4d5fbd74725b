"""The whole agent on fakes: starts, writes, failures, restarts of the agent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serving.api.keys import POD_PORT, SANDBOX, STAGES
from serving.api.resources import CONFIG_MAPS, EVENTS, LEASES, NODES, PODS, SECRETS
from serving.kube.errors import Unreachable
from serving.local.images.protocol import Credentials, ImageError
from serving.local.sandbox.protocol import SandboxError
from tests.local.node.harness import node
from tests.local.node.pods import container, pod_json


async def test_one_write_carries_address_running_and_stages() -> None:
    async with node() as it:
        it.add(pod_json())
        await it.ready()
        await asyncio.sleep(0.05)
        (patch,) = it.kube.pod_writes()
        assert patch["metadata"]["annotations"][SANDBOX] == "fake"
        stages = json.loads(patch["metadata"]["annotations"][STAGES])
        assert list(stages) == ["seen", "network", "image", "started"] or set(stages) == {
            "seen",
            "network",
            "image",
            "started",
        }
        assert stages["seen"] <= stages["network"] <= stages["started"]
        status = patch["status"]
        assert (status["phase"], status["podIP"], status["hostIP"]) == ("Running", "127.0.0.1", "127.0.0.1")
        assert status["podIPs"] == [{"ip": "127.0.0.1"}]
        (app,) = status["containerStatuses"]
        assert app["ready"] is True
        assert app["restartCount"] == 0
        assert app["imageID"] == "img-app@sha256:img-app"
        assert "running" in app["state"]


async def test_image_and_sandbox_are_prepared_at_the_same_time() -> None:
    async with node() as it:
        it.images.seconds = it.runtime.create_seconds = 0.2
        before = asyncio.get_running_loop().time()
        it.add(pod_json())
        await it.phase("Running")
        assert asyncio.get_running_loop().time() - before < 0.35


async def test_ready_is_a_second_write() -> None:
    async with node() as it:
        probe = {"exec": {"command": ["ok"]}, "periodSeconds": 1}
        it.add(pod_json(containers=[container(readinessProbe=probe)]))
        await it.phase("Running")
        await it.ready()
        assert len(it.kube.pod_writes()) == 2
        assert set(it.kube.pod_writes()[1]["status"]) == {"conditions", "containerStatuses"}


async def test_a_pod_with_a_port_of_its_own_gets_it_as_port() -> None:
    async with node() as it:
        it.runtime.port = 4711
        env = [{"name": "PORT", "value": "8080"}, {"name": "K_SERVICE", "value": "s"}]
        it.add(pod_json(containers=[container(ports=[{"containerPort": 8080}], env=env)]))
        await it.ready()
        assert it.kube.pod("p").metadata.annotations[POD_PORT] == "4711"
        assert dict(it.sandbox().started[0].env) == {
            "HOSTNAME": "p",
            "PATH": "/bin",
            "FROM_IMAGE": "yes",
            "PORT": "4711",
            "K_SERVICE": "s",
        }


async def test_environment_volumes_and_pull_secret_come_from_objects() -> None:
    async with node() as it:
        config = {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "v"}}
        it.kube.put(CONFIG_MAPS, config)
        auth = {"auths": {"reg.example": {"username": "u", "password": "pw"}}}
        dockerconfig = json.dumps(auth).encode().hex()
        it.kube.put(
            SECRETS,
            {
                "metadata": {"name": "s", "namespace": "default"},
                "data": {".dockerconfigjson": _b64(bytes.fromhex(dockerconfig)), "token": _b64(b"secret")},
            },
        )
        app = container(
            image="reg.example/app:1",
            env=[{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}],
            volumeMounts=[
                {"name": "conf", "mountPath": "/conf", "readOnly": True},
                {"name": "scratch", "mountPath": "/scratch"},
                {"name": "sec", "mountPath": "/token", "subPath": "token", "readOnly": True},
            ],
        )
        volumes = [
            {"name": "conf", "configMap": {"name": "c"}},
            {"name": "scratch", "emptyDir": {}},
            {"name": "sec", "secret": {"secretName": "s", "defaultMode": 0o400}},
        ]
        it.add(pod_json(containers=[app], volumes=volumes, imagePullSecrets=[{"name": "s"}]))
        await it.ready()
        spec = it.sandbox().started[0]
        assert dict(spec.env)["K"] == "v"
        mounts = {mount.target: mount for mount in spec.mounts}
        assert (mounts["/conf"].source / "k").read_text() == "v"
        assert mounts["/conf"].read_only
        assert not mounts["/scratch"].read_only
        assert mounts["/token"].source.read_text() == "secret"
        assert it.settings.memory_dir is not None
        assert it.settings.memory_dir in mounts["/token"].source.parents
        assert it.images.asked == [("reg.example/app:1", "IfNotPresent", Credentials("u", "pw"))]


async def test_a_missing_config_map_is_said_and_waited_for() -> None:
    async with node() as it:
        env = [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]
        it.add(pod_json(containers=[container(env=env)]))
        await it.kube.until(lambda: _waiting(it)["reason"] == "CreateContainerConfigError")
        assert _waiting(it)["message"] == 'configmap "c" not found'
        it.kube.put(CONFIG_MAPS, {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "v"}})
        await it.ready()


async def test_a_missing_volume_object_is_an_event() -> None:
    async with node() as it:
        app = container(volumeMounts=[{"name": "conf", "mountPath": "/conf"}])
        it.add(pod_json(containers=[app], volumes=[{"name": "conf", "configMap": {"name": "c"}}]))
        await it.kube.until(lambda: "FailedMount" in _reasons(it))
        assert _waiting(it)["reason"] == "ContainerCreating"
        it.kube.put(CONFIG_MAPS, {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "v"}})
        await it.ready()


async def test_image_error_reaches_the_status() -> None:
    async with node() as it:
        it.images.broken["img-app"] = ImageError("ErrImagePull", "manifest unknown")
        it.add(pod_json())
        await it.kube.until(lambda: _waiting(it)["reason"] == "ErrImagePull")
        await it.kube.until(lambda: _waiting(it)["reason"] == "ImagePullBackOff")
        assert "manifest unknown" in _waiting(it)["message"]


async def test_crash_and_restart_with_message_from_the_log() -> None:
    async with node() as it:
        it.add(pod_json(containers=[container(terminationMessagePolicy="FallbackToLogsOnError")]))
        await it.ready()
        log = it.sandbox().started[0].log_path
        log.write_text("2026-01-01T00:00:00Z stderr F it broke\n")
        it.sandbox().finish("app", 5)
        await it.kube.until(lambda: _app(it)["restartCount"] == 1)
        last = _app(it)["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"], last["message"]) == (5, "Error", "it broke\n")
        it.sandbox().finish("app", 5)
        await it.kube.until(lambda: _waiting(it)["reason"] == "CrashLoopBackOff")
        assert _waiting(it)["message"] == ("back-off 10s restarting failed container=app pod=p_default(uid-p)")


async def test_program_not_found() -> None:
    async with node() as it:
        it.add(pod_json(containers=[container(command=["missing"])]))
        await it.kube.until(lambda: _waiting(it)["reason"] == "CrashLoopBackOff")
        assert _app(it)["lastState"]["terminated"]["exitCode"] == 128


async def test_sandbox_failure_is_retried() -> None:
    async with node() as it:
        it.runtime.failures.append(SandboxError("CreatePodSandboxError", "no address left"))
        it.add(pod_json())
        await it.kube.until(lambda: "FailedCreatePodSandBox" in _reasons(it))
        await it.ready()


async def test_a_lost_sandbox_is_replaced() -> None:
    async with node() as it:
        it.add(pod_json())
        await it.ready()
        it.sandbox().lose()
        await it.kube.until(lambda: len(it.runtime.created) == 2 and _app(it)["restartCount"] >= 1)
        await it.ready()
        assert it.runtime.created[0].destroyed


async def test_graceful_deletion() -> None:
    async with node() as it:
        it.add(pod_json())
        await it.ready()
        sandbox = it.sandbox()
        await it.kube.delete(PODS, "p", "default", grace_period_seconds=5)
        await it.kube.until(lambda: it.kube.find(PODS, "p", "default") is None)
        assert sandbox.signals == [("app", 15)]
        assert sandbox.destroyed
        last = it.kube.pod_writes()[-1]["status"]
        assert last["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 143
        await it.kube.until(lambda: not any(it.images.pins.values()))
        assert not (it.settings.data_dir / "pods" / "uid-p").exists()


async def test_a_deaf_container_is_killed_after_its_grace() -> None:
    async with node() as it:
        it.add(pod_json())
        await it.ready()
        sandbox = it.sandbox()
        sandbox.obeys_sigterm = False
        await it.kube.delete(PODS, "p", "default", grace_period_seconds=1)
        await it.kube.until(lambda: it.kube.find(PODS, "p", "default") is None)
        assert [signum for _, signum in sandbox.signals] == [15, 9]


async def test_deletion_ends_a_pull() -> None:
    async with node() as it:
        it.images.seconds = 60
        it.add(pod_json())
        await it.kube.until(lambda: it.runtime.created)
        await it.kube.delete(PODS, "p", "default", grace_period_seconds=5)
        await it.kube.until(lambda: it.kube.find(PODS, "p", "default") is None)
        assert it.runtime.created[0].destroyed


async def test_a_pod_removed_by_force_is_destroyed() -> None:
    async with node() as it:
        it.add(pod_json())
        await it.ready()
        sandbox = it.sandbox()
        it.kube.remove(PODS, "p", "default")
        await it.kube.until(lambda: sandbox.destroyed)


async def test_a_namesake_is_another_pod() -> None:
    async with node() as it:
        it.add(pod_json())
        await it.ready()
        first = it.sandbox()
        it.kube.remove(PODS, "p", "default")
        other = pod_json()
        other["metadata"]["uid"] = "uid-other"
        it.add(other)
        await it.ready()
        await it.kube.until(lambda: first.destroyed)
        assert list(it.runtime.sandboxes) == ["uid-other"]


async def test_failing_writes_are_retried() -> None:
    async with node() as it:
        it.kube.failures += [Unreachable("down"), Unreachable("down"), Unreachable("down")]
        it.add(pod_json())
        await it.ready()


async def test_restart_adopts_and_writes_nothing() -> None:
    async with node() as it:
        probe = {"exec": {"command": ["ok"]}, "periodSeconds": 1}
        it.add(pod_json(containers=[container(readinessProbe=probe)]))
        await it.ready()
        sandbox = it.sandbox()
        await it.stop()
        writes = len(it.kube.writes)
        await it.start()
        await asyncio.sleep(0.3)
        assert it.kube.writes[writes:] == []
        assert it.sandbox() is sandbox
        assert len(it.runtime.created) == 1
        sandbox.finish("app", 1)
        await it.kube.until(lambda: _app(it)["restartCount"] == 1)
        assert [spec.attempt for spec in sandbox.started] == [0, 1]


async def test_restart_notices_what_happened_meanwhile() -> None:
    async with node() as it:
        for name in ("stays", "crashed", "deleted", "gone", "lost"):
            it.add(pod_json(name))
            await it.ready(name)
        await it.stop()
        it.sandbox("crashed").finish("app", 7)
        it.sandbox("crashed").abandon()
        deleted, gone = it.sandbox("deleted"), it.sandbox("gone")
        await it.kube.delete(PODS, "deleted", "default", grace_period_seconds=3)
        it.kube.remove(PODS, "gone", "default")
        await it.sandbox("lost").destroy()
        it.add(pod_json("new"))
        await it.start()
        await it.ready("new")
        await it.kube.until(lambda: _app(it, "crashed")["restartCount"] == 1)
        assert _app(it, "crashed")["lastState"]["terminated"]["exitCode"] == 7
        await it.kube.until(lambda: it.kube.find(PODS, "deleted", "default") is None)
        await it.kube.until(lambda: gone.destroyed and deleted.destroyed)
        await it.kube.until(lambda: _app(it, "lost")["restartCount"] == 1)
        last = _app(it, "lost")["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"]) == (137, "ContainerStatusUnknown")
        await it.ready("lost")
        assert it.kube.pod("stays").ready


@pytest.mark.parametrize("turns", [*range(0, 24, 3), 30, 45, 70])
async def test_killed_at_any_await_it_converges(turns: int) -> None:
    async with node() as it:
        it.add(pod_json(initContainers=[container("i", command=["exit", "0"])]))
        for _ in range(turns):
            await asyncio.sleep(0)
        await it.stop()
        await it.start()
        await it.ready()
        assert len(it.runtime.sandboxes) == 1
        await it.kube.delete(PODS, "p", "default", grace_period_seconds=5)
        for _ in range(turns):
            await asyncio.sleep(0)
        await it.stop()
        await it.start()
        await it.kube.until(lambda: it.kube.find(PODS, "p", "default") is None)
        await it.kube.until(lambda: not it.runtime.sandboxes)


async def test_many_pods_start_within_the_cap() -> None:
    async with node(concurrent_starts=4) as it:
        it.runtime.create_seconds = 0.01
        for number in range(40):
            it.add(pod_json(f"p{number}"))
        for number in range(40):
            await it.ready(f"p{number}")
        assert it.runtime.most_concurrent == 4


async def test_impossible_pods_fail_clearly() -> None:
    async with node(max_pods=2) as it:
        it.add(pod_json("vol", volumes=[{"name": "h", "hostPath": {"path": "/"}}]))
        it.add(pod_json("big", containers=[container(resources={"requests": {"memory": "900Ti"}})]))
        it.add(pod_json("odd", containers=[container(resources={"limits": {"cpu": "lots"}})]))
        for name, reason in (("vol", "UnsupportedVolume"), ("big", "OutOfmemory"), ("odd", "InvalidPodSpec")):
            await it.phase("Failed", name)
            assert it.kube.pod(name).status.reason == reason
        assert 'volume "h": hostPath is not supported' in it.kube.pod("vol").status.message
        for name in ("a", "b", "c"):
            it.add(pod_json(name))
        await it.ready("a")
        await it.ready("b")
        await it.phase("Failed", "c")
        assert it.kube.pod("c").status.reason == "OutOfpods"
        await it.kube.delete(PODS, "c", "default", grace_period_seconds=0)


async def test_a_liveness_failure_restarts() -> None:
    async with node() as it:
        probe = {"exec": {"command": ["ok"]}, "periodSeconds": 1, "failureThreshold": 1}
        it.add(pod_json(containers=[container(livenessProbe=probe)]))
        await it.ready()
        it.sandbox().exec_code = 1
        await it.kube.until(lambda: _app(it)["restartCount"] == 1)
        it.sandbox().exec_code = 0
        assert ("app", 15) in it.sandbox().signals
        await it.kube.until(lambda: {"Unhealthy", "Killing"} <= _reasons(it))


async def test_the_node_registers_and_renews() -> None:
    async with node(labels={"zone": "z"}) as it:
        await it.kube.until(lambda: it.kube.find(LEASES, "node-1", "kube-node-lease"))
        found = it.kube.find(NODES, "node-1")
        assert found is not None
        assert found["metadata"]["labels"]["nodeless.dev/pool"] == "local"
        assert found["metadata"]["labels"]["zone"] == "z"
        assert found["metadata"]["annotations"]["nodeless.dev/kubelet"] == f"unix:{it.settings.socket}"
        ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "True"
        assert set(found["status"]["capacity"]) == {"cpu", "memory", "ephemeral-storage", "pods"}
        await it.stop()
        writes = len(it.kube.writes)
        await it.start()
        await asyncio.sleep(0.05)
        assert it.kube.writes[writes:] == []


async def test_events_tell_the_start() -> None:
    async with node() as it:
        it.add(pod_json())
        await it.kube.until(lambda: {"Pulled", "Created", "Started"} <= _reasons(it))
        event = next(e for (kind, _, _), e in it.kube.objects.items() if kind == EVENTS.plural)
        assert event["involvedObject"]["fieldPath"] == "spec.containers{app}"
        assert event["source"] == {"component": "kubelet", "host": "node-1"}


def _waiting(it: Any, name: str = "p") -> Any:
    return _app(it, name)["state"]["waiting"]


def _app(it: Any, name: str = "p") -> Any:
    return it.kube.objects["pods", "default", name]["status"]["containerStatuses"][0]


def _reasons(it: Any) -> set[str]:
    return {event["reason"] for (kind, _, _), event in it.kube.objects.items() if kind == EVENTS.plural}


def _b64(raw: bytes) -> str:
    import base64

    return base64.b64encode(raw).decode()
