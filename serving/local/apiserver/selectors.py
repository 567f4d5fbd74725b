"""Label and field selectors: parsing and matching.

Label selectors have Kubernetes' whole grammar: `a`, `!a`, `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`,
`a>1`, `a<1`, joined by commas. Field selectors know `=`, `==` and `!=`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver import label_parser
from serving.local.apiserver.errors import StatusError, bad_request
from serving.local.apiserver.kinds import Kind


class Requirement(msgspec.Struct, frozen=True):
    """`operator` is one of in, notin, exists, absent, gt, lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        present = self.key in labels
        match self.operator:
            case "exists":
                return present
            case "absent":
                return not present
            case "in":
                return present and labels[self.key] in self.values
            case "notin":
                return not present or labels[self.key] not in self.values
            case _:
                return present and _compare(labels[self.key], self.operator, self.values[0])


def _compare(value: str, operator: str, bound: str) -> bool:
    try:
        left, right = int(value), int(bound)
    except ValueError:
        return False
    return left > right if operator == "gt" else left < right


LabelSelector = tuple[Requirement, ...]


def parse_labels(text: str) -> LabelSelector:
    """Raises StatusError 400 with the part that could not be read."""
    return tuple(Requirement(*parsed) for parsed in label_parser.parse(text))


def match_labels(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    return all(requirement.matches(labels) for requirement in selector)


def from_label_selector(selector: JsonObject) -> LabelSelector:
    """The API's `{matchLabels, matchExpressions}` form."""
    found = [Requirement(key, "in", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "absent"}
    for expression in selector.get("matchExpressions") or ():
        values = tuple(expression.get("values") or ())
        found.append(Requirement(expression["key"], operators[expression["operator"]], values))
    return tuple(found)


class FieldTerm(msgspec.Struct, frozen=True):
    field: str
    equal: bool
    value: str


FieldSelector = tuple[FieldTerm, ...]


def parse_fields(text: str, kind: Kind) -> FieldSelector:
    """Raises StatusError 400 for a malformed selector or a field that this kind cannot be selected by."""
    terms: list[FieldTerm] = []
    for part in text.split(","):
        if not part.strip():
            continue
        match = re.fullmatch(r"\s*([^=!]*?)\s*(!=|==|=)(.*)", part)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        field = match[1]
        if field not in ("metadata.name", "metadata.namespace") and field not in kind.selectable:
            raise _unsupported(kind, field)
        terms.append(FieldTerm(field, match[2] != "!=", match[3].strip()))
    return tuple(terms)


def _unsupported(kind: Kind, field: str) -> StatusError:
    if kind.custom:
        return bad_request(f"field label not supported: {field}")
    text = f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'
    return bad_request(f"field label not supported: {field}" if kind.selectable else text)


def _at(obj: JsonObject, path: str) -> str:
    value: object = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _event_source(obj: JsonObject) -> str:
    component = (obj.get("source") or {}).get("component") or obj.get("reportingComponent") or ""
    return str(component)


def _field(obj: JsonObject, field: str) -> str:
    if field == "source":
        return _event_source(obj)
    value = _at(obj, field)
    if value == "" and field in ("spec.hostNetwork", "spec.unschedulable"):
        return "false"
    return value


def match_fields(selector: FieldSelector, obj: JsonObject) -> bool:
    return all((_field(obj, term.field) == term.value) == term.equal for term in selector)


Matcher = Callable[[JsonObject], bool]


def matcher(labels: LabelSelector, fields: FieldSelector) -> Matcher | None:
    """One predicate for both; None = everything matches."""
    if not labels and not fields:
        return None

    def matches(obj: JsonObject) -> bool:
        return match_fields(fields, obj) and match_labels(labels, obj["metadata"].get("labels") or {})

    return matches


def single_name(fields: FieldSelector) -> str:
    """The one name that can match, or empty."""
    return next((term.value for term in fields if term.field == "metadata.name" and term.equal), "")
