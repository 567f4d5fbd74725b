"""Reads `builtin.json`, once, when the first protobuf body or built-in schema needs it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec


class Field(msgspec.Struct, frozen=True, array_like=True):
    """One field of a message. `map_value` is the value type of a string map, else empty. `inline`: JSON writes the
    fields of the inner message directly into the outer one."""

    name: str
    type: str
    repeated: bool = False
    map_value: str = ""
    inline: bool = False


class _File(msgspec.Struct, frozen=True):
    kinds: dict[str, str]
    """`apiVersion/Kind` to message."""
    messages: dict[str, dict[int, Field]]


@cache
def _file() -> _File:
    return msgspec.json.decode(Path(__file__).with_name("builtin.json").read_bytes(), type=_File)


def messages() -> dict[str, dict[int, Field]]:
    """Fields of each message by number."""
    return _file().messages


def message_of(api_version: str, kind: str) -> str | None:
    """The message of a kind; None = not in the table."""
    return _file().kinds.get(f"{api_version}/{kind}")
