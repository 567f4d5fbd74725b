"""Objects that pods refer to: watched once, kept for a while, and told of when they cannot be had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from serving.api.meta import JsonObject
from serving.api.resources import CONFIG_MAPS, SECRETS, Resource
from serving.kube.errors import Forbidden, from_status
from serving.local.node.object_cache import ObjectCache
from serving.local.node.volumes import Needed
from tests.local.node.fakes import FakeKube

ONE = Needed(frozenset({"c"}), frozenset())
BOTH = Needed(frozenset({"c"}), frozenset({"s", "none"}))


def item(name: str, **fields: Any) -> JsonObject:
    return {"metadata": {"name": name, "namespace": "default"}, **fields}


@asynccontextmanager
async def caching(kube: FakeKube, **settings: Any) -> AsyncIterator[ObjectCache]:
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Any, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        tasks.add(task)
        return task

    cache = ObjectCache(kube, spawn, **settings)
    try:
        yield cache
    finally:
        cache.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_values_are_decoded_and_what_is_missing_is_left_out() -> None:
    kube = FakeKube()
    kube.put(CONFIG_MAPS, item("c", data={"a": "1"}, binaryData={"b": "Mg=="}))
    kube.put(SECRETS, item("s", data={"k": "dg==", "bad": "!"}))
    async with caching(kube) as cache:
        found = await cache.read("default", BOTH)
        assert found.config_maps == {"c": {"a": b"1", "b": b"2"}}
        assert found.secrets == {"s": {"k": b"v", "bad": b""}}
        assert (await cache.read("other", ONE)).config_maps == {}


async def test_a_second_pod_asks_for_nothing_and_both_are_told() -> None:
    kube = FakeKube()
    kube.put(CONFIG_MAPS, item("c", data={"a": "1"}))
    told: list[str] = []
    async with caching(kube) as cache:
        for pod in ("p", "q"):
            cache.hold(pod, "default", ONE, lambda pod=pod: told.append(pod))  # type: ignore[misc]
            await cache.read("default", ONE)
        assert kube.watches["configmaps"] <= 1
        told.clear()
        kube.put(CONFIG_MAPS, item("c", data={"a": "2"}))
        await kube.until(lambda: sorted(told) == ["p", "q"])
        cache.release("p")
        kube.put(CONFIG_MAPS, item("c", data={"a": "3"}))
        await kube.until(lambda: told.count("q") == 2)
        assert told.count("p") == 1
        assert cache.now("default", ONE).config_maps == {"c": {"a": b"3"}}


async def test_what_nobody_needs_is_forgotten_in_a_while() -> None:
    kube = FakeKube()
    async with caching(kube, idle_seconds=0.2, most_idle=1) as cache:
        for name in ("a", "b"):
            cache.hold(name, "default", Needed(frozenset({name}), frozenset()), lambda: None)
            await cache.read("default", Needed(frozenset({name}), frozenset()))
        kube.put(CONFIG_MAPS, item("a", data={"k": "v"}))
        kube.put(CONFIG_MAPS, item("b", data={"k": "v"}))
        await kube.until(lambda: len(cache.now("default", Needed(frozenset("ab"), frozenset())).config_maps) == 2)
        cache.release("a")
        cache.release("b")  # one too many: the older goes at once
        assert set(cache.now("default", Needed(frozenset("ab"), frozenset())).config_maps) == {"b"}
        await kube.until(lambda: not cache.now("default", Needed(frozenset("b"), frozenset())).config_maps)


async def test_an_answer_that_is_a_refusal_is_given_on_at_once() -> None:
    class Refusing(FakeKube):
        async def list_raw(
            self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
        ) -> bytes:
            raise from_status(403, {"message": "configmaps is forbidden"})

    async with caching(Refusing()) as cache, asyncio.timeout(5):
        with pytest.raises(Forbidden, match="configmaps is forbidden"):
            await cache.read("default", ONE)
