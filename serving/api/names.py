"""Names: which are valid, and how one object's name is made from another's.

The `*_problems` functions return Kubernetes' own explanations, empty when the name is valid; they are part of
messages that users and tests read. Names of children are deterministic, so that a reconciler finds its children
again without looking at labels.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

MAX_LABEL: Final = 63
MAX_SUBDOMAIN: Final = 253

_DNS1123_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS1123_SUBDOMAIN = _DNS1123_LABEL + r"(\." + _DNS1123_LABEL + ")*"
_DNS1035_LABEL = "[a-z]([-a-z0-9]*[a-z0-9])?"
_LABEL_KEY = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_C_IDENTIFIER = "[A-Za-z_][A-Za-z0-9_]*"
_HASH_LENGTH: Final = 32
_HEAD: Final = MAX_LABEL - _HASH_LENGTH

_dns1123_label = re.compile(_DNS1123_LABEL)
_dns1123_subdomain = re.compile(_DNS1123_SUBDOMAIN)
_dns1035_label = re.compile(_DNS1035_LABEL)
_label_key = re.compile(_LABEL_KEY)
_c_identifier = re.compile(_C_IDENTIFIER)


def child_name(parent: str, suffix: str) -> str:
    """`parent + suffix`, with the parent cut and hashed where the sum exceeds 63 characters.

    Same result as Knative, so that objects are found again after a switch.
    """
    if len(parent) + len(suffix) <= MAX_LABEL:
        return parent + suffix
    room = _HEAD - len(suffix)
    if room > 0:
        return parent[:room] + _hash(parent) + suffix
    name = parent[:_HEAD] + _hash(parent + suffix)
    name += suffix[: MAX_LABEL - len(name)]
    return re.sub(r"[^a-zA-Z0-9]+\Z", "", name)


def revision_name(configuration: str, generation: int) -> str:
    """Name of the Revision of a Configuration's generation: `hello-00001`."""
    return child_name(configuration, f"-{generation:05d}")


def dns1035_label_problems(value: str, *, prefix: bool = False) -> list[str]:
    """Why `value` cannot name a Service. `prefix`: it is a generateName, which may end in a dash."""
    value = _mask_trailing_dash(value) if prefix else value
    problems = _too_long(value, MAX_LABEL)
    if not _dns1035_label.fullmatch(value):
        text = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
            "start with an alphabetic character, and end with an alphanumeric character"
        )
        problems.append(_pattern_problem(text, _DNS1035_LABEL, "my-name", "abc-123"))
    return problems


def dns1123_label_problems(value: str) -> list[str]:
    problems = _too_long(value, MAX_LABEL)
    if _dns1123_label.fullmatch(value):
        return problems
    if _dns1123_subdomain.fullmatch(value):
        return [*problems, "must not contain dots"]
    text = (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
        "and must start and end with an alphanumeric character"
    )
    return [*problems, _pattern_problem(text, _DNS1123_LABEL, "my-name", "123-abc")]


def dns1123_subdomain_problems(value: str) -> list[str]:
    problems = _too_long(value, MAX_SUBDOMAIN)
    if not _dns1123_subdomain.fullmatch(value):
        text = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
            "and must start and end with an alphanumeric character"
        )
        problems.append(_pattern_problem(text, _DNS1123_SUBDOMAIN, "example.com"))
    return problems


def qualified_name_problems(value: str) -> list[str]:
    """Why `value` is no label key (`name` or `prefix/name`)."""
    text = (
        "must consist of alphanumeric characters, '-', '_' or '.', "
        "and must start and end with an alphanumeric character"
    )
    explained = _pattern_problem(text, _LABEL_KEY, "MyName", "my.name", "123-abc")
    parts = value.split("/")
    if len(parts) > 2:
        prefixed = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a valid label key {explained} {prefixed}"]
    problems: list[str] = []
    if len(parts) == 2:
        if not parts[0]:
            problems.append("prefix part must be non-empty")
        problems += [f"prefix part {text}" for text in dns1123_subdomain_problems(parts[0]) if parts[0]]
    name = parts[-1]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name.encode()) > MAX_LABEL:
        problems.append(f"name part must be no more than {MAX_LABEL} bytes")
    if not _label_key.fullmatch(name):
        problems.append(f"name part {explained}")
    return problems


def c_identifier_problems(value: str) -> list[str]:
    if _c_identifier.fullmatch(value):
        return []
    text = (
        "a valid C identifier must start with alphabetic character or '_', "
        "followed by a string of alphanumeric characters or '_'"
    )
    return [_pattern_problem(text, _C_IDENTIFIER, "my_name", "MY_NAME", "MyName")]


def domain_name_problems(value: str, *, field: str) -> list[str]:
    """Why `value` is no fully qualified domain name of at least two labels; a trailing dot is allowed.

    The texts are complete Kubernetes field errors, e.g. `name: Invalid value: "x": should be …`.
    """
    if not value:
        return [f"{field}: Required value"]
    name = value.removesuffix(".")
    problems = dns1123_subdomain_problems(name)
    if problems:
        return [_invalid(field, name, ",".join(problems))]
    labels = name.split(".")
    if len(labels) < 2:
        return [_invalid(field, name, "should be a domain with at least two segments separated by dots")]
    for label in labels:
        problems = dns1123_label_problems(label)
        if problems:
            return [_invalid(field, label, ",".join(problems))]
    return []


def _invalid(field: str, value: str, why: str) -> str:
    return f"{field}: Invalid value: {quote(value)}: {why}"


def quote(text: str) -> str:
    """As Go's `%q` quotes ordinary text: double quotes, escapes for what is not printable."""
    out = []
    for char in text:
        if char in ('"', "\\"):
            out.append("\\" + char)
        elif char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char.isprintable():
            out.append(char)
        else:
            code = ord(char)
            out.append(
                f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
            )
    return '"' + "".join(out) + '"'


_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def _hash(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _mask_trailing_dash(value: str) -> str:
    return value[:-2] + "a" if len(value) > 1 and value.endswith("-") else value


def _too_long(value: str, limit: int) -> list[str]:
    return [f"must be no more than {limit} characters"] if len(value.encode()) > limit else []


def _pattern_problem(text: str, pattern: str, *examples: str) -> str:
    given = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {given}regex used for validation is '{pattern}')"
