"""Vocabulary of the tables: a node describes a JSON value by the Go type that upstream decodes it into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Scalar:
    """`kind` is string, bool, int32, int64 or float64; `go` the type's name where it has one of its own."""

    kind: str
    go: str = ""
    default: Any = None
    """Default of the CRD's schema, applied by the API server."""

    @property
    def go_type(self) -> str:
        return self.go or self.kind


@dataclass(frozen=True, slots=True)
class Special:
    """A type with a decoder of its own: quantity, time, int-or-string or url."""

    kind: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """Any object; kept, compared verbatim, never looked into."""

    go: str


@dataclass(frozen=True, slots=True)
class Array:
    item: Node
    go: str = ""
    keys: tuple[str, ...] = ()
    """Keys of a list of type map in the CRD's schema."""
    atomic: bool = False

    @property
    def go_type(self) -> str:
        return self.go or f"[]{go_type(self.item)}"


@dataclass(frozen=True, slots=True)
class Dictionary:
    value: Node
    go: str = ""
    atomic: bool = False

    @property
    def go_type(self) -> str:
        return self.go or f"map[string]{go_type(self.value)}"


@dataclass(frozen=True, slots=True)
class Field:
    node: Node
    pointer: bool = False
    """The zero value differs from absent."""
    served: bool = True
    """Part of the CRD's schema; the others are pruned on write."""
    opaque: bool = False
    """The CRD keeps whatever is below (fields behind a feature flag)."""
    via: str = ""
    """Embedded Go struct that holds the field; appears in decode errors."""
    go: str = ""
    """Go name where it is not the JSON name with a capital letter."""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Struct:
    go: str
    fields: Mapping[str, Field] = field(hash=False)
    required: tuple[str, ...] = ()
    """Required by the CRD's schema."""
    atomic: bool = False
    about: str = ""

    @property
    def name(self) -> str:
        return self.go.rpartition(".")[2]


Node: TypeAlias = Scalar | Special | Opaque | Array | Dictionary | Struct

STRING = Scalar("string")
BOOL = Scalar("bool")
INT32 = Scalar("int32")
INT64 = Scalar("int64")
QUANTITY = Special("quantity")
TIME = Special("time")
INT_OR_STRING = Special("int-or-string")
URL = Special("url")
STRINGS = Array(STRING, atomic=True)


def named(go: str, default: Any = None) -> Scalar:
    """A string type with a name of its own."""
    return Scalar("string", go, default)


def struct(
    go: str,
    /,
    *embedded: Mapping[str, Field],
    required: tuple[str, ...] = (),
    atomic: bool = False,
    about: str = "",
    **fields: Node | Field,
) -> Struct:
    """A table; `embedded` are fields of embedded structs (see `inline`), which come first."""
    table: dict[str, Field] = {}
    for more in embedded:
        table.update(more)
    table.update({key: as_field(value) for key, value in fields.items()})
    return Struct(go, table, required, atomic, about)


def as_field(value: Node | Field) -> Field:
    return value if isinstance(value, Field) else Field(value)


def pointer(node: Node, **options: Any) -> Field:
    return Field(node, pointer=True, **options)


def pruned(value: Node | Field) -> Field:
    """Known to the Go type, absent from the CRD."""
    return replace(as_field(value), served=False)


def opaque(value: Node | Field) -> Field:
    """Typed for decoding, kept as it is by the CRD."""
    return replace(as_field(value), opaque=True)


def described(value: Node | Field, about: str) -> Field:
    return replace(as_field(value), about=about)


def inline(via: str, value: Struct) -> dict[str, Field]:
    """The fields of an embedded struct, for the table of the embedding one."""
    return {key: replace(item, via=f"{via}.{item.via}" if item.via else via) for key, item in value.fields.items()}


def go_type(node: Node) -> str:
    if isinstance(node, Special):
        return {"quantity": "resource.Quantity", "time": "string", "int-or-string": "int32", "url": "string"}[
            node.kind
        ]
    if isinstance(node, Struct | Opaque):
        return node.go
    return node.go_type


def is_set(item: Field, value: Any) -> bool:
    """Whether Go would see something else than the zero value."""
    if value is None:
        return False
    if item.pointer or isinstance(item.node, Array | Dictionary):
        return True
    if isinstance(item.node, Struct):
        fields = item.node.fields
        return any(key in fields and is_set(fields[key], inner) for key, inner in value.items())
    return bool(value)
