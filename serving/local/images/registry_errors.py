"""What a registry's answers mean: error documents and authentication challenges. Pure.

The texts are those of the library that Knative's controller uses, because users search for them:
`GET https://index.docker.io/v2/library/nope/manifests/v1: MANIFEST_UNKNOWN: manifest unknown; map[Tag:v1]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from serving.local.images.errors import pull_failed
from serving.local.images.protocol import ImageError

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_ERRORS = 5
_MAX_TEXT = 400
_CHALLENGE = re.compile(
    r"([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)[ ]+(?=[A-Za-z_]+[ ]*=)|\b(Basic|Negotiate)\b", re.I
)
_PARAMETER = re.compile(r'([A-Za-z_]+)[ ]*=[ ]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `WWW-Authenticate`; scheme and keys in lower case."""

    scheme: str
    parameters: dict[str, str]


class TransientError(Exception):
    """Worth asking again soon. `error` is what the user sees when it does not help."""

    def __init__(self, error: ImageError) -> None:
        super().__init__(str(error))
        self.error = error


class _Diagnostic(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None
    detail: Any = None


class _Errors(msgspec.Struct, frozen=True):
    errors: tuple[_Diagnostic, ...] | None = None


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges, in order. What cannot be read is skipped."""
    found = []
    for header in headers:
        starts = [match for match in _CHALLENGE.finditer(header) if header[: match.start()].count('"') % 2 == 0]
        for position, match in enumerate(starts):
            end = starts[position + 1].start() if position + 1 < len(starts) else len(header)
            parameters = {
                key.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare
                for key, quoted, bare in _PARAMETER.findall(header[match.end() : end])
            }
            found.append(Challenge(scheme=(match.group(1) or match.group(2)).lower(), parameters=parameters))
    return found


def answer_error(method: str, url: str, status: int, body: bytes) -> ImageError:
    """The error for an answer that is not the wanted one."""
    return pull_failed(f"{method} {url}: {_explain(status, body)}")


def _explain(status: int, body: bytes) -> str:
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors or ()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        errors = ()
    texts = [_diagnostic(error) for error in errors[:_MAX_ERRORS]]
    if len(texts) == 1:
        return texts[0]
    if texts:
        return "multiple errors returned: " + "; ".join(texts)
    return f"unexpected status code {status} {_phrase(status)}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown"


def _diagnostic(error: _Diagnostic) -> str:
    text = f"{error.code or 'UNKNOWN'}: {error.message or 'no message'}"
    if error.detail is not None:
        text += f"; {_detail(error.detail)}"
    return printable(text)


def _detail(value: Any) -> str:
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_detail(value[key])}" for key in sorted(value, key=str)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_detail, value)) + "]"
    return str(value)


def printable(text: str) -> str:
    """One line, without control characters: a stranger's text goes to a terminal."""
    line = "".join(char if char.isprintable() else " " for char in text[: _MAX_TEXT + 1])
    return line if len(line) <= _MAX_TEXT else line[:_MAX_TEXT] + "…"
