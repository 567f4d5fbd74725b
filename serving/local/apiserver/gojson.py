"""What Go's JSON decoder says of a body that it cannot read: clients show these words, and some match on them."""

from __future__ import annotations

import json
from typing import Any, Final

_SUMMARY: Final = 30
_VERSION_AND_KIND: Final = (
    r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
)
ANY_OBJECT: Final = "map[string]interface {}"


def type_name(value: Any) -> str:
    """What Go calls a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


def misfit(value: Any, wanted: str = _VERSION_AND_KIND) -> str:
    """A value of another type than `wanted`, by default than anything that has a version and a kind."""
    return f"json: cannot unmarshal {type_name(value)} into Go value of type {wanted}"


def problem(data: bytes) -> str:
    """Why the data is no JSON; empty = it is."""
    text = data.decode(errors="replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return _told(text, error)
    except RecursionError:
        return f"invalid character '{'[' if '[' in text else '{'}' exceeded max depth"
    return ""


def summary(data: bytes) -> str:
    """The beginning of a body, as Kubernetes quotes it."""
    if not data:
        return "<empty>"
    start = data[:_SUMMARY]
    shown = start.decode(errors="replace") if data[:1] == b"{" else start.hex()
    return shown if len(data) <= _SUMMARY else f"{shown} ..."


def _told(text: str, error: json.JSONDecodeError) -> str:
    rest = text[error.pos :].lstrip()
    if not rest:
        return "unexpected end of JSON input"
    places = {
        "Extra data": "after top-level value",
        "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
        "Expecting ':' delimiter": "after object key",
        "Expecting ',' delimiter": "after object key:value pair",
    }
    return f"invalid character '{rest[0]}' {places.get(error.msg, 'looking for beginning of value')}"
