"""When a Service follows its children at once, and that it costs few writes until it is Ready."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from serving.api.resources import KSERVICES
from serving.api.v1 import Configuration, Route
from serving.controller.ksvc import is_under_way
from tests.controller.test_service import cluster, ready, service


def _status(ready: str | None) -> dict[str, object]:
    return {"status": {"conditions": [{"type": "Ready", "status": ready}] if ready else []}}


@pytest.mark.parametrize(
    ("configuration", "route", "expected"),
    [
        ("Unknown", "Unknown", True),
        ("True", "Unknown", True),
        ("True", None, True),
        ("Unknown", "True", True),
        ("True", "True", False),
        ("False", "Unknown", False),
        ("Unknown", "False", False),
        ("True", "missing", False),
        ("missing", "Unknown", False),
    ],
)
def test_children_are_under_way(configuration: str | None, route: str | None, expected: bool) -> None:
    first = None if configuration == "missing" else msgspec.convert(_status(configuration), Configuration)
    second = None if route == "missing" else msgspec.convert(_status(route), Route)
    assert is_under_way(first, second) is expected


def test_a_new_configuration_waits_for_the_route_that_is_being_made() -> None:
    new = msgspec.convert({"metadata": {"generation": 1}}, Configuration)
    assert is_under_way(new, None)
    seen = msgspec.convert({"metadata": {"generation": 1}, "status": {"observedGeneration": 1}}, Configuration)
    assert not is_under_way(seen, None)


async def test_few_writes_of_a_service_until_it_is_ready(tmp_path: Path) -> None:
    async with cluster(tmp_path) as played:
        made = await played.client.create(KSERVICES, service())
        await played.until("Ready", lambda: ready(played))
        watch = played.client.watch(
            KSERVICES, "default", resource_version=made["metadata"]["resourceVersion"], timeout_seconds=5
        )
        writes = 0
        async for event in watch:
            writes += 1
            stored = msgspec.json.decode(event.object)
            if any(one["type"] == "Ready" and one["status"] == "True" for one in stored["status"]["conditions"]):
                break
        await watch.aclose()
        assert 1 < writes <= 4, "out of date, under way at most twice, Ready"
