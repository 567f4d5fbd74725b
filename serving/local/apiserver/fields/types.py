"""How the fields of a kind merge, read from its OpenAPI schema.

Lists are atomic unless `x-kubernetes-list-type` (or, for built-in kinds, the patch strategy) says that they are
maps or sets; objects are merged field by field unless `x-kubernetes-map-type` is atomic. What no schema describes
is merged by what it looks like: objects field by field, lists as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.fields.fieldset import SELF
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.schemas.definitions import OBJECT_META, definition_of, definitions, referred

_encode = msgspec.json.Encoder(order="sorted").encode
_PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
_SCALARS: Final = ("string", "integer", "number", "boolean")


class Type:
    """`atomic`: the value is one field, whatever it holds. `element` is the type of fields that are not in
    `fields` (None: there are none). `keys` are the fields that identify an item of a list, empty for a set; `item`
    is None unless the list is a map or a set. `present` are fields that the typed form always has, as empty
    objects; `listed` those that it has as null when nothing is in them."""

    __slots__ = ("atomic", "defaults", "element", "fields", "item", "keys", "listed", "present")

    def __init__(self) -> None:
        self.atomic = False
        self.fields: Mapping[str, Type] = {}
        self.element: Type | None = None
        self.item: Type | None = None
        self.keys: tuple[str, ...] = ()
        self.defaults: JsonObject = {}
        self.present: tuple[str, ...] = ()
        self.listed: frozenset[str] = frozenset()

    def child(self, name: str) -> Type:
        found = self.fields.get(name)
        return found if found is not None else self.element or DEDUCED

    def names(self, items: list[Any]) -> list[str]:
        """The path element of each item of a list that is a map or a set. Raises KeyError for an item without its
        keys."""
        if not self.keys:
            return ["v:" + _encode(item).decode() for item in items]
        return [self._name(item, index) for index, item in enumerate(items)]

    def _name(self, item: Any, index: int) -> str:
        if not isinstance(item, dict):
            raise KeyError(f"element {index}: associative list with keys has an element that is not an object")
        if len(self.keys) == 1 and type(name := item.get(self.keys[0])) is str:
            return f'k:{{"{self.keys[0]}":{_encode(name).decode()}}}'
        found: JsonObject = {}
        for key in self.keys:
            value = item.get(key, self.defaults.get(key))
            if value is not None:
                found[key] = value
        if not found:
            listed = " ".join(f'"{key}"' for key in self.keys)
            raise KeyError(
                f"element {index}: associative list with keys has an element that omits all key fields [{listed}] "
                "(and doesn't have default values for any key fields)"
            )
        return "k:" + _encode(found).decode()


DEDUCED: Final = Type()
DEDUCED.element = DEDUCED
ATOMIC: Final = Type()
ATOMIC.atomic = True


def type_of(kind: Kind) -> Type:
    if kind.custom:
        return _custom_type(kind)
    return _builtin_type(kind.api_version, kind.kind)


@cache
def _builtin_type(api_version: str, kind: str) -> Type:
    name = definition_of(api_version, kind)
    return DEDUCED if name is None else _Compiler().named(name)


_CUSTOM: dict[int, tuple[JsonObject, Type]] = {}


def _custom_type(kind: Kind) -> Type:
    """Kept for each schema object; a definition that changes brings a new one."""
    schema = kind.schema
    if schema is None:
        return DEDUCED
    found = _CUSTOM.get(id(schema))
    if found is None or found[0] is not schema:
        if len(_CUSTOM) > 500:
            _CUSTOM.clear()
        compiler = _Compiler(typed=False)
        made = compiler.schema(schema, preserve=False)
        made.fields = {
            **made.fields,
            "apiVersion": ATOMIC,
            "kind": ATOMIC,
            "metadata": _metadata_type(),
        }
        found = _CUSTOM[id(schema)] = (schema, made)
    return found[1]


@cache
def _metadata_type() -> Type:
    return _Compiler().named(OBJECT_META)


class _Compiler:
    """One type per definition, so that recursive definitions end. `typed`: the kind is a Go struct to the server,
    which writes some fields even when they are empty."""

    _known: Final[dict[str, Type]] = {}

    def __init__(self, *, typed: bool = True) -> None:
        self._typed = typed

    def named(self, name: str) -> Type:
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = Type()
            if name.endswith((".RawExtension", ".Quantity", ".FieldsV1")):
                found.atomic = True
            else:
                self._fill(found, definitions()[name], preserve=False)
        return found

    def schema(self, schema: JsonObject, *, preserve: bool) -> Type:
        name = referred(schema)
        if name is not None:
            found = self.named(name)
            return ATOMIC if schema.get("x-kubernetes-map-type") == "atomic" else found
        made = Type()
        self._fill(made, schema, preserve=preserve)
        return made

    def _fill(self, made: Type, schema: JsonObject, *, preserve: bool) -> None:
        preserve = preserve or bool(schema.get(_PRESERVE))
        kind = schema.get("type")
        if kind in _SCALARS or schema.get("x-kubernetes-map-type") == "atomic":
            made.atomic = True
        elif kind == "array":
            self._fill_list(made, schema, preserve=preserve)
        else:
            self._fill_object(made, schema, preserve=preserve)

    def _fill_object(self, made: Type, schema: JsonObject, *, preserve: bool) -> None:
        properties = schema.get("properties") or {}
        made.fields = {name: self.schema(inner, preserve=preserve) for name, inner in properties.items()}
        made.present = tuple(
            name for name, inner in properties.items() if inner.get("default") == {} and referred(inner)
        )
        made.listed = frozenset(
            name
            for name in (schema.get("required") or () if self._typed else ())
            if (properties.get(name) or {}).get("type") == "array"
        )
        if schema.get("x-kubernetes-embedded-resource"):
            made.fields = {**made.fields, "metadata": _metadata_type()}
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict):
            made.element = self.schema(additional, preserve=preserve)
        elif additional is True or preserve or not properties:
            made.element = DEDUCED

    def _fill_list(self, made: Type, schema: JsonObject, *, preserve: bool) -> None:
        how = schema.get("x-kubernetes-list-type")
        keys = schema.get("x-kubernetes-list-map-keys")
        if how is None and str(schema.get("x-kubernetes-patch-strategy", "")).startswith("merge"):
            key = schema.get("x-kubernetes-patch-merge-key")
            how, keys = ("map", [key]) if key else ("set", None)
        if how not in ("map", "set"):
            made.atomic = True
            return
        items = schema.get("items") or {}
        made.item = self.schema(items, preserve=preserve)
        if how == "map":
            made.keys = tuple(keys or ())
            made.defaults = _defaults(items)


def _defaults(items: JsonObject) -> JsonObject:
    name = referred(items)
    properties = (definitions()[name] if name else items).get("properties") or {}
    return {
        key: inner["default"] for key, inner in properties.items() if "default" in inner and inner["default"] != {}
    }


def with_named_fields(tree: dict[str, Any], type_: Type) -> dict[str, Any]:
    """The set and, besides, every declared field that has something below it in the set."""
    result: dict[str, Any] = {}
    for name, node in tree.items():
        if not node or name == SELF:
            result[name] = node
            continue
        if name.startswith("f:"):
            inner = with_named_fields(node, type_.child(name[2:]))
            if name[2:] in type_.fields:
                inner = {SELF: {}, **inner}
        else:
            inner = with_named_fields(node, type_.item or DEDUCED)
        result[name] = inner
    return result
