"""For every test: nothing of ours blocks an event loop, no loop exists that nobody closes, and properties have no
deadline, because the machine may be busy with other things."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

MAY_BLOCK = {
    "serving/activator/journal.py": {"__init__"},
    "serving/local/apiserver/access/users.py": {"stamp"},
    "serving/gateway/envoy.py": {"read_boot", "start_ticks", "write_boot"},
    "serving/gateway/store.py": {"load", "_write"},
    "serving/local/network/rootless.py": {"inside"},
    "serving/local/sandbox/privileges.py": {"in_user_namespace"},
}
"""Functions that read a file of /proc, or a small one of their own once, before or after anything is served."""
# gRPC waits for its poller when its last channel is collected, in whatever frame the collector happens to run.
MAY_BLOCK["threading.py"] = {"_wait_for_tstate_lock"}

settings.register_profile(
    "busy-machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),  # CI tells of the change, a developer's machine goes on searching
)
settings.load_profile("busy-machine")


def pytest_configure(config: pytest.Config) -> None:
    # pytest-asyncio asks for the current loop before its first test. Python 3.11 then makes one, which nobody
    # closes, and the warning about it fails whatever test happens to run when it is collected.
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop() -> Iterator[None]:
    """A call from the product's own code that blocks the event loop fails the test."""
    with blockbuster_ctx(scanned_modules=["serving"]) as watch:
        for function in watch.functions.values():
            for file, names in MAY_BLOCK.items():
                function.can_block_in(file, names)
        yield
