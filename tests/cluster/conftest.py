"""One real control plane per run; nodeless installed on it; its processes running against it.

Everything here needs the programs of `tests.cluster.assets`; without them it is skipped, with one line that says
how to get them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.cluster.assets import find_assets, why_skipped
from tests.cluster.components import Components
from tests.cluster.control_plane import ControlPlane
from tests.cluster.install import install, kubectl
from tests.cluster.namespaces import DOMAIN, Namespace, make

_HERE = Path(__file__).parent
_LAST = ("test_removal.py", "test_rights.py")
"""What takes away what others need, and what looks at what all others did."""
_numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == _HERE:
            item.add_marker(pytest.mark.cluster)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(600))
    items.sort(key=lambda item: item.path.parent == _HERE and item.path.name in _LAST)


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop() -> None:
    """The loops that must not block are in other processes here; the loop of a test only drives them."""


@pytest.fixture(scope="session")
def assets() -> Path:
    found = find_assets()
    if found is None:
        pytest.skip(why_skipped())
    return found


@pytest.fixture(scope="session")
def control_plane(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with nodeless installed."""
    control_plane = ControlPlane(assets=assets, directory=tmp_path_factory.mktemp("control-plane"))
    control_plane.start()
    try:
        install(control_plane)
        yield control_plane
    finally:
        control_plane.stop()


@pytest.fixture(scope="session")
def bare_control_plane(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Another one, on which no process runs but what a test starts itself."""
    control_plane = ControlPlane(assets=assets, directory=tmp_path_factory.mktemp("bare-control-plane"))
    control_plane.start()
    try:
        install(control_plane)
        yield control_plane
    finally:
        control_plane.stop()


@pytest.fixture(scope="session")
def components(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Components]:
    """nodeless' processes on it, with a node agent on this machine and the image `dev.local/hello-static`."""
    components = Components(control_plane, tmp_path_factory.mktemp("nodeless"))
    try:
        components.start_all(domain=DOMAIN)
        components.cli("image", "build", "--example", "hello-static")
        yield components
    finally:
        components.close()


@pytest.fixture
def name() -> str:
    """A Service name that no other test uses."""
    return f"svc-{next(_numbers)}"


@pytest.fixture
def namespace(components: Components, name: str) -> Iterator[Namespace]:
    """A namespace of its own; its service account's token is mounted as in any cluster."""
    namespace = make(components, f"test-{name}")
    try:
        yield namespace
    finally:
        kubectl(components.control_plane, "delete", "namespace", namespace.name, "--wait=false")
