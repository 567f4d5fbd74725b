"""The JSONPath of printer columns: fields, quoted keys, indexes, and filters by equality.

`.status.url`, `.metadata.labels['serving\\.knative\\.dev/service']`,
`.status.conditions[?(@.type=='Ready')].status`, `.spec.containers[0].image`, `.items[*].name`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

Step = Callable[[Any], Iterator[Any]]

_FIELD: Final = re.compile(r"\.((?:[^.\[\\]|\\.)+)")
_QUOTED: Final = re.compile(r"\[(['\"])((?:(?!\1)[^\\]|\\.)*)\1\]")
_INDEX: Final = re.compile(r"\[(-?\d+)\]")
_ALL: Final = re.compile(r"\[\*\]|\.\*")
_FILTER: Final = re.compile(
    r"\[\?\(\s*@((?:\.(?:[^.\s=!<>)\\]|\\.)+)+)\s*(==|!=)\s*(?:'([^']*)'|\"([^\"]*)\"|([^)\s]+))\s*\)\]"
)


class PathError(ValueError):
    """A JSONPath that cannot be read."""


def first(obj: Any, path: str) -> Any:
    """The first match, or None."""
    return next(matches(obj, path), None)


def matches(obj: Any, path: str) -> Iterator[Any]:
    """All matches in document order. Raises PathError."""
    found: Iterator[Any] = iter((obj,))
    for step in compile_path(path):
        found = _chain(found, step)
    return found


def _chain(values: Iterator[Any], step: Step) -> Iterator[Any]:
    for value in values:
        yield from step(value)


@lru_cache(maxsize=512)
def compile_path(path: str) -> tuple[Step, ...]:
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    if text and text[0] not in ".[":
        text = "." + text
    steps: list[Step] = []
    at = 0
    while at < len(text):
        step, at = _next_step(text, at)
        steps.append(step)
    return tuple(steps)


def _next_step(text: str, at: int) -> tuple[Step, int]:
    if match := _ALL.match(text, at):
        return _every, match.end()
    if match := _FIELD.match(text, at):
        return _field(_unescape(match[1])), match.end()
    if match := _QUOTED.match(text, at):
        return _field(_unescape(match[2])), match.end()
    if match := _INDEX.match(text, at):
        return _index(int(match[1])), match.end()
    if match := _FILTER.match(text, at):
        wanted = next(part for part in match.group(3, 4, 5) if part is not None)
        return _filter(match[1], equal=match[2] == "==", wanted=wanted), match.end()
    raise PathError(f"JSONPath {text!r} cannot be read from {text[at:]!r} on")


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _every(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _index(index: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _filter(path: str, *, equal: bool, wanted: str) -> Step:
    steps = compile_path(path)

    def step(value: Any) -> Iterator[Any]:
        for item in value if isinstance(value, list) else ():
            found: Iterator[Any] = iter((item,))
            for inner in steps:
                found = _chain(found, inner)
            actual = next(found, None)
            if actual is not None and (_text(actual) == wanted) == equal:
                yield item

    return step


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
