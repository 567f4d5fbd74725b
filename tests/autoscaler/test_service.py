"""The autoscaler of all revisions: who is looked at when, on virtual time."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from serving.api.config.autoscaler import AutoscalerConfig
from serving.api.reports import Demand, Poke, RevisionDemand
from serving.autoscaler.parameters import parameters_of
from serving.autoscaler.revision import Decision, Observation, PodCounts
from serving.autoscaler.service import Autoscaler

pytestmark = pytest.mark.looptime
PARAMETERS = parameters_of({}, container_concurrency=0, config=AutoscalerConfig())
ONE = Observation(pods=PodCounts(ready=1, live=1), gateways=frozenset({"g"}))


class Setting:
    def __init__(self) -> None:
        self.observations: dict[str, Observation] = {}
        self.looked: list[str] = []
        self.decided: list[tuple[str, Decision]] = []
        self.broken: set[str] = set()
        self.autoscaler = Autoscaler(
            now=lambda: asyncio.get_running_loop().time(),
            observe=self.observe,
            decided=lambda key, decision: self.decided.append((key, decision)),
        )

    def observe(self, key: str) -> Observation:
        self.looked.append(key)
        if key in self.broken:
            raise ValueError("a pod that nobody understands")
        return self.observations.get(key, ONE)

    def ensure(self, key: str) -> None:
        self.autoscaler.ensure(key, PARAMETERS, replicas=1, initialized=True, active=None)

    def report(self, **in_progress: int) -> None:
        now = asyncio.get_running_loop().time()
        demand = {f"ns/{name}": RevisionDemand(load, load, 0) for name, load in in_progress.items()}
        self.autoscaler.on_demand("g", Demand(now - 1, now, demand))


async def test_one_revision_that_fails_does_not_stop_the_others_and_is_tried_again() -> None:
    setting = Setting()
    for name in ("a", "b", "c"):
        setting.ensure(f"ns/{name}")
    setting.broken = {"ns/b"}
    setting.looked.clear()
    setting.report(a=1, b=1, c=1)
    assert set(setting.looked) == {"ns/a", "ns/b", "ns/c"}
    setting.broken.clear()
    setting.looked.clear()
    await asyncio.sleep(3)
    assert "ns/b" in setting.looked
    setting.autoscaler.close()


async def test_a_revision_taken_on_again_is_looked_at_again() -> None:
    """Nothing else tells that it is retired: at rest it has no timer."""
    setting = Setting()
    setting.ensure("ns/a")
    for _ in range(90):
        setting.report()
        await asyncio.sleep(1)
    setting.looked.clear()
    retired = msgspec.structs.replace(ONE, reachability="Unreachable")
    setting.observations["ns/a"] = retired
    setting.ensure("ns/a")
    assert setting.looked == ["ns/a"]
    setting.autoscaler.close()


async def test_a_poke_for_an_unknown_revision_is_told() -> None:
    setting = Setting()
    assert not setting.autoscaler.on_poke(Poke("ns/none", 1, 0.0))


async def test_after_the_end_no_timer_fires() -> None:
    setting = Setting()
    setting.ensure("ns/a")
    setting.report(a=1)
    setting.autoscaler.close()
    setting.looked.clear()
    await asyncio.sleep(60)
    assert setting.looked == []
