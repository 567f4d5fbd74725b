"""CustomResourceDefinitions: made, changed, refused."""

from __future__ import annotations

import copy
from typing import Any, Final

from tests.differential.model import Scenario, Step, delete, get, patch, post
from tests.differential.scenarios.bodies import DEFINITIONS, definition, gadget, gadgets

_THINGS: Final = f"{DEFINITIONS}/things.diff.example.dev"
_OBJECT: Final = {"type": "object"}


def _changed(*path: str | int, value: Any) -> Any:
    """A definition with one value replaced, or removed when the value is None."""
    body = copy.deepcopy(definition("bads", "Bad", {"type": "object", "properties": {"spec": {"type": "object"}}}))
    inner: Any = body
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        inner.pop(path[-1], None)
    else:
        inner[path[-1]] = value
    return body


def _refused(id: str, *path: str | int, value: Any) -> Step:
    return post(id, DEFINITIONS, _changed(*path, value=value), query={"dryRun": "All"}, view=_stable)


def _schema(id: str, schema: Any) -> Step:
    return post(id, DEFINITIONS, definition("bads", "Bad", schema), query={"dryRun": "All"}, view=_stable)


def _property(id: str, schema: Any) -> Step:
    return _schema(id, {"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}})


def _established(body: Any) -> Any:
    conditions = body.get("status", {}).get("conditions", [])
    return sorted((each["type"], each["status"], each["reason"], each["message"]) for each in conditions)


def _stable(body: Any) -> Any:
    """A definition without what controllers add in their own time."""
    if not isinstance(body, dict) or body.get("kind") != "CustomResourceDefinition":
        return body
    kept = {key: value for key, value in body["metadata"].items() if key not in ("resourceVersion", "uid")}
    return {**body, "metadata": kept, "status": None}


SCENARIOS: Final = (
    Scenario(
        name="definitions",
        steps=(
            post("create", DEFINITIONS, definition("things", "Thing", _OBJECT), view=_stable),
            get("list of things", gadgets("things"), until=200),
            get(
                "status",
                _THINGS,
                view=lambda body: {key: value for key, value in body["status"].items() if key != "conditions"},
            ),
            get("conditions", _THINGS, view=_established),
            get("get", _THINGS, view=_stable),
            post("create again", DEFINITIONS, definition("things", "Thing", _OBJECT)),
            post("a thing", gadgets("things"), {**gadget("Thing", "t"), "spec": None}),
            post("a thing is pruned", gadgets("things"), gadget("Thing", "u", x=1)),
            patch("no status subresource", f"{gadgets('things')}/t/status", {"status": {}}),
            patch("status is like any field", f"{gadgets('things')}/t", {"status": {"a": 1}}),
            patch(
                "columns",
                _THINGS,
                {
                    "spec": {
                        "versions": [
                            {
                                **definition("things", "Thing", _OBJECT)["spec"]["versions"][0],
                                "additionalPrinterColumns": [
                                    {"name": "X", "type": "string", "jsonPath": ".spec.x"}
                                ],
                            }
                        ]
                    }
                },
                view=_stable,
            ),
            patch("scope cannot change", _THINGS, {"spec": {"scope": "Cluster"}}),
            patch("group cannot change", _THINGS, {"spec": {"group": "other.example.dev"}}),
            patch("plural cannot change", _THINGS, {"spec": {"names": {"plural": "others"}}}),
            patch("kind cannot change", _THINGS, {"spec": {"names": {"kind": "Other"}}}),
            patch("short names", _THINGS, {"spec": {"names": {"shortNames": ["tg"]}}}, view=_stable),
            delete("delete", _THINGS, view=_stable),
            get("gone", _THINGS, until=404),
            get("things are gone", gadgets("things"), until=404),
        ),
    ),
    Scenario(
        name="definitions refused",
        steps=(
            _refused("name does not match", "metadata", "name", value="x.diff.example.dev"),
            _refused("no group", "spec", "group", value=None),
            _refused("bad group", "spec", "group", value="nodots"),
            _refused("no scope", "spec", "scope", value=None),
            _refused("unknown scope", "spec", "scope", value="Galaxy"),
            _refused("no names", "spec", "names", value=None),
            _refused("no plural", "spec", "names", value={"kind": "Bad"}),
            _refused("no kind", "spec", "names", value={"plural": "bads"}),
            _refused("bad kind", "spec", "names", value={"plural": "bads", "kind": "B_d"}),
            _refused("bad plural", "spec", "names", value={"plural": "Bads", "kind": "Bad"}),
            _refused(
                "bad short name", "spec", "names", value={"plural": "bads", "kind": "Bad", "shortNames": ["B"]}
            ),
            _refused("no versions", "spec", "versions", value=[]),
            _refused("bad version name", "spec", "versions", 0, "name", value="V1"),
            _refused("no storage version", "spec", "versions", 0, "storage", value=False),
            _refused("no schema", "spec", "versions", 0, "schema", value=None),
            _refused("empty schema", "spec", "versions", 0, "schema", value={}),
            _refused("preserveUnknownFields", "spec", "preserveUnknownFields", value=True),
            _refused(
                "two storage versions",
                "spec",
                "versions",
                value=[
                    {"name": name, "served": True, "storage": True, "schema": {"openAPIV3Schema": _OBJECT}}
                    for name in ("v1", "v2")
                ],
            ),
            _refused(
                "the same version twice",
                "spec",
                "versions",
                value=[
                    {"name": "v1", "served": True, "storage": storage, "schema": {"openAPIV3Schema": _OBJECT}}
                    for storage in (True, False)
                ],
            ),
            _schema("no type at the root", {"properties": {}}),
            _schema("root is a text", {"type": "string"}),
            _schema(
                "restricted metadata",
                {
                    "type": "object",
                    "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}},
                },
            ),
            _property("no type", {"description": "x"}),
            _property("unknown type", {"type": "bogus"}),
            _property(
                "properties and additionalProperties",
                {
                    "type": "object",
                    "properties": {"a": {"type": "string"}},
                    "additionalProperties": {"type": "string"},
                },
            ),
            _property("additionalProperties false", {"type": "object", "additionalProperties": False}),
            _property("array without items", {"type": "array"}),
            _property("items as a list", {"type": "array", "items": [{"type": "string"}]}),
            _property("bad pattern", {"type": "string", "pattern": "("}),
            _property("default of a wrong type", {"type": "string", "default": 1}),
            _property("default breaks the enumeration", {"type": "string", "enum": ["a"], "default": "b"}),
            _property(
                "default is pruned",
                {"type": "object", "default": {"b": 1}, "properties": {"a": {"type": "string"}}},
            ),
            _property("reference", {"$ref": "#/x"}),
            _property("uniqueItems", {"type": "array", "uniqueItems": True, "items": {"type": "string"}}),
            _property(
                "list type", {"type": "array", "x-kubernetes-list-type": "bogus", "items": {"type": "string"}}
            ),
            _property(
                "map list without keys",
                {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "items": {"type": "object", "properties": {"a": {"type": "string"}}},
                },
            ),
            _property(
                "map list with an absent key",
                {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["b"],
                    "items": {"type": "object", "properties": {"a": {"type": "string"}}},
                },
            ),
            _property(
                "set of objects", {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}}
            ),
            _property("preserve of a text", {"type": "string", "x-kubernetes-preserve-unknown-fields": True}),
            _property("int or string with a type", {"type": "string", "x-kubernetes-int-or-string": True}),
            _property("nested type in anyOf", {"anyOf": [{"type": "string"}]}),
            _property("negative length", {"type": "string", "maxLength": -1}),
            _property("wrong type of a keyword", {"type": "string", "maxLength": "x"}),
            _refused("scale without paths", "spec", "versions", 0, "subresources", value={"scale": {}}),
            _refused(
                "scale with a bad path",
                "spec",
                "versions",
                0,
                "subresources",
                value={"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status.y"}},
            ),
            _refused(
                "column without a path",
                "spec",
                "versions",
                0,
                "additionalPrinterColumns",
                value=[{"name": "a", "type": "string"}],
            ),
            _refused(
                "column of an unknown type",
                "spec",
                "versions",
                0,
                "additionalPrinterColumns",
                value=[{"name": "a", "type": "bogus", "jsonPath": ".a"}],
            ),
            _refused(
                "column with a bad path",
                "spec",
                "versions",
                0,
                "additionalPrinterColumns",
                value=[{"name": "a", "type": "string", "jsonPath": ".a["}],
            ),
            _refused(
                "selectable field", "spec", "versions", 0, "selectableFields", value=[{"jsonPath": ".spec.none"}]
            ),
            _refused("conversion by a webhook without one", "spec", "conversion", value={"strategy": "Webhook"}),
            _refused("unknown conversion", "spec", "conversion", value={"strategy": "Bogus"}),
        ),
    ),
)
