"""What is wrong with an object: messages that name the paths, merged and sorted as Knative prints them.

A validator returns a flat list of `FieldError`s with paths relative to what it looked at; the caller prefixes
them with `under`. `render` gives the text that users see.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from serving.api.names import quote

CURRENT: Final = ""
"""Path of the value itself."""
ERROR: Final = "error"
WARNING: Final = "warning"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One finding. `paths` lists every field that it concerns; a warning does not refuse the object."""

    message: str
    paths: tuple[str, ...] = ()
    details: str = ""
    level: str = ERROR

    def __str__(self) -> str:
        text = f"{self.message}: {', '.join(self.paths)}"
        return f"{text}\n{self.details}" if self.details else text


def missing_field(*paths: str) -> FieldError:
    return FieldError("missing field(s)", paths)


def disallowed_fields(*paths: str) -> FieldError:
    return FieldError("must not set the field(s)", paths)


def invalid_value(value: object, path: str, details: str = "") -> FieldError:
    return FieldError(f"invalid value: {value}", (path,), details)


def invalid_key_name(key: str, path: str, details: str = "") -> FieldError:
    return FieldError(f"invalid key name {quote(key)}", (path,), details)


def out_of_bounds(value: object, lower: object, upper: object, path: str) -> FieldError:
    return FieldError(f"expected {lower} <= {value} <= {upper}", (path,))


def missing_one_of(*paths: str) -> FieldError:
    return FieldError("expected exactly one, got neither", paths)


def multiple_one_of(*paths: str) -> FieldError:
    return FieldError("expected exactly one, got both", paths)


def under(prefix: str, errors: Iterable[FieldError]) -> list[FieldError]:
    """The same findings seen from one level up; `prefix` is a field, `field[index]`, `[index]` or `[key]`."""
    return [replace(error, paths=tuple(_join(prefix, path) for path in error.paths)) for error in errors]


def only(errors: Iterable[FieldError], level: str) -> list[FieldError]:
    return [error for error in errors if error.level == level]


def merged(errors: Iterable[FieldError]) -> list[FieldError]:
    """One entry per message, details and level, its paths sorted and without repetition; sorted by message."""
    paths: dict[tuple[str, str, str], dict[str, None]] = {}
    for error in errors:
        entry = paths.setdefault((error.message, error.details, error.level), {})
        entry.update(dict.fromkeys(error.paths))
    return [
        FieldError(message, tuple(sorted(where)), details, level)
        for (message, details, level), where in sorted(paths.items(), key=lambda item: item[0])
    ]


def render(errors: Iterable[FieldError]) -> str:
    """All findings as one text, `message: path1, path2` per line, details below their message."""
    return "\n".join(str(error) for error in merged(errors))


def _join(prefix: str, path: str) -> str:
    """Parts are separated by dots; empty ones vanish and `[index]` sticks to the part before it."""
    out: list[str] = []
    for part in (*prefix.split("."), *path.split(".")):
        if out and part.startswith("[") and part.endswith("]"):
            out[-1] += part
        elif part:
            out.append(part)
    return ".".join(out)
