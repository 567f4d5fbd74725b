"""The pool's shell against an API server that the test scripts: no pod too many, none forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from serving.api.config.deployment import DeploymentConfig
from serving.api.meta import JsonObject
from serving.api.pod import Pod
from serving.api.reports import Decided
from serving.api.v1 import Revision
from serving.kube.client import KubeClient
from serving.kube.errors import AlreadyExists, Forbidden, KubeError, TooManyRequests, Unreachable
from serving.pool.placement import Node, spec_problem, usage_by_node
from serving.pool.service import Facts, Pool
from tests.pool.support import node, revision

KEY = "shop/hello-00001"


class FakeApi:
    """Pods by name. `trouble`: the next creations' errors, and whether the pod is stored all the same."""

    def __init__(self) -> None:
        self.pods: dict[str, JsonObject] = {}
        self.trouble: list[tuple[KubeError | None, bool]] = []
        self.calls: list[str] = []

    async def create(self, resource: object, body: JsonObject, namespace: str = "") -> JsonObject:
        name = body["metadata"]["name"]
        self.calls.append(name)
        error, stored = self.trouble.pop(0) if self.trouble else (None, True)
        await asyncio.sleep(0.01)
        if name in self.pods:
            raise AlreadyExists(409, {})
        if stored:
            self.pods[name] = body | {"metadata": body["metadata"] | {"uid": f"uid-{name}"}}
        if error is not None:
            raise error
        return body

    async def patch(self, resource: object, name: str, patch: JsonObject, namespace: str = "") -> JsonObject:
        return self.pods[name]


class Setting:
    def __init__(self) -> None:
        self.api = FakeApi()
        self.seen: list[Pod] = []
        self.created: list[Decided] = []
        self.nodes: list[Node] = [node("n")]
        self.revision: Revision = revision()
        facts = Facts(
            revision=lambda key: self.revision,
            pod=lambda key: None,
            pods=lambda key: self.seen,
            all_pods=lambda: self.seen,
            usage=lambda: usage_by_node(self.seen),
            nodes=lambda: self.nodes,
            wait_set=lambda: ("g",),
            drains=dict,
            forget_drain=lambda uid: None,
            config=DeploymentConfig,
            progress_deadline=lambda key: 600.0,
        )
        self.changed: list[str] = []
        self.pool = Pool(
            cast("KubeClient", self.api),
            facts,
            now=lambda: asyncio.get_running_loop().time() + 1_000_000,
            changed=self.changed.append,
            created=self.created.append,
        )

    def show(self) -> None:
        """The informer catches up."""
        self.seen = [msgspec.convert(body, Pod) for body in self.api.pods.values()]
        self.pool.pods_changed(KEY)


@asynccontextmanager
async def running(setting: Setting) -> AsyncIterator[Setting]:
    task = asyncio.ensure_future(setting.pool.run())
    try:
        yield setting
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.looptime
@pytest.mark.parametrize("stored", [True, False])
async def test_a_creation_without_an_answer_never_leads_to_a_second_pod(stored: bool) -> None:
    async with running(Setting()) as setting:
        setting.api.trouble = [(Unreachable("reset"), stored)]
        setting.pool.want(KEY, 1)
        await asyncio.sleep(5)
        setting.show()
        await asyncio.sleep(60)
        assert len(setting.api.pods) == 1
        assert len(set(setting.api.calls)) == 1


@pytest.mark.looptime
async def test_one_failure_of_a_batch_does_not_disturb_the_others() -> None:
    async with running(Setting()) as setting:
        setting.api.trouble = [(None, True), (Unreachable("reset"), False), (None, True)]
        setting.pool.want(KEY, 3)
        await asyncio.sleep(1)
        assert len(setting.api.pods) == 3
        assert len(set(setting.api.calls)) == 3
        assert len(setting.api.calls) == 4


@pytest.mark.looptime
async def test_throttling_is_waited_for_and_is_no_refusal() -> None:
    async with running(Setting()) as setting:
        setting.api.trouble = [(TooManyRequests(429, {"details": {"retryAfterSeconds": 3}}), False)]
        setting.pool.want(KEY, 1)
        await asyncio.sleep(2)
        assert setting.pool.refusal(KEY) is None
        assert setting.api.pods == {}
        await asyncio.sleep(2)
        assert len(setting.api.pods) == 1


@pytest.mark.looptime
async def test_a_refusal_goes_when_nothing_is_missing_any_more() -> None:
    async with running(Setting()) as setting:
        setting.pool.want(KEY, 1)
        await asyncio.sleep(1)
        setting.show()
        quota = Forbidden(403, {"message": "exceeded quota"})
        setting.api.trouble = [(quota, False)] * 100
        setting.pool.want(KEY, 2)
        await asyncio.sleep(1)
        refusal = setting.pool.refusal(KEY)
        assert refusal is not None
        assert (refusal.reason, refusal.message) == ("FailedCreate", "exceeded quota")
        setting.pool.want(KEY, 1)
        await asyncio.sleep(1)
        assert setting.pool.refusal(KEY) is None
        calls = len(setting.api.calls)
        await asyncio.sleep(600)
        assert len(setting.api.calls) == calls, "nothing is asked for when nothing is missing"


@pytest.mark.looptime
async def test_a_poke_hears_of_the_pods_that_were_made() -> None:
    async with running(Setting()) as setting:
        setting.api.trouble = [(Forbidden(403, {"message": "exceeded quota"}), False), (None, True)]
        setting.pool.want(KEY, 2, poked_at=7.0)
        await asyncio.sleep(1)
        assert [decided.poke_at for decided in setting.created] == [7.0]
        assert set(setting.created[0].pods) == set(setting.api.pods)


async def test_the_create_call_is_sent_in_the_turn_after_the_order() -> None:
    async with running(Setting()) as setting:
        await asyncio.sleep(0.01)
        setting.pool.want(KEY, 1)
        await asyncio.sleep(0)
        assert setting.api.calls


BROKEN: dict[str, Any] = {
    "a type": {"containers": [{"image": "a"}], "timeoutSeconds": "long"},
    "no containers": {"containers": []},
    "no port": {"containers": [{"image": "a"}, {"image": "b"}]},
    "a quantity": {"containers": [{"image": "a", "resources": {"requests": {"cpu": "much"}}}]},
}


@pytest.mark.parametrize("spec", BROKEN.values(), ids=BROKEN.keys())
def test_a_spec_that_makes_no_pod_is_told(spec: JsonObject) -> None:
    assert "spec cannot be used" in (spec_problem(revision(spec)) or "")
    assert spec_problem(revision()) is None
