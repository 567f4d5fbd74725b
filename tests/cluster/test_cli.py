"""`nodeless --kubeconfig FILE` as a user's command line on a cluster, with a client certificate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.components import Components
from tests.cluster.namespaces import DOMAIN, IMAGE, Namespace


@pytest.fixture
def kubeconfig(components: Components, tmp_path: Path) -> Path:
    """Of a user who is known by a certificate, in a file beside it."""
    control_plane = components.control_plane
    pair = control_plane.authority.issue("alice", user="alice", group="system:masters")
    user = {"client-certificate": str(pair.with_suffix(".crt")), "client-key": str(pair.with_suffix(".key"))}
    return control_plane.write_kubeconfig(tmp_path / "kubeconfig", user="alice", credentials=user)


def test_deploy_list_describe_logs_delete(namespace: Namespace, kubeconfig: Path) -> None:
    cli = namespace.components.cli
    base = ("--kubeconfig", str(kubeconfig))
    said = cli(*base, "deploy", "hello", "-n", namespace.name, "--image", IMAGE, "--env", "TARGET=cli")
    assert f"http://hello.{namespace.name}.{DOMAIN}" in said
    assert namespace.ask("hello") == (200, "Hello cli!")
    hello = namespace.get("ksvc", "hello")
    assert hello["metadata"]["annotations"]["serving.knative.dev/creator"] == "alice"
    (listed,) = json.loads(cli(*base, "--output", "json", "list", "-n", namespace.name))
    assert listed["metadata"]["name"] == "hello"
    assert "hello-00001" in cli(*base, "describe", "hello", "-n", namespace.name)
    assert "listening" in cli(*base, "logs", "hello", "-n", namespace.name)
    cli(*base, "delete", "hello", "-n", namespace.name)
    namespace.until(lambda: not namespace.get("ksvc"), "it is gone")
