"""Fixtures of the node agent's tests. Property tests run on machines that are busy with other things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

settings.register_profile("busy-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy-machine")


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop() -> Iterator[None]:
    """A call from the agent's own code that blocks the event loop fails the test."""
    with blockbuster_ctx(scanned_modules=["serving.local.node"]):
        yield
