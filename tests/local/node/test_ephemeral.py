"""What a pod may keep on disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from serving.local.node.ephemeral import Usage, disk_usage, exceeded, measure, storage_limits
from serving.local.node.paths import NodePaths
from tests.local.node.harness import node
from tests.local.node.pods import container, make_pod, pod_json

MIB = 1 << 20
POD = make_pod(
    containers=[
        container("app", resources={"limits": {"ephemeral-storage": "10Mi"}}),
        container("side", resources={"limits": {"ephemeral-storage": "5Mi"}}),
    ],
    volumes=[{"name": "scratch", "emptyDir": {"sizeLimit": "8Mi"}}, {"name": "free", "emptyDir": {}}],
)


@pytest.mark.parametrize(
    ("usage", "message"),
    [
        (Usage(), None),
        (Usage(containers={"app": 10 * MIB, "side": 5 * MIB}), None),
        (
            Usage(volumes={"scratch": 9 * MIB}, disk_volumes=9 * MIB),
            'Usage of EmptyDir volume "scratch" exceeds the limit "8Mi". ',
        ),
        (
            Usage(containers={"app": 8 * MIB}, volumes={"free": 8 * MIB}, disk_volumes=8 * MIB),
            "Pod ephemeral local storage usage exceeds the total limit of containers 15728640. ",
        ),
        (Usage(containers={"app": 8 * MIB}, volumes={"free": 8 * MIB}), None),
        (
            Usage(containers={"side": 6 * MIB}),
            'Container side exceeded its local ephemeral storage limit "5Mi". ',
        ),
    ],
)
def test_who_is_evicted(usage: Usage, message: str | None) -> None:
    assert exceeded(storage_limits(POD), usage) == message


def test_a_pod_without_limits() -> None:
    assert not storage_limits(make_pod(volumes=[{"name": "free", "emptyDir": {}}]))


def test_what_is_measured(tmp_path: Path) -> None:
    paths = NodePaths(tmp_path)
    meta = POD.metadata
    places = {
        paths.sandbox(meta.uid) / "containers" / "app-0" / "upper" / "a": 3,
        paths.sandbox(meta.uid) / "containers" / "app-1" / "upper" / "deep" / "b": 2,
        paths.sandbox(meta.uid) / "containers" / "app-1" / "work" / "c": 7,
        paths.log(meta.namespace, meta.name, meta.uid, "app", 0): 1,
        paths.volume(meta.uid, "scratch", in_memory=False) / "d": 4,
    }
    for path, size in places.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size * MIB)
    usage = measure(POD, paths)
    assert {name: used // MIB for name, used in usage.containers.items()} == {"app": 6, "side": 0}
    assert {name: used // MIB for name, used in usage.volumes.items()} == {"scratch": 4, "free": 0}
    assert usage.disk_volumes // MIB == 4


def test_a_tree_that_is_not_there(tmp_path: Path) -> None:
    assert disk_usage(tmp_path / "nothing") == 0


async def test_a_pod_that_exceeds_its_limit_is_evicted() -> None:
    async with node(storage_check_seconds=0.02) as it:
        limits = {"limits": {"ephemeral-storage": "1Mi"}}
        it.add(pod_json(containers=[container(resources=limits)]))
        await it.phase("Running")
        log = NodePaths(it.settings.data_dir).log("default", "p", "uid-p", "app", 0)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"x" * 2 * MIB)
        await it.phase("Failed")
        status = it.kube.pod("p").status
        assert (status.reason, status.message) == (
            "Evicted",
            "Pod ephemeral local storage usage exceeds the total limit of containers 1048576. ",
        )
        (app,) = status.container_statuses
        assert app.state.terminated is not None
        assert app.state.terminated.exit_code == 137
        await it.kube.until(lambda: "uid-p" not in it.runtime.sandboxes)


def test_a_very_deep_tree_is_measured(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_DIRECTORY)
    for _ in range(2500):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_DIRECTORY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    assert disk_usage(tmp_path) >= 0
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # which goes as deep as there is
