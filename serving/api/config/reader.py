"""Reads ConfigMap values as Go's strconv and time packages do, with the error texts of upstream's parser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from serving.api.config.errors import ConfigError
from serving.api.duration import parse_duration
from serving.api.names import quote
from serving.api.quantity import QuantityError, parse_quantity

EXAMPLE_KEY: Final = "_example"
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_MAX_DIGITS: Final = 64  # int() of a hostile megabyte of digits would take seconds


class Reader:
    """Values of one ConfigMap by key; a key that is absent gives the default.

    Every method raises ConfigError for a value that it cannot read. `prefix` starts its text.
    """

    def __init__(self, data: Mapping[str, str], *, prefix: str = "") -> None:
        self._data = data
        self._prefix = prefix

    def text(self, key: str, default: str) -> str:
        value = self._data.get(key)
        return default if value is None else value.strip(" \t\n\v\f\r")

    def integer(self, key: str, default: int, *, bits: int = 64, signed: bool = True) -> int:
        text = self._data.get(key)
        if text is None:
            return default
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        name, allowed = "ParseInt" if signed else "ParseUint", f"an integer in [{low}, {high}]"
        pattern_fits = _INTEGER.fullmatch(text) and (signed or text[0] not in "+-")
        if not pattern_fits:
            raise self._unparsable(key, f"strconv.{name}: parsing {quote(text)}: invalid syntax", allowed)
        if len(text) > _MAX_DIGITS or not low <= int(text) <= high:
            raise self._unparsable(key, f"strconv.{name}: parsing {quote(text)}: value out of range", allowed)
        return int(text)

    def number(self, key: str, default: float) -> float:
        text = self._data.get(key)
        if text is None:
            return default
        if _FLOAT.fullmatch(text) is None:
            why = f"strconv.ParseFloat: parsing {quote(text)}: invalid syntax"
            raise self._unparsable(key, why, "a decimal number")
        return float(text)

    def flag(self, key: str, default: bool) -> bool:
        text = self._data.get(key)
        if text is None:
            return default
        if text not in _TRUE | _FALSE:
            why = f"strconv.ParseBool: parsing {quote(text)}: invalid syntax"
            raise self._unparsable(key, why, "true or false")
        return text in _TRUE

    def nanoseconds(self, key: str, default: int) -> int:
        text = self._data.get(key)
        if text is None:
            return default
        try:
            return parse_duration(text)
        except ValueError as error:
            raise self._unparsable(key, str(error), "a Go duration, e.g. 60s or 1h30m") from error

    def quantity(self, key: str, default: str | None) -> str | None:
        """The text of a quantity, checked."""
        text = self._data.get(key)
        if text is None:
            return default
        try:
            parse_quantity(text)
        except QuantityError as error:
            why = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            raise self._unparsable(key, why, "a quantity, e.g. 100m or 128Mi") from error
        return text

    def names(self, key: str, default: frozenset[str]) -> frozenset[str]:
        """A set of comma-separated names."""
        text = self._data.get(key)
        return default if text is None else frozenset(part.strip() for part in text.split(","))

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of `allowed` in any case. Any other value keeps the default, as upstream's feature flags do."""
        text = self._data.get(key)
        if text is None:
            return default
        return next((name for name in allowed if name.lower() == text.lower()), default)

    def refused(self, message: str, key: str, allowed: str) -> ConfigError:
        return ConfigError(message, key=key, value=self._data.get(key, ""), allowed=allowed)

    def _unparsable(self, key: str, why: str, allowed: str) -> ConfigError:
        return self.refused(f"{self._prefix}failed to parse {quote(key)}: {why}", key, allowed)


def label_selector(key: str, text: str) -> dict[str, str]:
    """`selector: {label: value}` of a YAML text; empty text selects everything.

    Raises ConfigError naming `key` if the text is no such mapping.
    """
    allowed = "empty, or YAML with `selector:` and label: value pairs below it"
    try:
        document: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        message = f"error converting YAML to JSON: {key}: {first}"
        raise ConfigError(message, key=key, value=text, allowed=allowed) from error
    return selector_of(key, text, document)


def selector_of(key: str, text: str, document: Any) -> dict[str, str]:
    """The `selector` of a parsed YAML value. Raises ConfigError naming `key`."""
    allowed = "empty, or YAML with `selector:` and label: value pairs below it"
    if document is None:
        return {}
    selector = document.get("selector") if isinstance(document, dict) else document
    if selector is None:
        return {}
    fits = isinstance(document, dict) and isinstance(selector, dict)
    if not fits or not all(isinstance(part, str) for pair in selector.items() for part in pair):
        message = f"{key}: selector must map labels to strings, was: {selector!r}"
        raise ConfigError(message, key=key, value=text, allowed=allowed)
    return dict(selector)
