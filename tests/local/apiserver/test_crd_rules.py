"""What a definition may say: names, versions and structural schemas."""

from __future__ import annotations

from typing import Any

import pytest

from serving.api.meta import JsonObject
from serving.local.apiserver import structural
from serving.local.apiserver.crd_rules import crd_causes
from serving.local.apiserver.crds import default_crd
from tests.local.apiserver.objects import widget_definition

BAD_PATTERN = (
    '.pattern: Invalid value: "(": must be a valid regular expression, but isn\'t: error parsing regexp: '
    "missing closing ): `(`"
)


def problems(schema: JsonObject) -> list[str]:
    root = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}}
    prefix = "s.properties[spec].properties[x]"
    return [cause.message.removeprefix(prefix) for cause in structural.causes(root, "s")]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "string"}, None),
        ({"x-kubernetes-preserve-unknown-fields": True}, None),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, None),
        ({}, ".type: Required value: must not be empty for specified object fields"),
        ({"type": "array"}, ".items: Required value: must be specified"),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "additionalProperties": {"type": "string"},
            },
            ".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        ({"type": "string", "$ref": "#/x"}, ".$ref: Forbidden: $ref is not supported"),
        (
            {"type": "string", "default": 1},
            '.default: Invalid value: "integer":  in body must be of type string: "integer"',
        ),
        (
            {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}},
            ".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
        ),
        ({"type": "string", "pattern": "("}, BAD_PATTERN),
    ],
)
def test_structural_schemas(schema: JsonObject, message: str | None) -> None:
    assert problems(schema) == ([] if message is None else [message])


def test_the_root_is_an_object() -> None:
    assert [c.message for c in structural.causes({"type": "string"}, "s")] == [
        's.type: Invalid value: "string": must be object at the root'
    ]


@pytest.mark.parametrize(
    ("path", "value", "fields"),
    [
        (("group",), "nodots", ["spec.group", "metadata.name"]),
        (("names", "kind"), "B_d", ["spec.names.kind"]),
        (("names", "shortNames"), ["W"], ["spec.names.shortNames[0]"]),
        (("scope",), "Everywhere", ["spec.scope"]),
        (("preserveUnknownFields",), True, ["spec.preserveUnknownFields"]),
        (("conversion",), {"strategy": "Bogus"}, ["spec.conversion.strategy"]),
    ],
)
def test_names_and_strategies(path: tuple[str, ...], value: Any, fields: list[str]) -> None:
    crd = widget_definition()
    default_crd(crd)
    assert crd_causes(crd, None) == []
    level = crd["spec"]
    for name in path[:-1]:
        level = level[name]
    level[path[-1]] = value
    assert [cause.field for cause in crd_causes(crd, None)] == fields


def test_what_cannot_change() -> None:
    old = widget_definition()
    default_crd(old)
    old["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
    new = widget_definition()
    default_crd(new)
    new["spec"]["scope"] = "Cluster"
    new["spec"]["names"]["kind"] = "Other"
    assert [cause.message for cause in crd_causes(new, old)] == [
        'spec.scope: Invalid value: "Cluster": field is immutable',
        'spec.names.kind: Invalid value: "Other": field is immutable',
    ]
