"""The part of Go's text/template that host and container names use.

`{{.Name}}`, `{{.Labels.team}}`, `{{index .Annotations "sub"}}`, literals, comments and trim markers. Anything
else (pipelines, conditions, functions) is refused when the ConfigMap is written, with the offending action named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Values: TypeAlias = Mapping[str, str | Mapping[str, str]]

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_FIELD = re.compile(r"\.(\w+)(?:\.(\w+))?", re.ASCII)
_INDEX = re.compile(r'index\s+\.(\w+)\s+(?:"([^"\\]*)"|`([^`]*)`)', re.ASCII)
_COMMENT = re.compile(r"/\*.*\*/", re.DOTALL)


class TemplateError(ValueError):
    """The template cannot be read, or names a field that does not exist."""


@dataclass(frozen=True, slots=True)
class _Literal:
    text: str


@dataclass(frozen=True, slots=True)
class _Lookup:
    field: str
    key: str | None
    dotted: bool
    action: str


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. `text` is its source, by which two templates are equal."""

    text: str
    name: str
    parts: tuple[_Literal | _Lookup, ...]

    def render(self, values: Values) -> str:
        """The text with every action replaced. Raises TemplateError for a field that `values` lacks."""
        return "".join(self._value(part, values) for part in self.parts)

    def _value(self, part: _Literal | _Lookup, values: Values) -> str:
        if isinstance(part, _Literal):
            return part.text
        where = f"template: {self.name}: <{part.action}>"
        if part.field not in values:
            allowed = ", ".join(f".{name}" for name in values)
            raise TemplateError(f"{where}: can't evaluate field {part.field}; known fields: {allowed}")
        value = values[part.field]
        if part.key is None:
            if not isinstance(value, str):
                raise TemplateError(f"{where}: .{part.field} is a map; use .{part.field}.key or index")
            return value
        if isinstance(value, str):
            raise TemplateError(f"{where}: .{part.field} is a text and has no field {part.key}")
        # Go prints this for a missing key of a map reached by a dot, and the empty text for index.
        return value.get(part.key, "<no value>" if part.dotted else "")


def parse_template(text: str, *, name: str) -> Template:
    """Raises TemplateError naming the action that is not understood."""
    parts: list[_Literal | _Lookup] = []
    at = 0
    trim_next = False
    for match in _ACTION.finditer(text):
        literal = text[at : match.start()]
        _append_literal(parts, literal, trim_left=trim_next, trim_right=bool(match[1]))
        trim_next = bool(match[3])
        at = match.end()
        action = match[2].strip()
        if not _COMMENT.fullmatch(action):
            parts.append(_lookup(action, name))
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError(f"template: {name}: unclosed action in {text!r}")
    _append_literal(parts, rest, trim_left=trim_next, trim_right=False)
    return Template(text, name, tuple(parts))


def _append_literal(parts: list[_Literal | _Lookup], text: str, *, trim_left: bool, trim_right: bool) -> None:
    text = text.lstrip() if trim_left else text
    text = text.rstrip() if trim_right else text
    if text:
        parts.append(_Literal(text))


def _lookup(action: str, name: str) -> _Lookup:
    field = _FIELD.fullmatch(action)
    if field is not None:
        return _Lookup(field[1], field[2], dotted=True, action=action)
    index = _INDEX.fullmatch(action)
    if index is not None:
        return _Lookup(index[1], index[2] if index[2] is not None else index[3], dotted=False, action=action)
    raise TemplateError(
        f"template: {name}: action {{{{{action}}}}} is not supported; "
        'use {{.Field}}, {{.Map.key}} or {{index .Map "key"}}'
    )
