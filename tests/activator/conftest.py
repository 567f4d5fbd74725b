from __future__ import annotations

import asyncio
import inspect

import pytest


@pytest.fixture(autouse=True)
def no_loop_of_its_own(request: pytest.FixtureRequest) -> None:
    """looptime's plugin asks every test for the current event loop, which makes one for a plain test; nobody
    closes it, and a later test fails for the ResourceWarning. A thread told to have no loop makes none."""
    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        asyncio.set_event_loop(None)
