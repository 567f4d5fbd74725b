"""What was recorded of a real API server is what it answers; our webhook refuses on it what Knative's does."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.kube.client import KubeClient
from serving.kube.connection import from_kubeconfig
from tests.bad_input.stack import webhook_before
from tests.bad_input.test_bad_input import differences, outcomes
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import install
from tests.differential import live
from tests.differential.__main__ import ask
from tests.differential.scenarios.everything import SCENARIOS


@pytest.fixture(scope="module")
def own_control_plane(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One whose webhook configurations point into the test's own loop."""
    control_plane = ControlPlane(assets=assets, directory=tmp_path_factory.mktemp("own-control-plane"))
    control_plane.start()
    try:
        install(control_plane)
        yield control_plane
    finally:
        control_plane.stop()


async def test_the_recorded_answers_are_a_real_servers(own_control_plane: ControlPlane) -> None:
    found = await ask(list(SCENARIOS), kubeconfig=own_control_plane.kubeconfig, record=False)
    assert not found, "\n".join(map(str, found))


async def test_bad_objects_are_refused_as_by_knatives_webhook(own_control_plane: ControlPlane) -> None:
    kubeconfig = own_control_plane.kubeconfig
    authority = own_control_plane.authority
    files = authority.issue("webhook", user="webhook", hosts=("127.0.0.1",))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.with_suffix(".crt"), files.with_suffix(".key"))
    async with (
        KubeClient(await from_kubeconfig(kubeconfig)) as client,
        webhook_before(client, tls=tls, authority=authority.certificate.read_text()) as configure,
        live.from_kubeconfig(kubeconfig) as session,
    ):
        found = differences(await outcomes(session, configure))
    assert not found, found
