"""The namespace rung without root: inside a user namespace, each pod in one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serving.local.network.rootless import load, release, rootless_reexec_command, rootless_support
from tests.local.sandbox import support

_UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--mount")


def _user_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _user_namespaces(), reason="needs unshare(1) and user namespaces")
async def test_a_pod_without_root(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *_UNSHARE,
        *(sys.executable, "-m", "tests.local.sandbox.rootless_main", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(support.SECONDS * 2):
        output, _ = await process.communicate()
    result = json.loads(output)
    assert result["works"], result["why"]
    assert result["exit"] == 6
    assert result["lines"][:3] == ["0", "pid=1", "pod"]
    assert result["lines"][4:] == ["dev", "sysctl-refused", "writable"]
    assert result["reached"]
    assert result["terminal"] == "/dev/pts/0\nx\nexit 7"
    assert result["loopback"]
    assert any("only the image's user 0 exists" in note for note in result["reduced"])


@pytest.mark.parametrize(
    ("files", "pasta", "why"),
    [
        ({}, None, "apt install passt"),
        ({"/proc/sys/user/max_user_namespaces": "0"}, "/usr/bin/pasta", "user.max_user_namespaces"),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0"}, "/usr/bin/pasta", "unprivileged_userns_clone=1"),
        (
            {"/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            "/usr/bin/pasta",
            "apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_what_is_missing_is_named(files: dict[str, str], pasta: str | None, why: str) -> None:
    present = {"/proc/sys/user/max_user_namespaces": "1000", **files}
    found = rootless_support(which=lambda _: pasta, read=present.get)
    assert not found.works
    assert why in found.why


def test_root_needs_no_namespaces_of_its_own(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    assert rootless_reexec_command(["x"], published_ports=[80], data_dir=tmp_path) is None


def test_a_dead_holder_is_not_found(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    state = {"holder": os.getpid(), "holder_start": 1, "pasta": 1, "pasta_start": 1, "ports": []}
    (tmp_path / "rootless.json").write_text(json.dumps(state))  # the pid lives, but it is another process
    assert load(tmp_path) is None
    release(tmp_path)
    assert not (tmp_path / "rootless.json").exists()
