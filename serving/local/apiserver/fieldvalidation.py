"""Decoding a body while noticing duplicate fields, and reporting unknown and duplicate fields as asked.

`fieldValidation`: `Strict` refuses, `Warn` (the default) answers with Warning headers, `Ignore` says nothing.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import yaml

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import Undecodable, bad_request, invalid, not_supported
from serving.local.apiserver.kinds import Kind

MODES = ("", "Ignore", "Strict", "Warn")


class Decoded(msgspec.Struct, frozen=True):
    """`duplicates` says which fields occurred twice; the last one counts."""

    value: Any
    duplicates: tuple[str, ...] = ()


class _Seen(dict[str, Any]):
    """An object that remembers which of its own fields were given twice."""

    __slots__ = ("doubled",)
    doubled: tuple[str, ...]


def decode_json(body: bytes, *, find_duplicates: bool = True) -> Decoded:
    """Raises StatusError 400."""
    doubled = False

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal doubled
        plain = dict(pairs)
        if len(plain) == len(pairs):
            return plain
        doubled = True
        names = [name for name, _ in pairs]
        seen = _Seen(plain)
        seen.doubled = tuple(name for name in plain if names.count(name) > 1)
        return seen

    try:
        if not find_duplicates:
            return Decoded(msgspec.json.decode(body))
        value = json.loads(body, object_pairs_hook=build, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"error decoding request body: {error}") from error
    if not doubled:
        return Decoded(value)
    paths: list[str] = []
    plain = _plain(value, "", paths)
    return Decoded(plain, tuple(f'duplicate field "{path}"' for path in paths))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any, path: str, paths: list[str]) -> Any:
    if isinstance(value, list):
        return [_plain(item, f"{path}[{index}]", paths) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if isinstance(value, _Seen):
        paths += [f"{path}.{name}" if path else name for name in value.doubled]
    return {name: _plain(item, f"{path}.{name}" if path else name, paths) for name, item in value.items()}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as JSON: timestamps stay strings, keys become strings, and keys that are given twice are noted."""

    doubled: list[str]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
        self.flatten_mapping(node)
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _key(self.construct_object(key_node, deep=True))
            if key in made:
                self.doubled.append(f'line {key_node.start_mark.line + 1}: key "{key}" already set in map')
            made[key] = self.construct_object(value_node, deep=deep)
        return made


def _key(key: object) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return key if isinstance(key, str) else str(key)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def decode_yaml(body: bytes) -> Decoded:
    """Raises StatusError 400. What was given twice is told by its line."""
    loader = _Loader(body)
    loader.doubled = []
    try:
        return Decoded(loader.get_single_data(), tuple(loader.doubled))
    except (yaml.YAMLError, RecursionError, TypeError) as error:
        raise bad_request(f"error converting YAML to JSON: yaml: {_yaml_problem(error)}") from error
    finally:
        loader.dispose()


def _yaml_problem(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)


class _Documents(_Loader):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.doubled = []


def decode_yaml_documents(text: bytes) -> list[Any]:
    """All documents of a manifest file. Raises StatusError 400."""
    try:
        return list(yaml.load_all(text, Loader=_Documents))
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from error


def mode(requested: str, *, options_kind: str) -> str:
    """The mode asked for. Raises StatusError 422 for an unknown one."""
    if not requested:
        return "Warn"
    if requested not in MODES:
        cause = not_supported("fieldValidation", requested, MODES)
        raise invalid(options_kind, "meta.k8s.io", "", [cause])
    return requested


def report(
    kind: Kind, obj: JsonObject, *, mode: str, duplicates: tuple[str, ...], unknown: list[str]
) -> list[str]:
    """Warnings to send. Raises StatusError 400 in Strict mode when there is anything to say."""
    problems = [*duplicates, *(f'unknown field "{path}"' for path in unknown)]
    if not problems or mode == "Ignore":
        return []
    if mode == "Warn":
        return problems
    why = f"strict decoding error: {', '.join(problems)}"
    raise Undecodable(kind.kind, kind.version, why, found=str(obj.get("kind") or ""))
