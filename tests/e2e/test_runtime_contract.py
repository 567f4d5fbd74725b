"""The runtime contract as an application meets it: its surroundings, its limits, its end."""

from __future__ import annotations

from typing import Any

from serving.api.meta import JsonObject
from tests.e2e.cluster import Cluster, Objects
from tests.e2e.contract import ask, contract
from tests.e2e.http import Gateway

OWN = "serving.knative.dev"
LINKS = {"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1"}
DEVICES = ("/dev/full", "/dev/null", "/dev/ptmx", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero")
MODES = {
    "/tmp": "drwxrwxrwt",
    "/proc/self/fd": "dr-x------",
    "/etc/resolv.conf": "-rw-r--r--",
    "/etc/hosts": "-rw-r--r--",
    "/etc/hostname": "-rw-r--r--",
}
READ_ONLY = {"error": "Read-only file system"}


async def test_what_a_container_sees(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    container: JsonObject = {
        "workingDir": "/tmp",
        "ports": [{"containerPort": 8801}],
        "env": [{"name": "OWN", "value": "x"}],
        "resources": {"limits": {"memory": "128Mi", "cpu": "1"}},
        "securityContext": {"runAsUser": 2020, "capabilities": {"drop": ["ALL"]}},
    }
    await cluster.deploy(contract(name, image=python_image, container=container))
    seen = await ask(gateway, name, "/runtime")
    revision = f"{name}-00001"
    env = seen["env"]
    told = {"K_SERVICE": name, "K_CONFIGURATION": name, "K_REVISION": revision, "PORT": "8801", "OWN": "x"}
    assert env | told == env
    assert env["HOSTNAME"] == seen["hostname"]
    assert seen["hostname"].startswith(f"{revision}-deployment-")
    assert seen["cwd"] == "/tmp"
    assert seen["ids"][0] == [2020, 2020, 2020]
    assert seen["stdin"] == ""
    assert seen["pid"] == 1
    assert seen["status"]["CapEff"] == "0000000000000000"
    files = seen["files"]
    assert {path: files[path]["link"] for path in LINKS} == LINKS
    assert {path: files[path]["mode"] for path in DEVICES} == dict.fromkeys(DEVICES, "crw-rw-rw-")
    assert {path: files[path]["mode"] for path in MODES} == MODES
    assert "error" in files["/dev/console"]
    assert "error" in seen["sysctl"]
    _check_cgroups(seen["cgroups"])
    assert seen["hosts"].splitlines()[-1].endswith(f"\t{seen['hostname']}")


def _check_cgroups(cgroups: dict[str, dict[str, Any]]) -> None:
    assert cgroups["memory"]["value"] == str(128 << 20)
    quota, period = cgroups["quota"]["value"], cgroups["period"]["value"]
    first, second = quota.split() if " " in quota else (quota, period)
    assert int(first) == int(second)
    assert all("error" in row["write"] for row in cgroups.values())


async def test_too_much_memory(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    container = {"resources": {"limits": {"memory": "96Mi"}}}
    await cluster.deploy(contract(name, image=python_image, container=container))
    assert await ask(gateway, name, "/bloat?mb=10") == {"held": 10 << 20}
    assert (await gateway.get(name, "/bloat?mb=300")).status in (502, 503)
    status = await _restarted(cluster, name)
    ended = status["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
    assert (await gateway.get(name)).status == 200


async def test_a_crash_leaves_its_last_words(
    cluster: Cluster, gateway: Gateway, name: str, python_image: str
) -> None:
    await cluster.deploy(contract(name, image=python_image))
    await gateway.get(name, "/exit?code=7")
    ended = (await _restarted(cluster, name))["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (7, "Error")
    assert ended["message"] == "contract app is up\n"


async def test_a_read_only_root(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    container = {
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    spec = {"volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}]}
    await cluster.deploy(contract(name, image=python_image, container=container, spec=spec))
    assert await ask(gateway, name, "/write?path=/tmp/file") == READ_ONLY
    assert await ask(gateway, name, "/write?path=/scratch/file") == {"written": 1}


async def test_containers_share_the_pod(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    body = contract(name, image=python_image, container={"name": "front", "ports": [{"containerPort": 8080}]})
    containers = body["spec"]["template"]["spec"]["containers"]
    side = contract(name, image=python_image)["spec"]["template"]["spec"]["containers"][0]
    containers.append(side | {"name": "side", "env": [{"name": "PORT", "value": "9090"}]})
    await cluster.deploy(body)
    answer = await ask(gateway, name, "/fetch?url=http://127.0.0.1:9090/")
    assert answer["status"] == 200
    (pod,) = await cluster.list("pod", selector=f"{OWN}/service={name}")
    assert [row["ready"] for row in pod["status"]["containerStatuses"]] == [True, True]


async def test_too_much_storage(cluster: Cluster, gateway: Gateway, name: str, python_image: str) -> None:
    container = {"resources": {"limits": {"ephemeral-storage": "16Mi"}}}
    await cluster.deploy(contract(name, image=python_image, container=container, window="60s"))
    (former,) = await cluster.list("pod", selector=f"{OWN}/service={name}")
    assert await ask(gateway, name, "/write?path=/tmp/large&mb=32") == {"written": 32}

    def replaced(items: Objects) -> bool:
        return any(
            item["metadata"]["uid"] != former["metadata"]["uid"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", ()))
            for item in items
        )

    await cluster.until("pod", replaced, selector=f"{OWN}/service={name}", what="evicted and replaced")
    assert (await gateway.get(name)).status == 200


async def _restarted(cluster: Cluster, service: str) -> JsonObject:
    """The status of the first container once it was restarted and is ready."""
    found: JsonObject = {}

    def holds(items: Objects) -> bool:
        for item in items:
            for status in item["status"].get("containerStatuses", ()):
                if status["restartCount"] > 0 and status["ready"]:
                    found.update(status)
        return bool(found)

    selector = f"{OWN}/service={service}"
    await cluster.until("pod", holds, selector=selector, what="restarted and ready")
    return found
