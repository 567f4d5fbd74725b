"""Paths of files in a Pod's spec, and the modes of files. Pure."""

from __future__ import annotations

from typing import Any, Final

from serving.local.apiserver import errors
from serving.local.apiserver.errors import Cause

_MODE_TEXT: Final = "must be a number between 0 and 0777 (octal), both inclusive"


def without_backsteps(path: str, field: str) -> list[Cause]:
    return [errors.invalid_value(field, path, "must not contain '..'")] if ".." in path.split("/") else []


def descending(path: str, field: str) -> list[Cause]:
    """Relative, and never up."""
    found = [errors.invalid_value(field, path, "must be a relative path")] if path.startswith("/") else []
    return found + without_backsteps(path, field)


def unreserved(path: str, field: str) -> list[Cause]:
    """Descending, and not among the names that the node keeps to itself."""
    found = descending(path, field)
    if path.startswith("..") and path != ".." and not path.startswith("../"):
        found.append(errors.invalid_value(field, path, "must not start with '..'"))
    return found


def mode(value: Any, field: str) -> list[Cause]:
    """`value` None = not given."""
    if value is None or 0 <= value <= 0o777:
        return []
    return [errors.invalid_value(field, value, _MODE_TEXT)]
