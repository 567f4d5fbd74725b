"""Contents of volumes, and how they get onto the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.local.node.containers import volume_mounts
from serving.local.node.envvars import ConfigError, KeyedObjects, PodFacts
from serving.local.node.volume_files import make_empty_dir, sub_path, write_files
from serving.local.node.volumes import (
    EmptyDir,
    File,
    Files,
    contents,
    memory_limits,
    needed_objects,
    unsupported,
)
from tests.local.node.pods import container, make_pod, pod_json, typed

OBJECTS = KeyedObjects(config_maps={"c": {"a": b"1", "b": b"2"}}, secrets={"s": {"k": b"x"}})
FACTS = PodFacts(pod_ip="1.2.3.4")


def files(volume: dict[str, Any]) -> dict[str, tuple[bytes, int]]:
    item = pod_json(volumes=[volume])
    item["metadata"]["labels"] = {"b": "2", "a": "1"}
    found = contents(volume, typed(item), OBJECTS, FACTS)
    assert isinstance(found, Files)
    return {path: (file.content, file.mode) for path, file in found.files.items()}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"configMap": {"name": "c"}}, {"a": (b"1", 0o644), "b": (b"2", 0o644)}),
        (
            {
                "configMap": {
                    "name": "c",
                    "defaultMode": 0o600,
                    "items": [{"key": "a", "path": "d/e", "mode": 0o444}],
                }
            },
            {"d/e": (b"1", 0o444)},
        ),
        ({"secret": {"secretName": "s", "defaultMode": 0o400}}, {"k": (b"x", 0o400)}),
        ({"secret": {"secretName": "no", "optional": True}}, {}),
        (
            {"configMap": {"name": "c", "optional": True, "items": [{"key": "no", "path": "x"}]}},
            {},
        ),
        (
            {
                "projected": {
                    "defaultMode": 0o440,
                    "sources": [
                        {"configMap": {"name": "c", "items": [{"key": "a", "path": "same"}]}},
                        {"secret": {"name": "s", "items": [{"key": "k", "path": "same"}]}},
                        {"secret": {"name": "none", "optional": True}},
                        {
                            "downwardAPI": {
                                "items": [
                                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                                    {"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}, "mode": 0o400},
                                ]
                            }
                        },
                    ],
                }
            },
            {"same": (b"x", 0o440), "labels": (b'a="1"\nb="2"', 0o440), "ip": (b"1.2.3.4", 0o400)},
        ),
    ],
)
def test_files(source: dict[str, Any], expected: dict[str, tuple[bytes, int]]) -> None:
    assert files({"name": "v", **source}) == expected


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        (
            {"configMap": {"name": "c", "items": [{"key": "z", "path": "x"}]}},
            "references non-existent configmap key: z (default/c)",
        ),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "../x"}]}}, "invalid path '../x'"),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "/x"}]}}, "invalid path '/x'"),
        ({"configMap": {"name": 5}}, 'volume "v"'),
    ],
)
def test_errors(source: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        files({"name": "v", **source})
    assert text in caught.value.message


def test_empty_dir() -> None:
    volume = {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    assert contents(volume, make_pod(), OBJECTS, FACTS) == EmptyDir(memory=True, size_limit=1 << 20)


def test_which_memory_volumes_have_a_size() -> None:
    sized = {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    app = container(volumeMounts=[{"name": "part", "mountPath": "/p", "subPath": "x"}])
    volumes = [
        {"name": "sized", **sized},
        {"name": "part", **sized},
        {"name": "disk", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "any", "emptyDir": {"medium": "Memory"}},
    ]
    assert memory_limits(make_pod(containers=[app], volumes=volumes).spec) == {"sized": 1 << 20}


def test_what_is_not_supported() -> None:
    assert unsupported(make_pod(volumes=[{"name": "v", "emptyDir": {}}]).spec) is None
    assert "hostPath is not supported" in (
        unsupported(make_pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]).spec) or ""
    )
    lost = container(volumeMounts=[{"name": "x", "mountPath": "/x"}])
    assert "no matching volume" in (unsupported(make_pod(containers=[lost]).spec) or "")


def test_needed_objects() -> None:
    app = container(
        envFrom=[{"configMapRef": {"name": "m1"}}, {"secretRef": {"name": "s1"}}],
        env=[{"name": "x", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}],
    )
    projected = {"projected": {"sources": [{"configMap": {"name": "m2"}}, {"secret": {"name": "s3"}}]}}
    needed = needed_objects(
        make_pod(containers=[app], volumes=[{"name": "v", "secret": {"secretName": "s4"}}, projected]).spec
    )
    assert needed.config_maps == {"m1", "m2"}
    assert needed.secrets == {"s1", "s2", "s3", "s4"}


def test_what_a_killed_agent_left_is_put_right(tmp_path: Path) -> None:
    directory = tmp_path / "v"
    write_files(directory, {"a": File(b"1", 0o644)})
    half = directory / "..half"
    half.mkdir()
    (half / "b").write_bytes(b"2")
    (directory / "b").symlink_to("..data/b")
    (directory / "..data_tmp").symlink_to("..half")
    write_files(directory, {"a": File(b"1", 0o644)})
    assert sorted(path.name for path in directory.iterdir() if not path.name.startswith("..")) == ["a"]
    assert len(list(directory.iterdir())) == 3
    write_files(directory, {"b": File(b"2", 0o644)})
    assert (directory / "b").read_bytes() == b"2"
    assert len(list(directory.iterdir())) == 3


def test_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    directory = tmp_path / "v"
    write_files(directory, {"a": File(b"1", 0o640), "d/b": File(b"2", 0o644)})
    assert (directory / "a").read_bytes() == b"1"
    assert (directory / "a").stat().st_mode & 0o777 == 0o640
    assert (directory / "d" / "b").read_bytes() == b"2"
    first = (directory / "..data").resolve()
    write_files(directory, {"a": File(b"1", 0o640), "d/b": File(b"2", 0o644)})
    assert (directory / "..data").resolve() == first
    write_files(directory, {"a": File(b"new", 0o640)})
    assert (directory / "a").read_bytes() == b"new"
    assert not (directory / "d").exists()
    assert not first.exists()
    assert sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith("..")) == ["a"]


def test_sub_paths_stay_inside(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    make_empty_dir(volume)
    assert sub_path(volume, "x/y", create=True).is_dir()
    (volume / "out").symlink_to("/etc")
    with pytest.raises(ConfigError, match="leaves its volume"):
        sub_path(volume, "out/passwd", create=True)
    with pytest.raises(ConfigError, match="without"):
        sub_path(volume, "../v", create=True)
    with pytest.raises(ConfigError, match="does not exist"):
        sub_path(volume, "none", create=False)


def test_sub_paths_have_no_links_and_are_made_through_none(tmp_path: Path) -> None:
    volume, outside = tmp_path / "v", tmp_path / "outside"
    make_empty_dir(volume)
    outside.mkdir(mode=0o700)
    (volume / "real").mkdir()
    (volume / "link").symlink_to("real")
    made = sub_path(volume, "link/new", create=True)
    assert made == volume.resolve() / "real" / "new"
    assert made.stat().st_mode & 0o777 == 0o777
    (volume / "dangling").symlink_to(outside / "x")
    with pytest.raises(ConfigError, match="leaves its volume"):
        sub_path(volume, "dangling", create=True)
    (volume / "file").write_text("")
    with pytest.raises(ConfigError, match="Not a directory"):
        sub_path(volume, "file/x", create=True)
    assert list(outside.iterdir()) == []
    assert outside.stat().st_mode & 0o777 == 0o700


def test_only_empty_directories_can_be_written_to() -> None:
    app = container(
        volumeMounts=[
            {"name": "scratch", "mountPath": "/s"},
            {"name": "scratch", "mountPath": "/r", "readOnly": True},
            {"name": "scratch", "mountPath": "/p", "subPath": "x"},
            {"name": "config", "mountPath": "/c"},
        ]
    )
    spec = make_pod(containers=[app]).spec.containers[0]
    sources = {("scratch", ""): Path("/1"), ("scratch", "x"): Path("/1/x"), ("config", ""): Path("/2")}
    mounts = volume_mounts(spec, sources, writable={"scratch"})
    assert [(mount.target, mount.read_only, mount.exact) for mount in mounts] == [
        ("/s", False, False),
        ("/r", True, False),
        ("/p", False, True),
        ("/c", True, False),
    ]


@pytest.mark.parametrize("name", ["", "..", "../../etc", "a/b", "A", "-a", "a" * 64, "a\n", 5])
def test_names_that_would_be_paths_are_refused(name: Any) -> None:
    assert "is not a DNS label" in (unsupported(make_pod(volumes=[{"name": name, "emptyDir": {}}]).spec) or "")
    if isinstance(name, str):
        assert "is not a DNS label" in (unsupported(make_pod(containers=[container(name)]).spec) or "")


def test_files_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        write_files(tmp_path / "v", {"a": File(b"1", 0o644), "a/b": File(b"2", 0o644)})
    assert list((tmp_path / "v").iterdir()) == []
