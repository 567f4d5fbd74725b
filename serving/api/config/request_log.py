"""The part of Go's text/template that request logs use, and what each action asks for. Pure.

A request log is written by Envoy, so a template must be a text with fields in it: `{{.Request.Method}}`,
`{{js .Request.UserAgent}}`, `{{index .Request.Header "X-Custom"}}`, `{{.Request.Header.Get "X-Custom"}}`.
Conditions, loops and other functions cannot be had. A template that is one JSON object, as upstream's default, is
kept as one: what requests bring along is escaped. In any other text nothing is, and so `js` is refused there.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeAlias

import msgspec

from serving.api.names import quote

FIELDS: Final = frozenset(
    {
        "Request.Method",
        "Request.RequestURI",
        "Request.URL",
        "Request.URL.Path",
        "Request.Host",
        "Request.Proto",
        "Request.ContentLength",
        "Request.UserAgent",
        "Request.Referer",
        "Request.RemoteAddr",
        "Response.Code",
        "Response.Size",
        "Response.Latency",
        "Revision.Name",
        "Revision.Namespace",
        "Revision.Service",
        "Revision.Configuration",
        "Revision.PodIP",
        "TraceID",
    }
)
HEADER: Final = "Request.Header"

_ACTION = re.compile(r"\{\{(?:-\s)?(.*?)(?:\s-)?\}\}", re.DOTALL)
_WORD = r"(?:\"([^\"\\]*)\"|`([^`]*)`)"
_HEADER_ACTION = re.compile(rf"(?:index \.Request\.Header|\.Request\.Header\.Get)\s+{_WORD}(?:\s+0)?", re.ASCII)
_FIELD_ACTION = re.compile(r"\.([A-Za-z.]+?)(?:\s*\|\s*js)?", re.ASCII)
_MARK: Final = "\x01"


class TemplateError(ValueError):
    """A template that Envoy cannot write."""


class Field(msgspec.Struct, frozen=True):
    """One of FIELDS, or `Request.Header` with the name of a header."""

    name: str
    header: str = ""


Part: TypeAlias = str | Field
Text: TypeAlias = tuple[Part, ...]


class Bare(msgspec.Struct, frozen=True):
    """A field that stands where JSON has a value, without quotes."""

    field: Field


class Log(msgspec.Struct, frozen=True):
    """`tree`: JSON whose strings are `Text` and whose values may be `Bare`; None for any other text."""

    text: Text
    tree: Any = None


def parse_log(template: str) -> Log:
    """Raises TemplateError, which names the action that is not understood."""
    parts: list[Part] = []
    escaped = False
    at = 0
    for match in _ACTION.finditer(template):
        parts.append(template[at : match.start()])
        field, escapes = _field(match[1].strip())
        escaped |= escapes
        parts.append(field)
        at = match.end()
    parts.append(template[at:])
    if any("{{" in part for part in parts if isinstance(part, str)):
        raise TemplateError("unclosed action")
    text = tuple(part for part in parts if part != "")
    tree = _tree(parts)
    if tree is None and escaped:
        raise TemplateError("js is only possible in a template that is one JSON object")
    return Log(text, tree)


def _field(action: str) -> tuple[Field, bool]:
    """And whether it is to be escaped."""
    header = _HEADER_ACTION.fullmatch(action)
    if header is not None:
        return Field(HEADER, header[1] if header[1] is not None else header[2]), False
    bare = action.removeprefix("js").strip().removeprefix("(").removesuffix(")")
    header = _HEADER_ACTION.fullmatch(bare)
    if header is not None:
        return Field(HEADER, header[1] if header[1] is not None else header[2]), True
    found = _FIELD_ACTION.fullmatch(bare)
    if found is not None and found[1] in FIELDS:
        return Field(found[1]), action.startswith("js") or "|" in action
    known = ", ".join(f".{name}" for name in sorted(FIELDS))
    raise TemplateError(
        f"action {quote('{{' + action + '}}')} cannot be logged by Envoy; possible are {known} and "
        'index .Request.Header "Name", each with or without js'
    )


def _tree(parts: list[Part]) -> Any:
    """The template as JSON, None when it is none."""
    source: list[str] = []
    in_string = False
    for number, part in enumerate(parts):
        if isinstance(part, Field):
            mark = f"\\u0001{number}\\u0001"
            source.append(mark if in_string else f'"{mark}!"')
            continue
        source.append(part)
        in_string ^= len(re.findall(r'(?<!\\)"', part)) % 2 == 1
    try:
        read = json.loads("".join(source))
    except ValueError:
        return None
    return _restored(read, parts) if isinstance(read, dict) else None


def _restored(value: Any, parts: list[Part]) -> Any:
    if isinstance(value, dict):
        return {key: _restored(item, parts) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item, parts) for item in value]
    if not isinstance(value, str):
        return value
    pieces = value.split(_MARK)
    if len(pieces) == 3 and pieces[0] == "" and pieces[2] == "!":
        field = parts[int(pieces[1])]
        assert isinstance(field, Field)  # noqa: S101 - marks stand for fields
        return Bare(field)
    found = (parts[int(piece)] if number % 2 else piece for number, piece in enumerate(pieces))
    return tuple(piece for piece in found if piece != "")
