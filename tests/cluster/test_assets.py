"""Where the programs come from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.assets import PROGRAMS, cache_directory, release

ROOT = Path(__file__).resolve().parents[2]


def check(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "KUBEBUILDER_ASSETS"}
    return subprocess.run(
        [sys.executable, "-m", "tests.cluster.assets", "--check"],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_programs_one_line_says_how_to_get_them(tmp_path: Path) -> None:
    done = check(XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert "make test-cluster" in done.stdout
    assert "KUBEBUILDER_ASSETS" in done.stdout


def test_the_variable_takes_precedence(tmp_path: Path) -> None:
    for name in PROGRAMS:
        (tmp_path / name).touch()
    assert check(KUBEBUILDER_ASSETS=str(tmp_path)).stdout.strip() == str(tmp_path)


def test_a_variable_that_names_no_programs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "etcd").touch()
    done = check(KUBEBUILDER_ASSETS=str(tmp_path))
    assert done.returncode == 1
    assert not done.stdout
    assert "no kube-apiserver, kubectl, kube-controller-manager there" in done.stderr


def test_other_versions_have_other_directories() -> None:
    assert cache_directory().name.startswith(f"{release()}-")


def test_the_staging_modules_have_the_release_s_version() -> None:
    """A module that is required but not replaced would be taken at another version, or not be found at all."""
    text = (Path(__file__).parent / "go.mod").read_text()
    replaced = {line.split()[0]: line.split()[-1] for line in text.splitlines() if " => k8s.io/" in line}
    assert len(replaced) > 25
    assert set(replaced.values()) == {release().replace("v1.", "v0.")}
