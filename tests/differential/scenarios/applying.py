"""Server-side apply: fields have owners, conflicts are told, what nobody owns any more is removed."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import (
    APPLY_PATCH,
    JSON_PATCH,
    Scenario,
    Step,
    apply,
    get,
    patch,
    post,
    put,
)
from tests.differential.scenarios.bodies import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    config_map,
    gadget,
    gadgets,
    with_definition,
)

_A: Final = f"{CONFIG_MAPS}/a"
_D: Final = f"{DEPLOYMENTS}/d"
_G: Final = f"{gadgets('applieds')}/g"


def _cm(data: Any = None, /, **metadata: Any) -> Any:
    return config_map("a", data, **metadata)


def _deployment(*containers: Any, **spec: Any) -> Any:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "paused": True,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": list(containers)}},
            **spec,
        },
    }


def _gadget(**spec: Any) -> Any:
    return gadget("Applied", "g", **spec)


def _bad(id: str, body: Any, **query: str) -> Step:
    return patch(id, _A, body, APPLY_PATCH, query=query)


SCENARIOS: Final = (
    Scenario(
        name="apply",
        ownership=True,
        steps=(
            apply("create", _A, _cm({"k": "1", "l": "2"}, labels={"x": "y"})),
            apply("again", _A, _cm({"k": "1", "l": "2"}, labels={"x": "y"})),
            apply("change", _A, _cm({"k": "2", "l": "2"}, labels={"x": "y"})),
            apply("drop a field", _A, _cm({"k": "2"}, labels={"x": "y"})),
            apply("conflict", _A, _cm({"k": "3"}), "two"),
            apply("conflict of two fields", _A, _cm({"k": "3"}, labels={"x": "z"}), "two"),
            apply("same value is shared", _A, _cm({"k": "2", "t": "1"}), "two"),
            apply("forced", _A, _cm({"k": "3", "t": "1"}), "two", force="true"),
            apply("the first lost it", _A, _cm({"k": "2"}, labels={"x": "y"})),
            apply("the first gives it up", _A, _cm(labels={"x": "y"})),
            patch("an update takes a field", _A, {"data": {"k": "4"}}, query={"fieldManager": "editor"}),
            apply("conflict with an update", _A, _cm({"k": "5", "t": "1"}), "two"),
            apply("forced against an update", _A, _cm({"k": "5", "t": "1"}), "two", force="true"),
            put(
                "a replacement owns what it changes",
                _A,
                _cm({"k": "5", "t": "2", "u": "1"}),
                query={"fieldManager": "editor"},
            ),
            patch("manager of the agent", _A, {"data": {"agent": "1"}}),
            apply("nothing any more", _A, _cm(), "two"),
            get("in the end", _A),
            apply("dry run", _A, _cm({"k": "9"}), "two", force="true", dryRun="All"),
            apply("annotations", _A, _cm(annotations={"a": "1"}), "three"),
            apply("finalizers are a set", _A, _cm(finalizers=["x.dev/a"]), "three"),
            apply("finalizers of another", _A, _cm(finalizers=["x.dev/b"]), "four"),
            apply("finalizer is dropped", _A, _cm(), "three"),
            patch("clear", _A, [{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}], JSON_PATCH),
            apply("after clearing", _A, _cm({"k": "6"}, finalizers=["x.dev/b"]), "four"),
            patch("managed fields are emptied", _A, {"metadata": {"managedFields": []}}),
            patch("unfinalize", _A, {"metadata": {"finalizers": None}}),
        ),
    ),
    Scenario(
        name="apply refused",
        steps=(
            post("exists", CONFIG_MAPS, _cm({"k": "1"})),
            _bad("no manager", _cm({"k": "1"})),
            _bad(
                "managed fields",
                _cm({}, managedFields=[{"manager": "x", "operation": "Apply", "apiVersion": "v1"}]),
                fieldManager="m",
            ),
            _bad("other name", config_map("b"), fieldManager="m"),
            _bad("no name", {"apiVersion": "v1", "kind": "ConfigMap"}, fieldManager="m"),
            _bad("other namespace", _cm(namespace="other"), fieldManager="m"),
            _bad("no kind", {"apiVersion": "v1", "metadata": {"name": "a"}}, fieldManager="m"),
            _bad("no apiVersion", {"kind": "ConfigMap", "metadata": {"name": "a"}}, fieldManager="m"),
            _bad(
                "other kind", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}, fieldManager="m"
            ),
            _bad(
                "other apiVersion",
                {"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}},
                fieldManager="m",
            ),
            _bad("unknown field", {**_cm({"k": "1"}), "bogus": 1}, fieldManager="m", force="true"),
            _bad(
                "unknown field, strictly",
                {**_cm({"k": "1"}), "bogus": 1},
                fieldManager="m",
                fieldValidation="Strict",
            ),
            _bad("wrong type", _cm({"k": 1}), fieldManager="m", force="true"),
            _bad("wrong type of a map", _cm([]), fieldManager="m", force="true"),
            _bad("broken YAML", "a: [", fieldManager="m"),
            _bad(
                "yaml",
                "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: '1'\n",
                fieldManager="m",
            ),
            _bad(
                "duplicate key",
                "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: '1'\n  k: '2'\n",
                fieldManager="m",
            ),
            _bad("a list", [], fieldManager="m"),
            _bad("empty", "", fieldManager="m"),
            _bad("old version", _cm({"k": "1"}, resourceVersion="1"), fieldManager="m", force="true"),
            _bad(
                "uid of another",
                _cm({"k": "1"}, uid="00000000-0000-0000-0000-000000000000"),
                fieldManager="m",
                force="true",
            ),
            patch(
                "uid on what is absent",
                f"{CONFIG_MAPS}/none",
                config_map("none", uid="00000000-0000-0000-0000-000000000000"),
                APPLY_PATCH,
                query={"fieldManager": "m"},
            ),
            patch(
                "version on what is absent",
                f"{CONFIG_MAPS}/none",
                config_map("none", resourceVersion="1"),
                APPLY_PATCH,
                query={"fieldManager": "m"},
            ),
            patch(
                "invalid and absent",
                f"{CONFIG_MAPS}/none",
                config_map("none", {"a b": "c"}),
                APPLY_PATCH,
                query={"fieldManager": "m"},
            ),
            _bad("invalid", _cm({"a b": "c"}), fieldManager="m"),
            get("unchanged", _A),
        ),
    ),
    Scenario(
        name="apply to lists",
        ownership=True,
        steps=(
            apply(
                "create",
                _D,
                _deployment(
                    {
                        "name": "a",
                        "image": "one",
                        "env": [{"name": "X", "value": "1"}],
                        "ports": [{"containerPort": 80}],
                    },
                    replicas=0,
                ),
            ),
            apply("another container", _D, _deployment({"name": "b", "image": "two"}), "two"),
            apply("same container", _D, _deployment({"name": "a", "image": "three"}), "two"),
            apply("other env", _D, _deployment({"name": "a", "env": [{"name": "Y", "value": "2"}]}), "two"),
            apply(
                "env goes",
                _D,
                _deployment({"name": "a", "image": "one", "ports": [{"containerPort": 80}]}, replicas=0),
            ),
            apply("container goes", _D, _deployment({"name": "a", "image": "one"}), "two"),
            apply("args are one field", _D, _deployment({"name": "a", "image": "one", "args": ["x"]}), "three"),
            apply("args of another", _D, _deployment({"name": "a", "image": "one", "args": ["y"]}), "four"),
            apply(
                "duplicate containers",
                _D,
                _deployment({"name": "a", "image": "one"}, {"name": "a", "image": "two"}),
                "five",
            ),
            patch(
                "status by apply",
                f"{_D}/status",
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": "d"},
                    "status": {"conditions": [{"type": "Mine", "status": "True"}]},
                },
                APPLY_PATCH,
                query={"fieldManager": "status"},
            ),
            patch("replicas by scale", f"{_D}/scale", {"spec": {"replicas": 0}}, query={"fieldManager": "scaler"}),
            apply(
                "replicas dropped",
                _D,
                _deployment({"name": "a", "image": "one", "ports": [{"containerPort": 80}]}),
            ),
            get("in the end", _D),
        ),
    ),
    Scenario(
        name="apply to custom objects",
        ownership=True,
        steps=with_definition(
            "applieds",
            "Applied",
            apply("create", _G, _gadget(size=2, parts=[{"name": "a"}], tags=["x"], plain=["p"])),
            apply("again", _G, _gadget(size=2, parts=[{"name": "a"}], tags=["x"], plain=["p"])),
            apply("conflict", _G, _gadget(size=3), "two"),
            apply("list map is merged", _G, _gadget(parts=[{"name": "b", "weight": 3}]), "two"),
            apply("list set is merged", _G, _gadget(parts=[{"name": "b", "weight": 3}], tags=["y"]), "two"),
            apply("plain list is one field", _G, _gadget(plain=["q"]), "three"),
            apply("plain list is forced", _G, _gadget(plain=["q"]), "three", force="true"),
            apply("unknown field", _G, _gadget(bogus=1), "four"),
            apply("unknown field, strictly", _G, _gadget(bogus=1), "four", fieldValidation="Strict"),
            apply("free fields", _G, _gadget(free={"a": {"b": [1]}}), "four"),
            apply("invalid", _G, _gadget(size=99), "one"),
            apply("wrong type", _G, _gadget(size="x"), "one"),
            apply("duplicate parts", _G, _gadget(parts=[{"name": "z"}, {"name": "z"}]), "five"),
            apply("drop", _G, _gadget(tags=["x"]), "one"),
            apply(
                "metadata only",
                _G,
                {
                    "apiVersion": "diff.example.dev/v1",
                    "kind": "Applied",
                    "metadata": {"name": "g", "labels": {"a": "b"}},
                },
                "six",
            ),
            patch("status", f"{_G}/status", {"status": {"ready": True}}, query={"fieldManager": "controller"}),
            patch(
                "status by apply",
                f"{_G}/status",
                {
                    "apiVersion": "diff.example.dev/v1",
                    "kind": "Applied",
                    "metadata": {"name": "g"},
                    "status": {"ready": False},
                },
                APPLY_PATCH,
                query={"fieldManager": "other"},
            ),
            get("in the end", _G),
        ),
    ),
)
