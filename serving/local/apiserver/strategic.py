"""Strategic merge patch of built-in kinds: lists of named things are merged by their key, other lists replaced.

Directives: `$patch: delete|replace|merge`, `$deleteFromPrimitiveList/f`, `$setElementOrder/f`, `$retainKeys`.
Which lists are merged, and by which key, is in the OpenAPI schemas (`x-kubernetes-patch-strategy` and
`-merge-key`).
"""

from __future__ import annotations

from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import gojson
from serving.local.apiserver.errors import StatusError, bad_request
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.schemas.definitions import definition_of, definitions, referred

_SET: Final = ""
"""Merge key of a list of plain values that is a set."""

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_FROM: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"
_NO_SCHEMA: Final[JsonObject] = {}


def apply(obj: JsonObject, change: object, kind: Kind) -> JsonObject:
    """The patched object; `obj` is left as it is. Raises StatusError 400 or 500 for what cannot be applied."""
    if not isinstance(change, dict):
        raise bad_request(gojson.misfit(change, gojson.ANY_OBJECT))
    name = definition_of(kind.api_version, kind.kind)
    return _merge_object(obj, change, definitions()[name] if name else _NO_SCHEMA)


def _resolved(schema: JsonObject) -> JsonObject:
    name = referred(schema)
    return definitions()[name] if name else schema


def _field(schema: JsonObject, name: str) -> JsonObject:
    found = (schema.get("properties") or {}).get(name)
    if found is None:
        additional = schema.get("additionalProperties")
        found = additional if isinstance(additional, dict) else _NO_SCHEMA
    return found or _NO_SCHEMA


def _strategies(field: JsonObject) -> tuple[str, ...]:
    return tuple(str(field.get("x-kubernetes-patch-strategy") or "").split(","))


def _merge_key(field: JsonObject) -> str | None:
    """The key by which the items of a list are merged; None = the list is replaced."""
    if "merge" not in _strategies(field):
        return None
    return str(field.get("x-kubernetes-patch-merge-key") or _SET)


def _merge_object(target: JsonObject, change: JsonObject, schema: JsonObject) -> JsonObject:
    if _PATCH in change:
        directive = change[_PATCH]
        if directive == "replace":
            return {name: _strip(value) for name, value in change.items() if name != _PATCH and value is not None}
        if directive == "delete":
            return {}
        if directive != "merge":
            raise bad_request(f"Unknown patch type found: {directive}")
    result = _retained(target, change)
    for name, value in change.items():
        if name.startswith(_DELETE_FROM):
            field = name.removeprefix(_DELETE_FROM)
            if isinstance(result.get(field), list) and isinstance(value, list):
                result[field] = [item for item in result[field] if item not in value]
    for name, value in change.items():
        if name.startswith("$"):
            continue
        if value is None:
            result.pop(name, None)
        else:
            _merge_field(result, name, value, change, _field(schema, name))
    for name, order in change.items():
        if name.startswith(_ORDER):
            _apply_order(result, target, name.removeprefix(_ORDER), order, schema)
    return result


def _retained(target: JsonObject, change: JsonObject) -> JsonObject:
    retained = change.get(_RETAIN)
    if not isinstance(retained, list):
        return dict(target)
    for name, value in change.items():
        if value is not None and not name.startswith("$") and name not in retained:
            raise StatusError(500, "", f"{_RETAIN}: the patch sets {name}, which it does not list")
    return {name: value for name, value in target.items() if name in retained}


def _merge_field(result: JsonObject, name: str, value: Any, change: JsonObject, field: JsonObject) -> None:
    current = result.get(name)
    if isinstance(value, dict):
        if isinstance(current, dict) and "replace" not in _strategies(field):
            result[name] = _merge_object(current, value, _resolved(field))
        else:
            result[name] = _strip(value)
        return
    key = _merge_key(field)
    if not isinstance(value, list) or key is None:
        result[name] = _strip(value)
        return
    items = current if isinstance(current, list) else []
    result[name] = _merge_list(items, value, key, _resolved(field.get("items") or _NO_SCHEMA))


def _apply_order(result: JsonObject, target: JsonObject, name: str, order: object, schema: JsonObject) -> None:
    key = _merge_key(_field(schema, name))
    if key is None or not isinstance(order, list) or not isinstance(result.get(name), list):
        return
    before = target.get(name)
    result[name] = _ordered(result[name], order, before if isinstance(before, list) else [], key)


def _merge_list(target: list[Any], change: list[Any], key: str, schema: JsonObject) -> list[Any]:
    if key == _SET:
        merged = list(dict.fromkeys([*target, *change])) if _plain(target + change) else change
        return _ordered(merged, change, target, key)
    replaced, additions, deleted = _special_items(change, key)
    if replaced:
        return [_strip(item) for item in additions]
    result = [item for item in target if isinstance(item, dict) and item.get(key) not in deleted]
    for item in additions:
        at = next((index for index, have in enumerate(result) if have.get(key) == item[key]), None)
        if at is None:
            result.append(_merge_object({}, item, schema))
        else:
            result[at] = _merge_object(result[at], item, schema)
    return _ordered(result, additions, target, key)


def _plain(items: list[Any]) -> bool:
    return all(isinstance(item, (str, int, float, bool)) for item in items)


def _special_items(change: list[Any], key: str) -> tuple[bool, list[JsonObject], list[Any]]:
    """Whether the list is replaced, the items to merge, and the keys of those to delete.

    Raises StatusError 500.
    """
    replaced = False
    additions: list[JsonObject] = []
    deleted: list[Any] = []
    for item in change:
        if not isinstance(item, dict):
            raise StatusError(500, "", "all elements of a list that is merged must be objects")
        directive = item.get(_PATCH)
        if directive == "replace":
            replaced = True
            continue
        if directive not in (None, "delete", "merge"):
            raise StatusError(500, "", f"Unknown patch type found: {directive}")
        if key not in item:
            if directive == "delete":
                raise StatusError(500, "", f"delete patch type with no merge key defined: {key}")
            raise StatusError(500, "", f"map: {_go_map(item)} does not contain declared merge key: {key}")
        if directive == "delete":
            deleted.append(item[key])
        else:
            additions.append(item)
    return replaced, additions, deleted


def _go_map(item: JsonObject) -> str:
    """As Go prints a map."""
    return "map[" + " ".join(f"{name}:{_go_value(item[name])}" for name in sorted(item)) + "]"


def _go_value(value: Any) -> str:
    if isinstance(value, dict):
        return _go_map(value)
    if isinstance(value, list):
        return "[" + " ".join(map(_go_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)


def _ordered(items: list[Any], order: list[Any], before: list[Any], key: str) -> list[Any]:
    """Items of `order` in its order; each other one, in the order of `before`, stands before the first of them
    that it preceded there."""

    def identity(item: Any) -> Any:
        return item.get(key) if key != _SET and isinstance(item, dict) else item

    wanted = [identity(item) for item in order]
    live = [identity(item) for item in before]
    named = sorted((i for i in items if identity(i) in wanted), key=lambda item: wanted.index(identity(item)))
    others = [item for item in items if identity(item) not in wanted]
    others.sort(key=lambda item: live.index(identity(item)) if identity(item) in live else len(live))
    result: list[Any] = []
    while others and named:
        left, right = identity(others[0]), identity(named[0])
        precedes = left in live and right in live and live.index(left) < live.index(right)
        result.append(others.pop(0) if precedes else named.pop(0))
    return result + named + others


def _strip(value: Any) -> Any:
    """A new value without directives and nulls."""
    if isinstance(value, dict):
        return {
            name: _strip(item) for name, item in value.items() if not name.startswith("$") and item is not None
        }
    if isinstance(value, list):
        return [_strip(item) for item in value]
    return value
