"""What a real API server answered: one file per scenario, one normalised answer per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from serving.api.meta import JsonObject

DIRECTORY: Final = Path(__file__).parent / "recorded"


def path_of(scenario: str) -> Path:
    return DIRECTORY / f"{scenario.replace(' ', '-')}.jsonl"


def load(scenario: str) -> list[JsonObject]:
    return [json.loads(line) for line in path_of(scenario).read_text().splitlines()]


def save(scenario: str, answers: list[JsonObject]) -> None:
    DIRECTORY.mkdir(exist_ok=True)
    lines = [json.dumps(answer, sort_keys=True, ensure_ascii=False) for answer in answers]
    path_of(scenario).write_text("".join(f"{line}\n" for line in lines))
