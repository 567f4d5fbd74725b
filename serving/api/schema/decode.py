"""Refuse wrong types in the words of Go's JSON decoder, as Knative's webhooks do.

Go keeps the first mismatch and goes on, except that a type with a decoder of its own (quantity, time, URL) ends
the decoding at once; `null` is accepted everywhere and means absent. Unknown fields are ignored.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from serving.api.names import quote
from serving.api.quantity import QuantityError, parse_quantity
from serving.api.schema.nodes import Array, Dictionary, Node, Scalar, Special, Struct, go_type
from serving.api.timestamps import parse_nanos

_INT_BITS: Final = {"int32": 31, "int64": 63}
_QUANTITY_TEXT: Final = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}", re.DOTALL)


class DecodeError(ValueError):
    """The JSON value does not fit the type. The text is Go's and names the field, the type and what came."""


def check_types(root: Struct, value: Any) -> None:
    """Raises DecodeError for the first value of a wrong type below `value`."""
    walker = _Walker(root)
    walker.visit(root, value, root.name, "")
    if walker.first is not None:
        raise DecodeError(walker.first)


class _Walker:
    def __init__(self, root: Struct) -> None:
        self.root = root
        self.first: str | None = None

    def mismatch(self, got: str, owner: str, path: str, wanted: str) -> None:
        if self.first is not None:
            return
        where = f"Go struct field {owner}.{path}" if path else "Go value"
        self.first = f"json: cannot unmarshal {got} into {where} of type {wanted}"

    def visit(self, node: Node, value: Any, owner: str, path: str) -> None:
        """`owner`: innermost struct around the value; `path`: fields from the root, embedded structs included."""
        if value is None:
            return
        if isinstance(node, Struct):
            self.visit_struct(node, value, owner, path)
        elif isinstance(node, Array):
            if not isinstance(value, list):
                self.mismatch(_kind(value), owner, path, node.go_type)
                return
            for item in value:
                self.visit(node.item, item, owner, path)
        elif isinstance(node, Dictionary):
            if not isinstance(value, dict):
                self.mismatch(_kind(value), owner, path, node.go_type)
                return
            for item in value.values():
                self.visit(node.value, item, owner, path)
        elif isinstance(node, Scalar):
            self.visit_scalar(node, value, owner, path)
        elif isinstance(node, Special):
            self.visit_special(node, value, owner, path)
        elif not isinstance(value, dict):
            self.mismatch(_kind(value), owner, path, node.go)

    def visit_struct(self, node: Struct, value: Any, owner: str, path: str) -> None:
        if not isinstance(value, dict):
            self.mismatch(_kind(value), owner, path, node.go)
            return
        for key, inner in value.items():
            item = node.fields.get(key)
            if item is None:
                continue
            parts = [part for part in (path, item.via, key) if part]
            self.visit(item.node, inner, node.name, ".".join(parts))

    def visit_scalar(self, node: Scalar, value: Any, owner: str, path: str) -> None:
        if node.kind == "string" and isinstance(value, str):
            return
        if node.kind == "bool" and isinstance(value, bool):
            return
        got = _kind(value)
        if node.kind in _INT_BITS and got == "number":
            limit = 1 << _INT_BITS[node.kind]
            if isinstance(value, int) and -limit <= value < limit:
                return
            got = f"number {json.dumps(value)}"
        self.mismatch(got, owner, path, node.go_type)

    def visit_special(self, node: Special, value: Any, owner: str, path: str) -> None:
        got = _kind(value)
        if node.kind == "quantity":
            if got not in ("string", "number"):
                raise DecodeError(_QUANTITY_TEXT)
            try:
                parse_quantity(value)
            except QuantityError:
                raise DecodeError(_QUANTITY_TEXT) from None
        elif node.kind == "int-or-string":
            if got != "string":
                self.visit_scalar(Scalar("int32"), value, owner, path)
        elif got != "string":
            self.mismatch(got, owner, path, go_type(node))
        elif node.kind == "time":
            _check_time(value)
        else:
            _check_url(value)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _check_time(text: str) -> None:
    try:
        parse_nanos(text)
    except ValueError:
        layout = "2006-01-02T15:04:05Z07:00"
        raise DecodeError(
            f"parsing time {quote(text)} as {quote(layout)}: cannot parse {quote(text)} as {quote('2006')}"
        ) from None


def _check_url(text: str) -> None:
    bad = _BAD_ESCAPE.search(text)
    if bad is not None:
        raise DecodeError(f"parse {quote(text)}: invalid URL escape {quote(bad[0])}")
