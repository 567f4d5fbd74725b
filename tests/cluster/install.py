"""nodeless' manifests on a control plane, and credentials of its components' service accounts."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Final

import yaml

from serving.api.keys import SYSTEM_NAMESPACE
from tests.cluster.control_plane import ControlPlane

MANIFESTS: Final = Path(__file__).resolve().parents[2] / "manifests"
SECONDS: Final = 150


def kubectl(control_plane: ControlPlane, *arguments: str, stdin: str | None = None) -> str:
    """Run kubectl as the administrator; returns stdout. Raises AssertionError with its words."""
    done = subprocess.run(
        [str(control_plane.assets / "kubectl"), *arguments],
        env={**os.environ, "KUBECONFIG": str(control_plane.kubeconfig), "HOME": str(control_plane.directory)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def install(control_plane: ControlPlane, *, deployments: bool = False) -> None:
    """Apply the manifests, any warning being an error. `deployments`: with those of the components."""
    if deployments:
        kubectl(control_plane, "apply", "-k", str(MANIFESTS), "--warnings-as-errors")
        return
    listed = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["resources"]
    files = [MANIFESTS / path for path in listed if not path.startswith("deploy/")]
    documents = "---\n".join(path.read_text() for path in files)
    kubectl(control_plane, "apply", "-f", "-", "--warnings-as-errors", stdin=documents)


def set_domain(control_plane: ControlPlane, domain: str) -> None:
    """Make it the default domain of Routes."""
    patch = json.dumps({"data": {domain: ""}})
    kubectl(
        control_plane, "patch", "configmap", "config-domain", "-n", SYSTEM_NAMESPACE, "--type=merge", "-p", patch
    )


def service_account_kubeconfig(control_plane: ControlPlane, account: str) -> Path:
    """A kubeconfig with a token of one of the components' service accounts."""
    name = f"system:serviceaccount:{SYSTEM_NAMESPACE}:{account}"
    path = control_plane.directory / f"{account}.kubeconfig"
    return control_plane.write_kubeconfig(path, user=name, credentials={"token": _token(control_plane, account)})


def service_account_files(control_plane: ControlPlane, account: str) -> Path:
    """A directory with what a pod of the service account finds in its own."""
    directory = control_plane.directory / f"{account}.files"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "token").write_text(_token(control_plane, account))
    (directory / "namespace").write_text(SYSTEM_NAMESPACE)
    (directory / "ca.crt").write_bytes(control_plane.authority.certificate.read_bytes())
    return directory


def _token(control_plane: ControlPlane, account: str) -> str:
    arguments = ("create", "token", account, "-n", SYSTEM_NAMESPACE, "--duration=24h")
    return kubectl(control_plane, *arguments).strip()
