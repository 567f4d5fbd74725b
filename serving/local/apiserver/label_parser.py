"""The grammar of label selectors, read as kube-apiserver reads it, with its words for mistakes. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from serving.local.apiserver import identifiers
from serving.local.apiserver.errors import bad_request, invalid_value

_TOKEN: Final = re.compile(r"[ \t\r\n]*(==|!=|[=!()<>,]|[^ \t\r\n=!()<>,]+|$)")
_SYMBOLS: Final = frozenset({"==", "!=", "=", "!", "(", ")", "<", ">", ",", ""})
_BINARY: Final = {"in": "in", "notin": "notin", "=": "in", "==": "in", "!=": "notin", ">": "gt", "<": "lt"}
_BINARY_TEXT: Final = "in, notin, =, ==, !=, gt, lt"


class Parsed(NamedTuple):
    """`operator` is one of in, notin, exists, absent, gt, lt."""

    key: str
    operator: str
    values: tuple[str, ...]


class _Mistake(Exception):
    """Within a requirement."""


@lru_cache(maxsize=1024)
def parse(text: str) -> tuple[Parsed, ...]:
    """Raises StatusError 400."""
    tokens = _Tokens(text)
    found: list[Parsed] = []
    while (word := tokens.next()) != "":
        if not _is_word(word) and word != "!":
            raise bad_request(f"found '{word}', expected: !, identifier, or 'end of string'")
        try:
            found.append(_requirement(tokens))
        except _Mistake as mistake:
            raise bad_request(f"unable to parse requirement: {mistake}") from None
        word = tokens.take()
        if word == ",":
            if not _is_word(tokens.next()) and tokens.next() != "!":
                raise bad_request(f"found '{tokens.next()}', expected: identifier after ','")
        elif word:
            raise bad_request(f"found '{word}', expected: ',' or 'end of string'")
    return tuple(found)


def _is_word(word: str) -> bool:
    return word not in _SYMBOLS


class _Tokens:
    """The empty word is the end."""

    def __init__(self, text: str) -> None:
        self._tokens = [match[1] for match in _TOKEN.finditer(text)]
        self._at = 0

    def next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        word = self.next()
        self._at += 1
        return word


def _requirement(tokens: _Tokens) -> Parsed:
    key = tokens.take()
    absent = key == "!"
    if absent:
        key = tokens.take()
    if not _is_word(key):
        raise _Mistake(f"found '{key}', expected: identifier")
    if problems := identifiers.qualified(key):
        raise _Mistake(f"<nil>: {invalid_value('', key, '; '.join(problems)).text}")
    if absent or tokens.next() in ("", ","):
        return Parsed(key, "absent" if absent else "exists", ())
    word = tokens.take()
    operator = _BINARY.get(word)
    if operator is None:
        raise _Mistake(f"found '{word}', expected: {_BINARY_TEXT}")
    values = _several(tokens) if word in ("in", "notin") else (_one(tokens),)
    _check(key, operator, values)
    return Parsed(key, operator, values)


def _one(tokens: _Tokens) -> str:
    if tokens.next() in ("", ","):
        return ""
    word = tokens.take()
    if not _is_word(word):
        raise _Mistake(f"found '{word}', expected: identifier")
    return word


def _several(tokens: _Tokens) -> tuple[str, ...]:
    """`(a,b)`; what is left out between commas is the empty value."""
    word = tokens.take()
    if word != "(":
        raise _Mistake(f"found '{word}' expected: '('")
    if not _is_word(tokens.next()) and tokens.next() not in (",", ")"):
        raise _Mistake(f"found '{tokens.next()}', expected: ',', ')' or identifier")
    values: set[str] = set()
    while True:
        if _is_word(tokens.next()):
            values.add(tokens.take())
        else:
            values.add("")
        word = tokens.take()
        if word == ")":
            return tuple(sorted(values))
        if word != ",":
            raise _Mistake(f"found '{word}', expected: ',' or ')'")


def _check(key: str, operator: str, values: tuple[str, ...]) -> None:
    wrong: list[str] = []
    for index, value in enumerate(values):
        if operator in ("gt", "lt") and not re.fullmatch(r"[+-]?[0-9]+", value):
            text = "for 'Gt', 'Lt' operators, the value must be an integer"
            wrong.append(invalid_value(f"values[{index}]", value, text).message)
        if problems := identifiers.label_value(value):
            wrong.append(invalid_value(f"values[{index}][{key}]", value, "; ".join(problems)).message)
    if wrong:
        raise _Mistake(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
