"""Limits as files: v1 and v2 in directories that look like their file systems, and which one is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.sandbox.cgroup_detection import hierarchies
from serving.local.sandbox.cgroups import V1, V2, Limits, Without, quota, weight

HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""


def test_hierarchies() -> None:
    v1, v2 = hierarchies(HYBRID)
    both = Path("/sys/fs/cgroup/cpu,cpuacct")
    assert v1 == {"cpu": both, "cpuacct": both, "memory": Path("/sys/fs/cgroup/memory")}
    assert v2 == Path("/sys/fs/cgroup/unified")
    assert hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0") == ({}, Path("/sys/fs/cgroup"))


@given(st.integers(2, 262_144))
def test_weight_is_in_range_and_monotone(shares: int) -> None:
    assert 1 <= weight(shares) <= 10_000
    assert weight(shares) <= weight(min(262_144, shares + 100))


def test_conversions() -> None:
    assert (weight(2), weight(1024), weight(262_144)) == (1, 39, 10_000)
    assert (quota(250), quota(1), quota(2000)) == (25_000, 1_000, 200_000)


LIMITS = Limits(cpu_millis=500, cpu_shares=512, memory_bytes=1 << 26, pids=100)


def test_v1_files(tmp_path: Path) -> None:
    mounts = {name: tmp_path / name for name in ("cpu", "cpuacct", "memory", "pids", "freezer")}
    cgroups = V1("deadbeef", mounts)
    assert cgroups.missing == ()
    cgroups.create_pod("pod", LIMITS)
    given_to_shim = cgroups.create_container("pod", "main-0", LIMITS)
    base = "nodeless-deadbeef/pod"
    assert (tmp_path / "cpu" / base / "main-0/cpu.cfs_quota_us").read_text() == "50000"
    assert (tmp_path / "cpu" / base / "main-0/cpu.shares").read_text() == "512"
    assert (tmp_path / "memory" / base / "main-0/memory.limit_in_bytes").read_text() == str(1 << 26)
    assert (tmp_path / "pids" / base / "pids.max").read_text() == "100"
    assert given_to_shim["oom"] == str(tmp_path / "memory" / base / "main-0/memory.oom_control")
    assert str(tmp_path / "freezer" / base / "cgroup.procs") in given_to_shim["join"]
    assert [name for _, name in given_to_shim["binds"]] == sorted(mounts)
    assert cgroups.pods() == {"pod"}


def test_v1_names_what_is_missing(tmp_path: Path) -> None:
    missing = V1("deadbeef", {"memory": tmp_path}).missing
    assert [note.split(":")[0] for note in missing] == ["cpu limits", "process limits", "freezing"]


@pytest.fixture
def v2(tmp_path: Path) -> V2:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids")
    cgroups = V2(tmp_path, "deadbeef")
    cgroups.prepare()
    return cgroups


def test_v2_files(v2: V2, tmp_path: Path) -> None:
    v2.create_pod("pod", LIMITS)
    given_to_shim = v2.create_container("pod", "main-0", LIMITS)
    base = tmp_path / "nodeless-deadbeef"
    for directory in (tmp_path, base, base / "pod"):
        assert (directory / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    inner = base / "pod/main-0"
    assert (inner / "cpu.max").read_text() == "50000 100000"
    assert (inner / "cpu.weight").read_text() == str(weight(512))
    assert (inner / "memory.max").read_text() == str(1 << 26)
    assert given_to_shim == {
        "join": [str(inner / "cgroup.procs")],
        "binds": [[str(inner), ""]],
        "oom": str(inner / "memory.events"),
    }
    assert v2.pods() == {"pod"}


def test_v2_usage_and_freeze(v2: V2, tmp_path: Path) -> None:
    v2.create_pod("pod", Limits())
    pod = tmp_path / "nodeless-deadbeef/pod"
    (pod / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (pod / "memory.current").write_text("5000\n")
    (pod / "memory.stat").write_text("anon 1\ninactive_file 1000\n")
    (pod / "pids.current").write_text("3\n")
    usage = v2.usage("pod")
    assert (usage.cpu_seconds, usage.memory_bytes, usage.pids) == (2.5, 4000, 3)
    (pod / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    v2.freeze("pod", frozen=True)
    assert (pod / "cgroup.freeze").read_text() == "1"


def test_v2_kill_of_a_pod_that_is_gone(v2: V2) -> None:
    v2.kill("never")
    v2.remove("never")


def test_without() -> None:
    cgroups = Without("a reason")
    assert cgroups.create_container("pod", "c", LIMITS) == {"join": [], "binds": [], "oom": ""}
    assert cgroups.usage("pod") is None
    with pytest.raises(OSError, match="a reason"):
        cgroups.freeze("pod", frozen=True)
