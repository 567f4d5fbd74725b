"""What names, keys and label values may look like, in the words of kube-apiserver. Pure.

Every function returns the problems of one text; none = it is allowed. Answers are kept: the same few names
come with every write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from serving.local.apiserver import errors
from serving.local.apiserver.errors import Cause

Problems = tuple[str, ...]
Rule = Callable[[str], Problems]

LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN: Final = rf"{LABEL}(\.{LABEL})*"
_KEY: Final = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE: Final = rf"({_KEY})?"
_MAX_LABEL: Final = 63
_MAX_SUBDOMAIN: Final = 253
_MAX_PORT_NAME: Final = 15


def _wrong(text: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {shown}regex used for validation is '{pattern}')"


LABEL_TEXT: Final = _wrong(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character",
    LABEL,
    "my-name",
    "123-abc",
)
SUBDOMAIN_TEXT: Final = _wrong(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character",
    SUBDOMAIN,
    "example.com",
)
_KEY_TEXT: Final = _wrong(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character",
    _KEY,
    "MyName",
    "my.name",
    "123-abc",
)
_VALUE_TEXT: Final = _wrong(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character",
    _VALUE,
    "MyValue",
    "my_value",
    "12345",
)
_CONFIG_KEY: Final = r"[-._a-zA-Z0-9]+"
_CONFIG_KEY_TEXT: Final = _wrong(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)
_HEADER: Final = r"[-A-Za-z0-9]+"
_HEADER_TEXT: Final = _wrong(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER, "X-Header-Name"
)
_SEARCH_LABEL: Final = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SEARCH: Final = rf"{_SEARCH_LABEL}(\.{_SEARCH_LABEL})*"
_SEARCH_TEXT: Final = _wrong(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must "
    "start and end with an alphanumeric character",
    _SEARCH,
    "example.com",
)
_VARIABLE_TEXT: Final = (
    "a valid environment variable name must consist only of printable ASCII characters other than '='"
)


def causes(field: str, value: str, problems: Iterable[str]) -> list[Cause]:
    return [errors.invalid_value(field, value, problem) for problem in problems]


def at_most(count: int, unit: str = "characters") -> str:
    return f"must be no more than {count} {unit}"


def between(least: int, most: int) -> str:
    return f"must be between {least} and {most}, inclusive"


@lru_cache(maxsize=4096)
def label(value: str) -> Problems:
    """A DNS label: the name of a container, volume, or host."""
    found = [at_most(_MAX_LABEL)] if len(value) > _MAX_LABEL else []
    if not re.fullmatch(LABEL, value):
        found.append("must not contain dots" if re.fullmatch(SUBDOMAIN, value) else LABEL_TEXT)
    return tuple(found)


@lru_cache(maxsize=4096)
def subdomain(value: str) -> Problems:
    """The name of most objects."""
    found = [at_most(_MAX_SUBDOMAIN)] if len(value) > _MAX_SUBDOMAIN else []
    if not re.fullmatch(SUBDOMAIN, value):
        found.append(SUBDOMAIN_TEXT)
    return tuple(found)


@lru_cache(maxsize=256)
def search_domain(value: str) -> Problems:
    """A domain that names are looked up in; underscores are allowed."""
    found = [at_most(_MAX_SUBDOMAIN)] if len(value) > _MAX_SUBDOMAIN else []
    if not re.fullmatch(_SEARCH, value):
        found.append(_SEARCH_TEXT)
    return tuple(found)


@lru_cache(maxsize=4096)
def qualified(key: str) -> Problems:
    """The key of a label, `name` or `example.com/name`."""
    found: list[str] = []
    prefix, slash, name = key.rpartition("/")
    if "/" in prefix:
        optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return (f"a valid label key {_KEY_TEXT} {optional}",)
    if slash and not prefix:
        found.append("prefix part must be non-empty")
    elif slash:
        found += [f"prefix part {problem}" for problem in subdomain(prefix)]
    if not name:
        found.append("name part must be non-empty")
    elif len(name) > _MAX_LABEL:
        found.append(f"name part {at_most(_MAX_LABEL, 'bytes')}")
    if not re.fullmatch(_KEY, name):
        found.append(f"name part {_KEY_TEXT}")
    return tuple(found)


@lru_cache(maxsize=4096)
def label_value(value: str) -> Problems:
    found = [at_most(_MAX_LABEL, "bytes")] if len(value) > _MAX_LABEL else []
    if not re.fullmatch(_VALUE, value):
        found.append(_VALUE_TEXT)
    return tuple(found)


@lru_cache(maxsize=256)
def port_name(value: str) -> Problems:
    found = [at_most(_MAX_PORT_NAME)] if len(value) > _MAX_PORT_NAME else []
    if not re.fullmatch(r"[-a-z0-9]+", value):
        found.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        found.append("must contain at least one letter (a-z)")
    if "--" in value:
        found.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        found.append("must not begin or end with a hyphen")
    return tuple(found)


@lru_cache(maxsize=4096)
def variable(name: str) -> Problems:
    """The name of an environment variable."""
    if not name:
        return ("environment variable name must be non-empty",)
    return () if name.isascii() and name.isprintable() and "=" not in name else (_VARIABLE_TEXT,)


@lru_cache(maxsize=1024)
def config_key(key: str) -> Problems:
    """A key in a ConfigMap or Secret."""
    found = [at_most(_MAX_SUBDOMAIN)] if len(key) > _MAX_SUBDOMAIN else []
    if not re.fullmatch(_CONFIG_KEY, key):
        found.append(_CONFIG_KEY_TEXT)
    if key in (".", ".."):
        found.append(f"must not be '{key}'")
    elif key.startswith(".."):
        found.append("must not start with '..'")
    return tuple(found)


@lru_cache(maxsize=256)
def header(name: str) -> Problems:
    return () if re.fullmatch(_HEADER, name) else (_HEADER_TEXT,)


def port_number(value: int) -> Problems:
    return () if 1 <= value <= 65535 else (between(1, 65535),)


def user_number(value: int) -> Problems:
    """Of a user or a group."""
    return () if 0 <= value <= 2**31 - 1 else (between(0, 2**31 - 1),)
