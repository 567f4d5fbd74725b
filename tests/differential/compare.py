"""Where two normalised answers differ, and which of the differences are known and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from serving.api.meta import JsonObject

EXCEPTIONS: Final = Path(__file__).parent / "exceptions.yaml"
ABSENT: Final = "<absent>"


@dataclass(frozen=True, slots=True)
class Difference:
    """`where`: `scenario/step path.in.the.answer`."""

    step: str
    path: str
    real: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.step}  {self.path}\n    real: {_short(self.real)}\n    ours: {_short(self.ours)}"


@dataclass(frozen=True, slots=True)
class Known:
    """`step` and `path` are patterns with `*`; `reason` says why ours differs."""

    step: str
    path: str
    reason: str

    def covers(self, difference: Difference) -> bool:
        return _matches(self.step, difference.step) and _matches(self.path, difference.path)


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None


def load_exceptions(path: Path = EXCEPTIONS) -> list[Known]:
    listed = yaml.safe_load(path.read_text()) or []
    return [
        Known(step, path, item["reason"]) for item in listed for step in item["steps"] for path in item["paths"]
    ]


def compare(scenario: str, real: list[JsonObject], ours: list[JsonObject]) -> list[Difference]:
    """Both lists have one answer per step."""
    by_id = {answer["id"]: answer for answer in ours}
    found: list[Difference] = []
    for answer in real:
        step, other = f"{scenario}/{answer['id']}", by_id.get(answer["id"], {})
        if answer["status"] != other.get("status"):
            found.append(Difference(step, "status", _outcome(answer), _outcome(other)))
            continue
        found += [Difference(step, *item) for item in _differences(answer, other, "")]
    return found


def _outcome(answer: JsonObject) -> str:
    """An answer in short; when one server refuses what the other takes nothing else is worth comparing."""
    body = answer.get("body")
    message = body.get("message", "") if isinstance(body, dict) else ""
    return f"{answer.get('status')} {message}".strip()


def unexplained(differences: Iterable[Difference], exceptions: Iterable[Known]) -> list[Difference]:
    known = list(exceptions)
    return [item for item in differences if not any(each.covers(item) for each in known)]


def unneeded(differences: Iterable[Difference], exceptions: Iterable[Known]) -> list[Known]:
    """Exceptions that explain nothing any more."""
    found = list(differences)
    return [each for each in exceptions if not any(each.covers(item) for item in found)]


def _differences(real: Any, ours: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(real, dict) and isinstance(ours, dict):
        for key in sorted(real.keys() | ours.keys()):
            inner = f"{path}.{key}" if path else key
            yield from _differences(real.get(key, ABSENT), ours.get(key, ABSENT), inner)
    elif isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        for index, (left, right) in enumerate(zip(real, ours, strict=True)):
            yield from _differences(left, right, f"{path}[{index}]")
    elif type(real) is not type(ours) or real != ours:
        yield path, real, ours


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 400 else f"{text[:400]}… ({len(text)} characters)"
