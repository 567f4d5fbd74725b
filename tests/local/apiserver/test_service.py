"""The process: files, restarts, listeners, manifests, stopping."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest

from serving.local.apiserver import pki
from serving.local.apiserver.bootstrap import ManifestError
from serving.local.apiserver.journal import CorruptState, StateInUse
from serving.local.apiserver.service import ApiServerSettings, run
from tests.local.apiserver.harness import REPOSITORY, http_session, running_apiserver, shipped_manifests
from tests.local.apiserver.objects import config_map
from tests.local.apiserver.requests import CONFIG_MAPS, Api


async def test_first_start(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path) as server, http_session(server) as session:
        api = Api(session)
        names = [item["metadata"]["name"] for item in (await api.get("/api/v1/namespaces"))["items"]]
        assert names == ["default", "knative-serving", "kube-node-lease", "kube-public", "kube-system"]
        for private in (server.socket, server.kubeconfig, tmp_path / "token", tmp_path / "tls" / "server.key"):
            assert private.stat().st_mode & 0o777 == 0o600
        kubeconfig = json.loads(server.kubeconfig.read_text())
        assert kubeconfig["current-context"] == "nodeless"
        assert kubeconfig["clusters"][0]["cluster"]["server"] == server.url
    assert not server.socket.exists()


async def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path, manifests=shipped_manifests()) as first, http_session(first) as session:
        made = await Api(session).create(CONFIG_MAPS, config_map("a"))
        revision = (await Api(session).get(CONFIG_MAPS))["metadata"]["resourceVersion"]
    async with (
        running_apiserver(tmp_path, manifests=shipped_manifests()) as second,
        http_session(second) as session,
    ):
        assert second.token == first.token
        api = Api(session)
        listed = await api.get(CONFIG_MAPS)
        assert listed["metadata"]["resourceVersion"] == revision
        assert await api.get(f"{CONFIG_MAPS}/a") == made
        assert (await api.get("/apis/serving.knative.dev/v1/services"))["kind"] == "ServiceList"
        async with api.watch(CONFIG_MAPS, resourceVersion=revision) as events:
            await api.create(CONFIG_MAPS, config_map("b"))
            assert (await events.next())["type"] == "ADDED"


async def test_tls_with_the_authority_of_the_kubeconfig(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path) as server:
        context = ssl.create_default_context(cafile=server.certificate_authority)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {server.token}"}) as session:
            async with session.get(f"{server.url}/api/v1/pods", ssl=context) as response:
                assert response.status == 200
            with pytest.raises(aiohttp.ClientSSLError):
                await session.get(f"{server.url}/api/v1/pods")


async def test_a_second_server_on_the_same_state_is_refused(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path), asyncio.timeout(20):
        with pytest.raises(StateInUse):
            await run(ApiServerSettings(data_dir=tmp_path))


async def test_run_tells_its_port_and_ends_watches_cleanly_when_cancelled(tmp_path: Path) -> None:
    ports: asyncio.Queue[int] = asyncio.Queue()
    settings = ApiServerSettings(data_dir=tmp_path, unix_socket=tmp_path / "s.sock", token_file=tmp_path / "t")
    task = asyncio.create_task(run(settings, ready=ports.put_nowait))
    async with asyncio.timeout(10):
        port = await ports.get()
    token = (tmp_path / "t").read_text().strip()
    connector = aiohttp.UnixConnector(path=str(tmp_path / "s.sock"))
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(base_url="http://nodeless", connector=connector, headers=headers) as session,
        session.get("/api/v1/pods?watch=true") as watch,
    ):
        assert watch.status == 200
        task.cancel()
        async with asyncio.timeout(10):
            assert await watch.content.read() == b""
            with pytest.raises(asyncio.CancelledError):
                await task
    assert port > 0


async def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / "api.sock"))
    left.close()
    async with running_apiserver(tmp_path) as server, http_session(server) as session:
        assert (await Api(session).send("GET", "/livez")).status == 200


async def test_a_taken_socket_or_port_is_reported(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path / "a") as server:
        for settings in (
            ApiServerSettings(data_dir=tmp_path / "b", unix_socket=server.socket),
            ApiServerSettings(data_dir=tmp_path / "b", port=server.port),
        ):
            with pytest.raises(OSError, match=r"listens on|in use"):
                await run(settings)


PROGRAM = """
import asyncio, sys
from pathlib import Path
from serving.local.apiserver.service import ApiServerSettings, run
asyncio.run(run(ApiServerSettings(data_dir=Path(sys.argv[1])), ready=lambda port: print(port, flush=True)))
"""


async def test_no_acknowledged_write_is_lost_by_a_killed_server(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(tmp_path), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline()
    acknowledged: set[str] = set()
    enough = asyncio.Event()

    async def write(api: Api, worker: int) -> None:
        try:
            for number in range(10_000):
                made = await api.create(CONFIG_MAPS, config_map(f"c-{worker}-{number}"))
                acknowledged.add(made["metadata"]["name"])
                if len(acknowledged) > 100:
                    enough.set()
        except aiohttp.ClientError:
            return

    connector = aiohttp.UnixConnector(path=str(tmp_path / "api.sock"))
    headers = {"Authorization": f"Bearer {(tmp_path / 'token').read_text().strip()}"}
    async with (
        aiohttp.ClientSession(base_url="http://nodeless", connector=connector, headers=headers) as session,
        asyncio.TaskGroup() as group,
    ):
        for worker in range(8):
            group.create_task(write(Api(session), worker))
        async with asyncio.timeout(30):
            await enough.wait()
        process.kill()
    await process.wait()
    async with running_apiserver(tmp_path) as server, http_session(server) as session:
        kept = {item["metadata"]["name"] for item in (await Api(session).get(CONFIG_MAPS))["items"]}
    assert acknowledged <= kept


async def test_damage_is_reported(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"this is not a database, whatever it is" * 200)
    with pytest.raises(CorruptState, match="is damaged"):
        await run(ApiServerSettings(data_dir=tmp_path))


def test_certificates_are_kept_until_they_have_to_change(tmp_path: Path) -> None:
    now = datetime(2026, 11, 1, tzinfo=UTC)
    files = pki.ensure(tmp_path, hosts=("127.0.0.1", "localhost"), now=now)
    first = files.certificate.read_bytes()
    pki.ensure(tmp_path, hosts=("127.0.0.1", "localhost"), now=now + timedelta(days=30))
    assert files.certificate.read_bytes() == first
    pki.ensure(tmp_path, hosts=("127.0.0.1",), now=now)
    second = files.certificate.read_bytes()
    assert second != first
    pki.ensure(tmp_path, hosts=("127.0.0.1",), now=now + pki.LIFETIME)
    third = files.certificate.read_bytes()
    assert third != second
    files.key.write_text("damaged")
    pki.ensure(tmp_path, hosts=("127.0.0.1",), now=now + pki.LIFETIME)
    assert files.certificate.read_bytes() != third


MANIFEST = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: shipped, namespace: knative-serving}
data: {a: "1", b: "1"}
---
# only a comment
---
apiVersion: v1
kind: Namespace
metadata: {name: extra}
"""


async def test_manifests_change_only_what_changed_in_them(tmp_path: Path) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(MANIFEST)
    path = "/api/v1/namespaces/knative-serving/configmaps/shipped"
    async with running_apiserver(tmp_path / "d", manifests=[manifest]) as server, http_session(server) as session:
        await Api(session).patch(path, {"data": {"b": "mine", "c": "mine"}})
    async with running_apiserver(tmp_path / "d", manifests=[manifest]) as server, http_session(server) as session:
        before = await Api(session).get(path)
        assert before["data"] == {"a": "1", "b": "mine", "c": "mine"}
    manifest.write_text(MANIFEST.replace('a: "1"', 'a: "2", d: "2"'))
    async with running_apiserver(tmp_path / "d", manifests=[manifest]) as server, http_session(server) as session:
        after = await Api(session).get(path)
        assert after["data"] == {"a": "2", "b": "mine", "c": "mine", "d": "2"}


async def test_a_start_does_not_need_the_webhooks_that_need_it(tmp_path: Path) -> None:
    manifest = tmp_path / "m.yaml"
    manifest.write_text(MANIFEST)
    hook = {
        "name": "v.example.dev",
        "clientConfig": {"url": "http://127.0.0.1:1/"},
        "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    async with running_apiserver(tmp_path / "d", manifests=[manifest]) as server, http_session(server) as session:
        await Api(session).create(hooks, {"metadata": {"name": "all"}, "webhooks": [hook]})
        assert (await Api(session).send("POST", CONFIG_MAPS, config_map("a"))).status == 500
    manifest.write_text(MANIFEST.replace('a: "1"', 'a: "2"').replace("name: extra", "name: more"))
    async with running_apiserver(tmp_path / "d", manifests=[manifest]) as server, http_session(server) as session:
        found = await Api(session).get("/api/v1/namespaces/knative-serving/configmaps/shipped")
        assert found["data"]["a"] == "2"
        await Api(session).get("/api/v1/namespaces/more")


@pytest.mark.parametrize(
    "text", ["a: [", "kind: ConfigMap", "apiVersion: v1\nkind: Nonsense\nmetadata: {name: a}"]
)
async def test_bad_manifests_are_named(tmp_path: Path, text: str) -> None:
    manifest = tmp_path / "bad.yaml"
    manifest.write_text(text)
    with pytest.raises(ManifestError, match=str(manifest)):
        async with running_apiserver(tmp_path / "d", manifests=[manifest]):
            pass


async def test_shipped_definitions_serve_knative(tmp_path: Path) -> None:
    async with (
        running_apiserver(tmp_path, manifests=shipped_manifests()) as server,
        http_session(server) as session,
    ):
        api = Api(session)
        container = {"image": "example.dev/hello", "lifecycle": {"preStop": {}}}
        body = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": "hello"},
            "spec": {"template": {"spec": {"containers": [container]}}},
        }
        made = await api.create("/apis/serving.knative.dev/v1/namespaces/default/services", body)
        assert made["spec"]["template"]["spec"]["containers"][0]["image"] == "example.dev/hello"
        assert "lifecycle" not in made["spec"]["template"]["spec"]["containers"][0]
