"""The components as pods run them: no kubeconfig, but the files and variables of a service account."""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cluster.components import Components
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import kubectl
from tests.cluster.namespaces import poll

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts files where pods have them"),
]


def test_a_controller_leads(bare_control_plane: ControlPlane, tmp_path: Path) -> None:
    """It gives its Lease up when it ends."""
    inside = Components(bare_control_plane, tmp_path)
    lease = ("get", "lease", "nodeless-controller-00", "-n", "knative-serving", "-o", "json", "--ignore-not-found")

    def holder() -> str:
        found = kubectl(bare_control_plane, *lease)
        return str(json.loads(found)["spec"].get("holderIdentity", "")) if found else ""

    inside.start("controller", "--listen", f"unix:{tmp_path / 'reports'}", "--identity", "in-a-pod", in_pod=True)
    assert holder() == "in-a-pod"
    inside.close()
    poll(lambda: not holder(), seconds=5, what="the Lease is free again")


def test_a_webhook_serves(bare_control_plane: ControlPlane, tmp_path: Path) -> None:
    inside = Components(bare_control_plane, tmp_path)
    inside.start("webhook", "--port", "0", in_pod=True)
    try:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        url = inside.facts["webhook"]["url"] + "/healthz"

        def healthy() -> bool:
            try:
                with urllib.request.urlopen(url, timeout=5, context=context) as response:
                    return bool(response.status == 200)
            except urllib.error.HTTPError:
                return False

        poll(healthy, seconds=20, what="the ConfigMaps are known")
    finally:
        inside.close()
