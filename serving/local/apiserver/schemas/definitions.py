"""Reads `definitions.json.gz`, once, when the first patch or document needs it."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from serving.api.meta import JsonObject

REFERENCE: Final = "#/components/schemas/"
META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
OBJECT_META: Final = META + "ObjectMeta"


class _File(msgspec.Struct, frozen=True):
    release: str
    kinds: dict[str, str]
    """`apiVersion/Kind` to the name of its definition."""
    definitions: dict[str, JsonObject]


@cache
def _file() -> _File:
    data = Path(__file__).with_name("definitions.json.gz").read_bytes()
    return msgspec.json.decode(gzip.decompress(data), type=_File)


def definitions() -> dict[str, JsonObject]:
    """OpenAPI v3 schemas by name. They refer to each other; read-only."""
    return _file().definitions


def definition_of(api_version: str, kind: str) -> str | None:
    """The name of the definition of a kind; None = not a built-in one."""
    return _file().kinds.get(f"{api_version}/{kind}")


def described(definition: str, field: str) -> str:
    """The description of a field; empty = there is none."""
    found = (definitions()[definition].get("properties") or {}).get(field) or {}
    return str(found.get("description") or "")


def referred(schema: JsonObject) -> str | None:
    """The definition that a schema stands for, written as `$ref` or as the only item of `allOf`."""
    reference = schema.get("$ref")
    if reference is None:
        parts = schema.get("allOf")
        if parts and len(parts) == 1:
            reference = parts[0].get("$ref")
    return reference.removeprefix(REFERENCE) if isinstance(reference, str) else None
