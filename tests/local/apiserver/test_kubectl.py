"""The real kubectl against the server."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import yaml

from serving.api.meta import JsonObject
from serving.local.apiserver.service import Running
from tests.local.apiserver.nodeagent import running_node_agent
from tests.local.apiserver.objects import config_map, pod, widget, widget_definition
from tests.local.apiserver.requests import PODS, WIDGETS, Api

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="no kubectl on PATH")
TIMEOUT_SECONDS = 30.0


class Kubectl:
    """Runs kubectl; its cache is its own."""

    def __init__(self, kubeconfig: Path, cache: Path) -> None:
        self._base = [KUBECTL or "kubectl", f"--kubeconfig={kubeconfig}", f"--cache-dir={cache}"]

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._base,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(
        self, *arguments: str, body: JsonObject | list[JsonObject] | None = None
    ) -> tuple[int, str, str]:
        process = await self.start(*arguments)
        documents = body if isinstance(body, list) else [body] if body else []
        text = yaml.safe_dump_all(documents).encode() if documents else b""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            out, err = await process.communicate(text)
        return process.returncode or 0, out.decode(), err.decode()

    async def __call__(self, *arguments: str, body: JsonObject | list[JsonObject] | None = None) -> str:
        code, out, err = await self.run(*arguments, body=body)
        assert code == 0, f"kubectl {' '.join(arguments)}: {out}{err}"
        return out

    async def fails(self, *arguments: str, body: JsonObject | list[JsonObject] | None = None) -> str:
        code, out, err = await self.run(*arguments, body=body)
        assert code != 0, f"kubectl {' '.join(arguments)}: {out}{err}"
        return err


@pytest.fixture
async def kubectl(server: Running, widgets: Api, tmp_path: Path) -> Kubectl:
    return Kubectl(server.kubeconfig, tmp_path / "cache")


def columns(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_apply_get_and_delete(kubectl: Kubectl) -> None:
    assert await kubectl("apply", "-f", "-", body=widget("w", size=2)) == "widget.example.dev/w created\n"
    assert await kubectl("apply", "-f", "-", body=widget("w", size=2)) == "widget.example.dev/w unchanged\n"
    assert await kubectl("apply", "-f", "-", body=widget("w", size=3)) == "widget.example.dev/w configured\n"
    assert columns(await kubectl("get", "wd"))[0] == ["NAME", "COLOUR", "SIZE", "READY", "AGE"]
    assert columns(await kubectl("get", "wd", "-o", "wide"))[0][-1] == "PARTS"
    assert await kubectl("get", "widgets", "-o", "name") == "widget.example.dev/w\n"
    assert yaml.safe_load(await kubectl("get", "wd", "w", "-o", "yaml"))["spec"] == {"size": 3}
    assert json.loads(await kubectl("get", "wd", "-o", "json"))["items"][0]["kind"] == "Widget"
    assert "Size:" in await kubectl("describe", "wd", "w")
    assert "w" in await kubectl("get", "all")
    assert await kubectl("delete", "wd", "w") == 'widget.example.dev "w" deleted\n'
    assert await kubectl.fails("get", "wd", "w") == (
        'Error from server (NotFound): widgets.example.dev "w" not found\n'
    )


async def test_create_with_protobuf_bodies(kubectl: Kubectl) -> None:
    assert await kubectl("create", "ns", "n") == "namespace/n created\n"
    assert await kubectl("create", "cm", "c", "-n", "n", "--from-literal=a=b") == "configmap/c created\n"
    assert await kubectl("create", "secret", "generic", "s", "--from-literal=a=b") == "secret/s created\n"
    assert await kubectl("create", "sa", "a") == "serviceaccount/a created\n"
    assert await kubectl("create", "deployment", "d", "--image=x") == "deployment.apps/d created\n"
    assert await kubectl("create", "-f", "-", body=config_map("f")) == "configmap/f created\n"
    assert "AlreadyExists" in await kubectl.fails("create", "ns", "n")
    assert columns(await kubectl("get", "cm", "-n", "n", "--no-headers"))[0][:2] == ["c", "1"]
    assert columns(await kubectl("get", "secret", "s", "--no-headers"))[0][:3] == ["s", "Opaque", "1"]
    assert await kubectl("get", "cm", "c", "-n", "n", "-o", "jsonpath={.data}") == '{"a":"b"}'
    assert await kubectl("delete", "ns", "n") == 'namespace "n" deleted\n'


async def test_pods(kubectl: Kubectl, api: Api) -> None:
    await kubectl("apply", "-f", "-", body=pod("p", nodeName="node"))
    changed = pod("p", nodeName="node")
    changed["metadata"]["labels"] = {"x": "web"}
    changed["spec"]["containers"][0]["image"] = "example.dev/app:2"
    assert await kubectl("apply", "-f", "-", body=changed) == "pod/p configured\n"
    assert columns(await kubectl("get", "pods", "--show-labels"))[1][-1] == "x=web"
    assert columns(await kubectl("get", "pods", "-o", "wide", "--no-headers"))[0][6] == "node"
    assert "example.dev/app:2" in await kubectl("describe", "pod", "p")
    waiting = await kubectl.start("wait", "pod/p", "--for=condition=Ready", "--timeout=20s")
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    await api.patch(f"{PODS}/p/status", status)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        assert (await waiting.communicate())[0] == b"pod/p condition met\n"
    assert await kubectl("delete", "pod", "p", "--wait=false", "--now") == 'pod "p" deleted\n'
    assert (await api.get(f"{PODS}/p"))["metadata"]["deletionGracePeriodSeconds"] == 1
    assert "Terminating" in await kubectl("get", "pod", "p")
    assert "force deleted" in await kubectl("delete", "pod", "p", "--force")
    assert "NotFound" in await kubectl.fails("get", "pod", "p")


async def test_label_annotate_patch_and_selectors(kubectl: Kubectl) -> None:
    for name in ("a", "b"):
        await kubectl("create", "-f", "-", body=widget(name))
    assert await kubectl("label", "wd", "a", "x=1") == "widget.example.dev/a labeled\n"
    assert await kubectl("annotate", "wd", "a", "note=hi") == "widget.example.dev/a annotated\n"
    assert await kubectl("get", "wd", "-l", "x=1", "-o", "name") == "widget.example.dev/a\n"
    assert await kubectl("get", "wd", "-l", "x!=1", "-o", "name") == "widget.example.dev/b\n"
    assert "x=1" in await kubectl("get", "wd", "--show-labels")
    assert (
        await kubectl("get", "wd", "--field-selector", "metadata.name=b", "-o", "name") == "widget.example.dev/b\n"
    )
    change = '{"spec":{"size":7}}'
    assert await kubectl("patch", "wd", "a", "--type=merge", "-p", change) == "widget.example.dev/a patched\n"
    operations = '[{"op":"replace","path":"/spec/size","value":8}]'
    await kubectl("patch", "wd", "a", "--type=json", "-p", operations)
    assert await kubectl("get", "wd", "a", "-o", "jsonpath={.spec.size}") == "8"
    refused = await kubectl.fails("patch", "wd", "a", "--type=strategic", "-p", change)
    assert "application/strategic-merge-patch+json is not supported" in refused or "unknown format" in refused
    assert await kubectl("scale", "wd", "a", "--replicas=4") == "widget.example.dev/a scaled\n"


async def test_refusals_in_kubectls_words(kubectl: Kubectl) -> None:
    text = await kubectl.fails("apply", "-f", "-", body=widget("w", bogus=1))
    assert text == (
        'Error from server (BadRequest): error when creating "STDIN": Widget in version "v1" cannot be handled as '
        'a Widget: strict decoding error: unknown field "spec.bogus"\n'
    )
    text = await kubectl.fails("apply", "-f", "-", body=widget("w", colour="green"))
    assert text == (
        'The Widget "w" is invalid: spec.colour: Unsupported value: "green": supported values: "red", "blue"\n'
    )
    assert "doesn't have a resource type" in await kubectl.fails("get", "nonsense")
    code, out, err = await kubectl.run("apply", "--validate=warn", "-f", "-", body=widget("w", bogus=1))
    assert (code, out, 'Warning: unknown field "spec.bogus"' in err) == (0, "widget.example.dev/w created\n", True)


async def test_discovery(kubectl: Kubectl) -> None:
    assert ["widgets", "wd", "example.dev/v1", "true", "Widget"] in columns(await kubectl("api-resources"))
    assert "example.dev/v1beta1" in (await kubectl("api-versions")).splitlines()
    assert "Server Version: v1." in await kubectl("version")
    assert await kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert "nodeless:admin" in await kubectl("auth", "whoami")
    assert "colour" in await kubectl("explain", "widgets.spec")
    assert await kubectl("get", "--raw", "/readyz") == "ok"
    kinds = await kubectl("get", "nodes,events,leases,crd,endpointslices,services,roles,pdb", "-A")
    assert "widgets.example.dev" in kinds


async def test_watching(kubectl: Kubectl, api: Api) -> None:
    await api.create(WIDGETS, widget("a", size=1))
    process = await kubectl.start(
        "get", "wd", "-w", "-o", "custom-columns=N:.metadata.name,S:.spec.size", "--no-headers"
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            assert (await process.stdout.readline()).split() == [b"a", b"1"]
            await api.patch(f"{WIDGETS}/a", {"spec": {"size": 2}})
            assert (await process.stdout.readline()).split() == [b"a", b"2"]
            await api.create(WIDGETS, widget("b", size=3))
            assert (await process.stdout.readline()).split() == [b"b", b"3"]
    finally:
        process.kill()
        await process.communicate()


async def test_wait_for_a_custom_condition_and_for_deletion(kubectl: Kubectl, api: Api) -> None:
    held = widget("w")
    held["metadata"]["finalizers"] = ["example.dev/hold"]
    await api.create(WIDGETS, held)
    waiting = await kubectl.start("wait", "wd/w", "--for=condition=Ready", "--timeout=20s")
    await api.patch(f"{WIDGETS}/w/status", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    async with asyncio.timeout(TIMEOUT_SECONDS):
        assert b"condition met" in (await waiting.communicate())[0]
    deleting = await kubectl.start("delete", "wd", "w", "--cascade=foreground")
    async with api.watch(WIDGETS) as events:
        await events.until(
            "ADDED" if "deletionTimestamp" in (await api.get(f"{WIDGETS}/w"))["metadata"] else "MODIFIED"
        )
    await api.patch(
        f"{WIDGETS}/w", [{"op": "remove", "path": "/metadata/finalizers/0"}], media="application/json-patch+json"
    )
    async with asyncio.timeout(TIMEOUT_SECONDS):
        out, err = await deleting.communicate()
    assert (deleting.returncode, out) == (0, b'widget.example.dev "w" deleted\n'), err


async def test_logs(kubectl: Kubectl, api: Api, tmp_path: Path) -> None:
    async with running_node_agent(tmp_path / "k.sock") as agent:
        await api.create("/api/v1/nodes", agent.node("node"))
        await api.create(PODS, pod("p", nodeName="node"))
        agent.write(b"one\ntwo\n")
        assert await kubectl("logs", "p", "--tail=5") == "one\ntwo\n"
        process = await kubectl.start("logs", "-f", "p")
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_SECONDS):
            assert await process.stdout.readline() == b"one\n"
            await agent.following.wait()
            agent.write(b"three\n")
            assert [await process.stdout.readline() for _ in range(2)] == [b"two\n", b"three\n"]
            agent.close_streams()
            await process.communicate()
        assert process.returncode == 0
        assert "previous terminated container" in await kubectl.fails("logs", "p", "--previous")


async def test_definitions_by_kubectl(kubectl: Kubectl) -> None:
    other = widget_definition()
    other["metadata"]["name"] = "gadgets.other.dev"
    other["spec"] |= {"group": "other.dev", "names": {"plural": "gadgets", "kind": "Gadget"}}
    gadget = {"apiVersion": "other.dev/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {}}
    await kubectl("apply", "-f", "-", body=other)
    assert "condition met" in await kubectl("wait", "crd/gadgets.other.dev", "--for=condition=Established")
    await kubectl("apply", "-f", "-", body=gadget)
    await kubectl("delete", "crd", "gadgets.other.dev")
    assert "gadget" not in await kubectl("api-resources")
    await kubectl.fails("apply", "-f", "-", body=gadget)


async def test_server_side_apply(kubectl: Kubectl) -> None:
    documents = [config_map("a", k="1"), widget("w", size=2)]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    done = (
        "configmap/a serverside-applied\nwidget.example.dev/w serverside-applied\nservice/s serverside-applied\n"
    )
    assert await kubectl("apply", "--server-side", "-f", "-", body=[*documents, service]) == done
    assert await kubectl("apply", "--server-side", "-f", "-", body=[*documents, service]) == done
    rival = ("apply", "--server-side", "--field-manager=rival", "-f", "-")
    refused = await kubectl.fails(*rival, body=config_map("a", k="2"))
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.k' in refused
    await kubectl(*rival, "--force-conflicts", body=config_map("a", k="2"))
    shown = yaml.safe_load(await kubectl("get", "cm", "a", "-o", "yaml", "--show-managed-fields"))
    assert [entry["manager"] for entry in shown["metadata"]["managedFields"]] == ["rival"]


async def test_from_client_side_to_server_side_apply(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", body=config_map("a", k="1", m="1"))
    await kubectl("apply", "--server-side", "-f", "-", body=config_map("a", k="2"))
    found = json.loads(await kubectl("get", "cm", "a", "-o", "json", "--show-managed-fields"))
    assert found["data"] == {"k": "2"}
    assert {entry["operation"] for entry in found["metadata"]["managedFields"]} == {"Apply"}
    assert await kubectl("apply", "-f", "-", body=config_map("a", k="3")) == "configmap/a configured\n"


async def test_explain(kubectl: Kubectl) -> None:
    assert "List of containers belonging to the pod." in await kubectl("explain", "pod.spec.containers")
    assert "colour" in await kubectl("explain", "widget.spec")
    assert "IntOrString" in await kubectl("explain", "deploy.spec.strategy.rollingUpdate.maxSurge")


async def test_diff_and_replace(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", body=config_map("a", k="1"))
    assert (await kubectl.run("diff", "-f", "-", body=config_map("a", k="1")))[0] == 0
    code, out, _ = await kubectl.run("diff", "-f", "-", body=config_map("a", k="2"))
    assert (code, "-  k: " in out, "+  k: " in out) == (1, True, True)
    assert await kubectl("replace", "-f", "-", body=config_map("a", k="3")) == "configmap/a replaced\n"
    assert "replaced" in await kubectl("replace", "--force", "-f", "-", body=config_map("a", k="4"))


async def test_deployments_are_stored(kubectl: Kubectl) -> None:
    await kubectl("create", "deployment", "d", "--image=example.dev/app:1")
    await kubectl("scale", "deploy/d", "--replicas=3")
    await kubectl("set", "image", "deploy/d", "app=example.dev/app:2")
    await kubectl("set", "env", "deploy/d", "A=B")
    await kubectl("rollout", "restart", "deploy/d")
    found = json.loads(await kubectl("get", "deploy", "d", "-o", "json"))["spec"]
    container = found["template"]["spec"]["containers"][0]
    assert (found["replicas"], container["image"]) == (3, "example.dev/app:2")
    assert container["env"] == [{"name": "A", "value": "B"}]
    await kubectl("delete", "deploy", "d", "--cascade=foreground")
