"""One stack per pytest worker for the tests that disturb nobody, and own stacks for those that do."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.conformance.binaries import build_kn, find_kn
from tests.conformance.gomodule import Unavailable
from tests.e2e.cluster import Cluster, open_cluster
from tests.e2e.http import Gateway, open_gateway
from tests.e2e.kubectl import Kubectl, find_kubectl
from tests.e2e.stack import Stack

_numbers = count(1)
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == _HERE:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(120))


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop() -> None:
    """The loops that must not block are in other processes here; the loop of a test only drives them."""


@pytest.fixture(scope="session")
def kubectl_binary() -> str | None:
    """None: no kubectl on this machine and no Go to build one; requests then go over plain HTTP."""
    return find_kubectl()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The shared stack, with the static hello image."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.start()
        stack.build_image("hello-static")
        yield stack
    finally:
        stack.close()


@pytest.fixture
async def cluster(stack: Stack, kubectl_binary: str | None) -> AsyncIterator[Cluster]:
    """The shared stack's API. What the test created is deleted after it."""
    async with open_cluster(stack, kubectl_binary) as opened:
        before = {item["metadata"]["name"] for item in await opened.list("ksvc")}
        yield opened
        for item in await opened.list("ksvc"):
            if item["metadata"]["name"] not in before:
                await opened.delete("ksvc", item["metadata"]["name"])


@pytest.fixture
async def gateway(stack: Stack) -> AsyncIterator[Gateway]:
    async with open_gateway(stack.facts["url"], stack.facts["domain"]) as opened:
        yield opened


@pytest.fixture
def kubectl(cluster: Cluster) -> Kubectl:
    """For tests of what kubectl prints."""
    if cluster.kubectl is None:
        pytest.skip("no kubectl on PATH and no Go to build it; the other tests send its requests over plain HTTP")
    return cluster.kubectl


@pytest.fixture
def name() -> str:
    """A Service name that no other test uses."""
    return f"svc-{next(_numbers)}"


@pytest.fixture(scope="session")
def python_image(stack: Stack) -> str:
    return stack.build_image("hello-python")


@pytest.fixture(scope="session")
def aiohttp_image(stack: Stack) -> str:
    return stack.build_image("hello-aiohttp")


@pytest.fixture(scope="session")
def grpc_image(stack: Stack) -> str:
    return stack.build_image("hello-grpc")


@pytest.fixture(scope="session")
def kn_program() -> Path:
    found = find_kn()
    if found is not None:
        return found
    try:
        return build_kn()
    except (Unavailable, OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no kn: `scripts/conformance --build` builds it, with Go ({error})")
