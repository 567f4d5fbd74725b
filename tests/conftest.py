"""For every test: no event loop exists that nobody closes."""

from __future__ import annotations

import asyncio

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # pytest-asyncio asks for the current loop before its first test. Python 3.11 then makes one, which nobody
    # closes, and the warning about it fails whatever test happens to run when it is collected.
    asyncio.set_event_loop(None)
