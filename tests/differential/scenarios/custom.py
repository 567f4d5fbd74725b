"""Custom objects: defaults, pruning, schemas, status, scale, generation."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import JSON_PATCH, STRATEGIC_PATCH, Scenario, Step, delete, get, patch, post, put
from tests.differential.scenarios.bodies import gadget, gadgets, with_definition

_G: Final = gadgets("customs")
_ONE: Final = f"{_G}/one"


def _custom(name: str, /, **spec: Any) -> Any:
    return gadget("Custom", name, **spec)


def _versioned(body: Any, reference: str) -> Any:
    return {
        **body,
        "metadata": {**body["metadata"], "resourceVersion": f"${{{reference}.metadata.resourceVersion}}"},
    }


_I: Final = gadgets("invalids")


def _refused(id: str, **spec: Any) -> Step:
    return post(id, _I, gadget("Invalid", "x", **spec))


SCENARIOS: Final = (
    Scenario(
        name="custom objects",
        steps=with_definition(
            "customs",
            "Custom",
            post("create", _G, _custom("one", colour="red", parts=[{"name": "a"}]), save="one"),
            get("get", _ONE),
            post(
                "unknown fields are pruned",
                _G,
                {**_custom("two", bogus=1, nested={"must": "a", "bogus": 1}, free={"kept": {"x": 1}}), "bogus": 1},
            ),
            post("status is dropped", _G, {**_custom("three"), "status": {"ready": True}}),
            post(
                "no spec",
                _G,
                {"apiVersion": "diff.example.dev/v1", "kind": "Custom", "metadata": {"name": "four"}},
            ),
            post(
                "spec is null",
                _G,
                {
                    "apiVersion": "diff.example.dev/v1",
                    "kind": "Custom",
                    "metadata": {"name": "five"},
                    "spec": None,
                },
            ),
            post("nulls", _G, _custom("six", colour=None, maybe=None, size=None)),
            post("no apiVersion", _G, {"kind": "Custom", "metadata": {"name": "x"}}),
            post("no kind", _G, {"apiVersion": "diff.example.dev/v1", "metadata": {"name": "x"}}),
            post(
                "other kind", _G, {"apiVersion": "diff.example.dev/v1", "kind": "Other", "metadata": {"name": "x"}}
            ),
            post(
                "other version",
                _G,
                {"apiVersion": "diff.example.dev/v2", "kind": "Custom", "metadata": {"name": "x"}},
            ),
            post("name is invalid", _G, _custom("Bad")),
            post("no name", _G, {"apiVersion": "diff.example.dev/v1", "kind": "Custom", "metadata": {}}),
            post(
                "generateName",
                _G,
                {"apiVersion": "diff.example.dev/v1", "kind": "Custom", "metadata": {"generateName": "gen-"}},
            ),
            post(
                "metadata is a text", _G, {"apiVersion": "diff.example.dev/v1", "kind": "Custom", "metadata": "x"}
            ),
            post(
                "labels are wrong",
                _G,
                {
                    "apiVersion": "diff.example.dev/v1",
                    "kind": "Custom",
                    "metadata": {"name": "x", "labels": {"a": 1}},
                },
            ),
            post(
                "unknown metadata",
                _G,
                {"apiVersion": "diff.example.dev/v1", "kind": "Custom", "metadata": {"name": "seven", "bogus": 1}},
            ),
            put("replace without a version", _ONE, _custom("one", size=2)),
            put("replace", _ONE, _versioned(_custom("one", size=2), "one"), save="two"),
            put("replace an old version", _ONE, _versioned(_custom("one", size=3), "one")),
            put("replace, nothing changed", _ONE, _versioned(_custom("one", size=2), "two")),
            put(
                "labels leave the generation",
                _ONE,
                {
                    **_versioned(_custom("one", size=2), "two"),
                    "metadata": {
                        "name": "one",
                        "labels": {"a": "b"},
                        "resourceVersion": "${two.metadata.resourceVersion}",
                    },
                },
            ),
            patch("merge patch", _ONE, {"spec": {"size": 3}}),
            patch("json patch", _ONE, [{"op": "add", "path": "/spec/colour", "value": "blue"}], JSON_PATCH),
            patch("strategic patch", _ONE, {"spec": {"size": 4}}, STRATEGIC_PATCH),
            patch("remove a default", _ONE, {"spec": {"size": None}}),
            patch("status through the object", _ONE, {"status": {"ready": True}}),
            patch(
                "status",
                f"{_ONE}/status",
                {"status": {"ready": True, "conditions": [{"type": "Ready", "status": "True"}], "replicas": 2}},
            ),
            patch(
                "spec and labels through the status",
                f"{_ONE}/status",
                {"spec": {"size": 9}, "metadata": {"labels": {"z": "z"}}, "status": {"ready": False}},
            ),
            patch("status of a wrong type", f"{_ONE}/status", {"status": {"ready": "yes"}}),
            get("status is read", f"{_ONE}/status"),
            put("status is replaced without a version", f"{_ONE}/status", {**_custom("one"), "status": {}}),
            get("scale without replicas", f"{_ONE}/scale"),
            patch("scale it", f"{_ONE}/scale", {"spec": {"replicas": 3}}),
            get("scaled", f"{_ONE}/scale"),
            get("replicas", _ONE, view=lambda body: (body["spec"], body["metadata"]["generation"])),
            put(
                "scale by replacing",
                f"{_ONE}/scale",
                {
                    "apiVersion": "autoscaling/v1",
                    "kind": "Scale",
                    "metadata": {"name": "one"},
                    "spec": {"replicas": 4},
                },
            ),
            patch("scale to less than none", f"{_ONE}/scale", {"spec": {"replicas": -1}}),
            patch("scale to a text", f"{_ONE}/scale", {"spec": {"replicas": "x"}}),
            get("scale of what is absent", f"{_G}/none/scale"),
            get("other subresource", f"{_ONE}/bogus"),
            delete("status cannot be deleted", f"{_ONE}/status"),
            patch("finalizers leave the generation", _ONE, {"metadata": {"finalizers": ["x.dev/f"]}}),
            delete("deletion raises the generation", _ONE),
            patch("finalize", _ONE, {"metadata": {"finalizers": []}}),
        ),
    ),
    Scenario(
        name="schemas",
        steps=with_definition(
            "invalids",
            "Invalid",
            _refused("text for a number", size="1"),
            _refused("fraction for a number", size=1.5),
            _refused("whole fraction", size=1.0, name="TOO"),
            _refused("too small", size=-1),
            _refused("too big", size=11),
            _refused("not of the enumeration", colour="green"),
            _refused("number for a text", colour=1),
            _refused("too long", name="abcdef"),
            _refused("wrong pattern", name="A"),
            _refused("both", name="ABCDEF"),
            _refused("int32", replicas=3000000000),
            _refused("int or text", port=1.5),
            _refused("int or text or list", port=[]),
            _refused("number", ratio="x"),
            _refused("time", when="yesterday"),
            _refused("bool", flag="true"),
            _refused("null for a bool", flag=None, size=99),
            _refused("text for an object", free="x"),
            _refused("list for an object", labels=[]),
            _refused("value of a map", labels={"a": 1}),
            _refused("too many of a map", labels={"a": "1", "b": "2", "c": "3"}),
            _refused("object for a list", plain={}),
            _refused("too many of a list", plain=["a", "b", "c", "d"]),
            _refused("item of a list", plain=["a", 1]),
            _refused("null of a list", plain=["a", None]),
            _refused("duplicates of a set", tags=["a", "a"]),
            _refused("no key of a map list", parts=[{"weight": 1}]),
            _refused("duplicates of a map list", parts=[{"name": "a"}, {"name": "a"}]),
            _refused("item of a map list", parts=["a"]),
            _refused("required", nested={}),
            _refused("required is null", nested={"must": None}),
            _refused("many at once", size=99, colour="green", nested={}, plain=[1], ratio="x"),
            post("spec is a list", _I, {**gadget("Invalid", "x"), "spec": []}),
            post("spec is a text", _I, {**gadget("Invalid", "x"), "spec": "x"}),
            post("good", _I, gadget("Invalid", "x")),
            patch("patched to be wrong", f"{_I}/x", {"spec": {"size": 99}}),
            patch("patched to another type", f"{_I}/x", {"spec": []}),
            patch(
                "json patched to be wrong",
                f"{_I}/x",
                [{"op": "add", "path": "/spec/colour", "value": "green"}],
                JSON_PATCH,
            ),
        ),
    ),
)
