"""What the gateways' reports mean together."""

from __future__ import annotations

import pytest

from serving.api.reports import Drains, Hello, PodDrain, Programmed
from serving.controller.gateways import GatewayReports

ROUTE = "default/hello"
CASES: dict[str, tuple[dict[str, dict[str, str]], set[str], bool | None]] = {
    "nobody lives": ({}, set(), None),
    "nobody spoke": ({}, {"a"}, None),
    "served": ({"a": {ROUTE: "new"}}, {"a"}, True),
    "served as before": ({"a": {ROUTE: "old"}}, {"a"}, False),
    "a gateway that has just started says nothing of it": ({"a": {}}, {"a"}, None),
    "one of two has just started": ({"a": {ROUTE: "new"}, "b": {}}, {"a", "b"}, None),
    "one of two lags": ({"a": {ROUTE: "new"}, "b": {ROUTE: "old"}}, {"a", "b"}, False),
    "one of two is dead": ({"a": {ROUTE: "new"}, "b": {ROUTE: "old"}}, {"a"}, True),
}


@pytest.mark.parametrize(("said", "alive", "expected"), CASES.values(), ids=CASES.keys())
def test_programmed(said: dict[str, dict[str, str]], alive: set[str], expected: bool | None) -> None:
    reports = GatewayReports()
    for gateway, routes in said.items():
        reports.set_programmed(gateway, Programmed(routes))
    assert reports.programmed(ROUTE, "new", alive=alive) is expected


def test_a_new_incarnation_starts_with_nothing_said() -> None:
    reports = GatewayReports()
    reports.hello(Hello("a", "1"))
    reports.set_programmed("a", Programmed({ROUTE: "new"}))
    reports.hello(Hello("a", "1"))
    assert reports.programmed(ROUTE, "new", alive={"a"}) is True
    reports.hello(Hello("a", "2"))
    assert reports.programmed(ROUTE, "new", alive={"a"}) is None


def test_a_drain_that_was_taken_back_vouches_for_nothing() -> None:
    reports = GatewayReports()
    reports.set_drains("a", Drains({"p": PodDrain(True, 0), "q": PodDrain(True, 0)}))
    reports.forget_drain("p")
    assert reports.drains == {"a": {"q": PodDrain(True, 0)}}
