"""JSON patches, merge patches and strategic merge patches."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import JSON_PATCH, STRATEGIC_PATCH, Scenario, Step, get, patch, post
from tests.differential.scenarios.bodies import ACCOUNTS, CONFIG_MAPS, DEPLOYMENTS, PODS, SERVICES, config_map, pod

_A: Final = f"{CONFIG_MAPS}/a"
_P: Final = f"{PODS}/p"
_S: Final = f"{SERVICES}/s"
_D: Final = f"{DEPLOYMENTS}/d"


def _json(id: str, *operations: Any, path: str = _A, **more: Any) -> Step:
    return patch(id, path, list(operations), JSON_PATCH, **more)


def _strategic(id: str, change: Any, path: str = _A) -> Step:
    return patch(id, path, change, STRATEGIC_PATCH)


def _op(op: str, path: str, value: Any = None, **more: Any) -> dict[str, Any]:
    return {"op": op, "path": path, **({} if value is None else {"value": value}), **more}


def _template(*containers: Any, **spec: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(containers), **spec}}}}


_CONTAINERS: Final = [
    {
        "name": "a",
        "image": "one",
        "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
        "ports": [{"containerPort": 80, "name": "web"}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "args": ["x", "y"],
    },
    {"name": "b", "image": "two"},
]
_DEPLOYMENT: Final = {
    "metadata": {"name": "d"},
    "spec": {
        "replicas": 0,
        "paused": True,
        "selector": {"matchLabels": {"app": "d"}},
        "template": {
            "metadata": {"labels": {"app": "d"}},
            "spec": {
                "containers": _CONTAINERS,
                "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "c"}}],
                "tolerations": [{"key": "k", "operator": "Exists"}],
                "nodeSelector": {"x": "y"},
                "imagePullSecrets": [{"name": "s1"}],
                "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["h"]}],
            },
        },
    },
}


def _spec(body: Any) -> Any:
    """Of a Deployment, what patches are about."""
    return body.get("spec", {}).get("template", {}).get("spec") or body


SCENARIOS: Final = (
    Scenario(
        name="merge patch",
        steps=(
            post("create", CONFIG_MAPS, config_map("a", {"k": "1", "l": "2"}, labels={"x": "y"}), save="a"),
            patch("change", _A, {"data": {"k": "2"}}),
            patch("nothing", _A, {}),
            patch("same value", _A, {"data": {"k": "2"}}),
            patch("remove a key", _A, {"data": {"l": None}}),
            patch("remove what is absent", _A, {"data": {"none": None}}),
            patch("remove a map", _A, {"data": None}),
            patch(
                "add a map",
                _A,
                {"data": {"m": "1"}, "metadata": {"labels": {"x": None}, "annotations": {"n": "1"}}},
            ),
            patch(
                "old version",
                _A,
                {"metadata": {"resourceVersion": "${a.metadata.resourceVersion}"}, "data": {"k": "x"}},
            ),
            patch("other uid", _A, {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}}),
            patch("other name", _A, {"metadata": {"name": "b"}}),
            patch("other namespace", _A, {"metadata": {"namespace": "b"}}),
            patch("other kind", _A, {"kind": "Secret"}),
            patch("other version of the API", _A, {"apiVersion": "v2"}),
            patch("wrong type", _A, {"data": {"a": 1}}),
            patch("wrong type of a map", _A, {"data": []}),
            patch("a list", _A, []),
            patch("a text", _A, '"x"'),
            patch("broken JSON", _A, "{"),
            patch("empty body", _A, ""),
            patch("absent", f"{CONFIG_MAPS}/none", {"data": {}}),
            patch(
                "creationTimestamp stays",
                _A,
                {"metadata": {"creationTimestamp": None, "uid": None, "resourceVersion": None}},
            ),
            patch("unknown field", _A, {"bogus": 1}),
            patch("unknown field, strictly", _A, {"bogus": 1}, query={"fieldValidation": "Strict"}),
            patch("force is not for it", _A, {"data": {}}, query={"force": "true"}),
            patch("field manager", _A, {"data": {"f": "1"}}, query={"fieldManager": "me"}),
            patch("field manager is too long", _A, {"data": {"f": "2"}}, query={"fieldManager": "m" * 129}),
            patch("field manager is not printable", _A, {"data": {"f": "2"}}, query={"fieldManager": "a\nb"}),
        ),
    ),
    Scenario(
        name="json patch",
        steps=(
            post("create", CONFIG_MAPS, config_map("a", {"k": "1", "l": "2"}, labels={"x.dev/y": "z"})),
            _json("add", _op("add", "/data/m", "3")),
            _json("replace", _op("replace", "/data/k", "9")),
            _json("remove", _op("remove", "/data/l")),
            _json("copy", {"op": "copy", "from": "/data/k", "path": "/data/c"}),
            _json("move", {"op": "move", "from": "/data/c", "path": "/data/d"}),
            _json("test holds", _op("test", "/data/k", "9"), _op("add", "/data/t", "1")),
            _json("test fails", _op("test", "/data/k", "8"), _op("add", "/data/t", "2")),
            _json("test of what is absent", _op("test", "/data/none", "8")),
            _json("remove what is absent", _op("remove", "/data/none")),
            _json("replace what is absent", _op("replace", "/data/none", "1")),
            _json("add below what is absent", _op("add", "/none/x", "1")),
            _json("move from what is absent", {"op": "move", "from": "/data/none", "path": "/data/d"}),
            _json("escaped key", _op("replace", "/metadata/labels/x.dev~1y", "q")),
            _json("unknown operation", _op("bogus", "/data/k")),
            _json("no path", {"op": "add", "value": 1}),
            _json("nothing to do"),
            patch("not a list", _A, {"op": "add"}, JSON_PATCH),
            patch("broken JSON", _A, "[{", JSON_PATCH),
            patch("list of texts", _A, ["x"], JSON_PATCH),
            _json("wrong type", _op("add", "/data/k", 1)),
            _json("remove metadata", _op("remove", "/metadata")),
            _json("other name", _op("replace", "/metadata/name", "b")),
            _json("remove the name", _op("remove", "/metadata/name")),
            _json(
                "whole document",
                _op("replace", "", {"metadata": {"name": "a"}, "data": {"w": "1"}}),
                query={"dryRun": "All"},
            ),
            _json("add a finalizer list", _op("add", "/metadata/finalizers", ["example.dev/f"])),
            _json("append", _op("add", "/metadata/finalizers/-", "example.dev/g")),
            _json("insert", _op("add", "/metadata/finalizers/0", "example.dev/e")),
            _json("insert out of range", _op("add", "/metadata/finalizers/9", "example.dev/e")),
            _json("negative index", _op("remove", "/metadata/finalizers/-1")),
            _json("remove an item", _op("remove", "/metadata/finalizers/1")),
            _json("unknown field", _op("add", "/bogus", 1)),
            _json("no operations"),
            _json("too many operations", *[_op("add", "/data/k", "1")] * 10001, query={"dryRun": "All"}),
            _json("absent object", _op("add", "/data/x", "1"), path=f"{CONFIG_MAPS}/none"),
            _json("clean up", _op("remove", "/metadata/finalizers")),
        ),
    ),
    Scenario(
        name="strategic merge patch",
        steps=(
            post("create", CONFIG_MAPS, config_map("a", {"k": "1", "l": "2"}, finalizers=["x.dev/a", "x.dev/b"])),
            _strategic("change", {"data": {"k": "2"}}),
            _strategic("remove", {"data": {"l": None}}),
            _strategic("replace a map", {"data": {"$patch": "replace", "n": "1"}}),
            _strategic("delete a map", {"data": {"$patch": "delete"}}),
            _strategic("unknown directive", {"data": {"$patch": "bogus"}}),
            _strategic("finalizers are merged", {"metadata": {"finalizers": ["x.dev/c"]}}),
            _strategic("finalizer is deleted", {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x.dev/a"]}}),
            _strategic(
                "order of finalizers",
                {"metadata": {"$setElementOrder/finalizers": ["x.dev/c", "x.dev/b"], "finalizers": ["x.dev/c"]}},
            ),
            _strategic("wrong type", {"data": "x"}),
            _strategic("broken JSON", "{"),
            _strategic("a list", []),
            _strategic("annotations", {"metadata": {"annotations": {"a": "b"}}}),
            patch("clean up", _A, {"metadata": {"finalizers": None}}),
        ),
    ),
    Scenario(
        name="strategic merge patch of a template",
        steps=(
            post("create", DEPLOYMENTS, _DEPLOYMENT, view=_spec),
            *(
                patch(name, _D, change, STRATEGIC_PATCH, view=_spec)
                for name, change in {
                    "image of one": _template({"name": "b", "image": "three"}),
                    "new container": _template({"name": "n", "image": "four"}),
                    "delete a container": _template({"name": "n", "$patch": "delete"}),
                    "env": _template(
                        {"name": "a", "env": [{"name": "Y", "value": "9"}, {"name": "Z", "value": "3"}]}
                    ),
                    "delete env": _template({"name": "a", "env": [{"name": "X", "$patch": "delete"}]}),
                    "env of another source": _template(
                        {
                            "name": "a",
                            "env": [
                                {
                                    "name": "Y",
                                    "value": None,
                                    "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
                                }
                            ],
                        }
                    ),
                    "ports": _template({"name": "a", "ports": [{"containerPort": 81}]}),
                    "mounts": _template({"name": "a", "volumeMounts": [{"mountPath": "/w", "name": "w"}]}),
                    "args are replaced": _template({"name": "a", "args": ["z"]}),
                    "order": _template({"name": "b"}, {"name": "a"}),
                    "set order": {
                        "spec": {
                            "template": {
                                "spec": {
                                    "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                                    "containers": [{"name": "a", "image": "five"}],
                                }
                            }
                        }
                    },
                    "volume of another kind": {
                        "spec": {
                            "template": {"spec": {"volumes": [{"name": "w", "configMap": None, "emptyDir": {}}]}}
                        }
                    },
                    "volume keeps its keys": {
                        "spec": {
                            "template": {
                                "spec": {
                                    "volumes": [
                                        {
                                            "name": "w",
                                            "$retainKeys": ["name", "secret"],
                                            "secret": {"secretName": "q"},
                                        }
                                    ]
                                }
                            }
                        }
                    },
                    "tolerations are replaced": {
                        "spec": {"template": {"spec": {"tolerations": [{"key": "z", "operator": "Exists"}]}}}
                    },
                    "pull secrets": {"spec": {"template": {"spec": {"imagePullSecrets": [{"name": "s2"}]}}}},
                    "host aliases": {
                        "spec": {"template": {"spec": {"hostAliases": [{"ip": "1.2.3.5", "hostnames": ["i"]}]}}}
                    },
                    "node selector": {"spec": {"template": {"spec": {"nodeSelector": {"x": None, "z": "1"}}}}},
                    "replace all containers": {
                        "spec": {
                            "template": {
                                "spec": {"containers": [{"$patch": "replace"}, {"name": "only", "image": "six"}]}
                            }
                        }
                    },
                    "no merge key": _template({"image": "seven"}),
                    "strategy": {
                        "spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": None}}
                    },
                }.items()
            ),
            get("in the end", _D),
        ),
    ),
    Scenario(
        name="strategic merge patch of other kinds",
        steps=(
            post(
                "service",
                SERVICES,
                {
                    "metadata": {"name": "s"},
                    "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "name": "http"}]},
                },
            ),
            _strategic("service port", {"spec": {"ports": [{"port": 81, "name": "more"}]}}, _S),
            _strategic("service port is changed", {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}, _S),
            _strategic("service port is deleted", {"spec": {"ports": [{"port": 81, "$patch": "delete"}]}}, _S),
            _strategic("service selector", {"spec": {"selector": {"$patch": "replace", "c": "d"}}}, _S),
            post(
                "service account",
                ACCOUNTS,
                {"metadata": {"name": "sa"}, "imagePullSecrets": [{"name": "x"}], "secrets": [{"name": "q"}]},
            ),
            _strategic(
                "account secrets",
                {"secrets": [{"name": "r"}], "imagePullSecrets": [{"name": "y"}]},
                f"{ACCOUNTS}/sa",
            ),
            post("pod", PODS, pod("p")),
            _strategic("pod image", {"spec": {"containers": [{"name": "c", "image": "example.dev/app:2"}]}}, _P),
            _strategic("pod toleration", {"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}}, _P),
            _strategic("pod field that cannot change", {"spec": {"nodeSelector": {"a": "b"}}}, _P),
            patch(
                "pod status",
                f"{_P}/status",
                {"status": {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}},
                STRATEGIC_PATCH,
            ),
            patch(
                "pod status, one more condition",
                f"{_P}/status",
                {"status": {"conditions": [{"type": "Mine", "status": "False"}]}},
                STRATEGIC_PATCH,
            ),
            patch(
                "pod status, changed condition",
                f"{_P}/status",
                {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "R"}]}},
                STRATEGIC_PATCH,
            ),
            patch(
                "pod ips",
                f"{_P}/status",
                {"status": {"podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}]}},
                STRATEGIC_PATCH,
            ),
        ),
    ),
)
