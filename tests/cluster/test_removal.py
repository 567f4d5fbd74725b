"""The installation taken away again, as the documentation says it. Runs last on its control plane."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.components import Components
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import MANIFESTS, kubectl

DOMAIN = "removed.example.org"


def test_nothing_is_left(bare_control_plane: ControlPlane, tmp_path: Path) -> None:
    inside = Components(bare_control_plane, tmp_path)
    mapping = {
        "apiVersion": "serving.knative.dev/v1beta1",
        "kind": "DomainMapping",
        "metadata": {"name": DOMAIN, "namespace": "default"},
        "spec": {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "none"}},
    }
    try:
        inside.start("webhook", "--port", "0", "--register")
        inside.start("controller", "--listen", f"unix:{tmp_path / 'reports'}", "--identity", "removed")
        kubectl(bare_control_plane, "apply", "-f", "-", stdin=json.dumps(mapping))
        kubectl(
            bare_control_plane,
            *("wait", "-n", "default", f"domainmapping/{DOMAIN}", "--timeout=20s"),
            "--for=jsonpath={.metadata.finalizers}",
        )
        kubectl(bare_control_plane, "delete", "ksvc,route,configuration,domainmapping", "--all", "-A", "--wait")
    finally:
        inside.close()
    kubectl(bare_control_plane, "delete", "-k", str(MANIFESTS), "--ignore-not-found", "--wait")
    for kind in ("crd", "clusterrole", "clusterrolebinding", "mutatingwebhookconfigurations", "namespace"):
        left = kubectl(bare_control_plane, "get", kind, "-o", "name")
        ours = [line for line in left.splitlines() if "knative" in line or "nodeless" in line]
        assert not ours
