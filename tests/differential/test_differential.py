"""The embedded API server answers as a real one; exceptions.yaml lists what differs, with the reasons."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.differential import recorded, runner
from tests.differential.compare import compare, load_exceptions, unexplained, unneeded
from tests.differential.model import Scenario
from tests.differential.normalise import normalise
from tests.differential.scenarios.everything import SCENARIOS
from tests.local.apiserver.harness import running_apiserver


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        running_apiserver(tmp_path / "data") as server,
        runner.session("http://embedded", token=server.token, socket=str(server.socket)) as session,
    ):
        yield session


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_the_embedded_server_answers_as_a_real_one(
    embedded: aiohttp.ClientSession, scenario: Scenario
) -> None:
    namespace = f"diff-{secrets.token_hex(3)}"
    answers = await runner.run(scenario, embedded, namespace=namespace)
    ours = normalise(answers, namespace=namespace, ownership=scenario.ownership)
    found = compare(scenario.name, recorded.load(scenario.name), ours)
    exceptions = [each for each in load_exceptions() if each.step.startswith(f"{scenario.name}/")]
    left = unexplained(found, exceptions)
    assert not left, "\n".join(["differences:", *map(str, left)])
    useless = unneeded(found, exceptions)
    assert not useless, f"exceptions that are no longer needed: {useless}"


def test_the_set_is_large_and_its_names_are_unique() -> None:
    names = [(scenario.name, step.id) for scenario in SCENARIOS for step in scenario.steps]
    assert len(names) == len(set(names)) >= 300
    known = {scenario.name for scenario in SCENARIOS}
    assert {each.step.partition("/")[0] for each in load_exceptions()} <= known
    assert {path.stem for path in recorded.DIRECTORY.glob("*.jsonl")} == {name.replace(" ", "-") for name in known}
