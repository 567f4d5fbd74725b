"""JSON patch (RFC 6902), as lenient as kube-apiserver: `replace` may add, indices may be negative."""

from __future__ import annotations

import copy
from typing import Any, Final

_MISSING: Any = object()
_OPERATIONS: Final = ("add", "remove", "replace", "move", "copy", "test")


class CannotApply(Exception):
    """An operation that is none, or does not fit the document."""


def apply(document: Any, operations: list[dict[str, Any]]) -> Any:
    """The patched document; `document` is left as it is. Raises CannotApply."""
    holder = {"": copy.deepcopy(document)}
    for operation in operations:
        _apply_one(holder, operation)
    return holder[""]


def _apply_one(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    name, path = operation.get("op"), operation.get("path")
    if name not in _OPERATIONS or not isinstance(path, str):
        raise CannotApply(f"no operation: {operation}")
    container, key = _find(holder, path)
    match name:
        case "add":
            _add(container, key, _value(operation))
        case "replace":
            _set(container, key, _value(operation))
        case "remove":
            _remove(container, key)
        case "test":
            found = _get(container, key)
            if (None if found is _MISSING else found) != operation.get("value"):
                raise CannotApply(f"{path} is something else")
        case _:
            source, source_key = _find(holder, str(operation.get("from")))
            value = _get(source, source_key)
            if name == "move":
                _remove(source, source_key)
                container, key = _find(holder, path)
            _add(container, key, None if value is _MISSING else copy.deepcopy(value))


def _value(operation: dict[str, Any]) -> Any:
    return copy.deepcopy(operation.get("value"))


def _find(holder: dict[str, Any], path: str) -> tuple[Any, str]:
    """The object or list that holds the last part of a path, and that part."""
    parts = path.split("/")
    if path and parts[0]:
        raise CannotApply(f"{path} does not start with a slash")
    container: Any = holder
    for part in parts[:-1]:
        container = _get(container, _unescaped(part))
        if not isinstance(container, (dict, list)):
            raise CannotApply(f"there is no {path}")
    return container, _unescaped(parts[-1])


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _index(key: str, size: int) -> int:
    try:
        index = int(key)
    except ValueError:
        raise CannotApply(f"{key} is no index") from None
    if not -size <= index < size:
        raise CannotApply(f"index {index} is out of range")
    return index + size if index < 0 else index


def _get(container: Any, key: str) -> Any:
    if isinstance(container, list):
        return container[_index(key, len(container))]
    return container.get(key, _MISSING)


def _add(container: Any, key: str, value: Any) -> None:
    if isinstance(container, list):
        index = len(container) if key == "-" else _index(key, len(container) + 1)
        container.insert(index, value)
    else:
        container[key] = value


def _set(container: Any, key: str, value: Any) -> None:
    if isinstance(container, list):
        container[_index(key, len(container))] = value
    else:
        container[key] = value


def _remove(container: Any, key: str) -> None:
    if isinstance(container, list):
        del container[_index(key, len(container))]
    elif key in container:
        del container[key]
    else:
        raise CannotApply(f"there is no {key}")
