"""Deleting: preconditions, finalizers, propagation, collections; the life of a namespace."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import Scenario, delete, get, patch, post, put
from tests.differential.scenarios.bodies import (
    ACCOUNTS,
    CONFIG_MAPS,
    PODS,
    config_map,
    gadget,
    gadgets,
    pod,
    with_definition,
)

_A: Final = f"{CONFIG_MAPS}/a"
_OTHER: Final = "00000000-0000-0000-0000-000000000000"
_SPACE: Final = "/api/v1/namespaces/{ns}-space"
_GADGETS: Final = gadgets("deleteds")


def _options(**options: Any) -> Any:
    return {"kind": "DeleteOptions", "apiVersion": "v1", **options}


def _owned(name: str, owner: str, **more: Any) -> Any:
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner, **more}
    return config_map(name, ownerReferences=[reference])


def _kinds(body: Any) -> Any:
    return body.get("kind") if isinstance(body, dict) else body


SCENARIOS: Final = (
    Scenario(
        name="delete",
        steps=(
            post("create", CONFIG_MAPS, config_map("a"), save="a"),
            delete("other uid", _A, _options(preconditions={"uid": _OTHER})),
            delete("other version", _A, _options(preconditions={"resourceVersion": "1"})),
            delete(
                "right preconditions",
                _A,
                _options(
                    preconditions={"uid": "${a.metadata.uid}", "resourceVersion": "${a.metadata.resourceVersion}"}
                ),
            ),
            delete("absent", _A),
            post("create again", CONFIG_MAPS, config_map("a", finalizers=["x.dev/f"])),
            delete("with a finalizer", _A),
            delete("with a finalizer again", _A),
            get("being deleted", _A),
            put("deletion cannot be taken back", _A, config_map("a", finalizers=["x.dev/f"])),
            patch("no new finalizer", _A, {"metadata": {"finalizers": ["x.dev/f", "x.dev/g"]}}),
            patch("a label", _A, {"metadata": {"labels": {"x": "y"}}}),
            post("name is taken", CONFIG_MAPS, config_map("a")),
            patch("last finalizer", _A, {"metadata": {"finalizers": []}}),
            get("gone", _A),
            post("for the query", CONFIG_MAPS, config_map("a")),
            delete(
                "options in the query", _A, query={"propagationPolicy": "Background", "gracePeriodSeconds": "0"}
            ),
            post("for bad options", CONFIG_MAPS, config_map("a")),
            delete("unknown policy", _A, _options(propagationPolicy="Bogus")),
            delete("negative grace", _A, _options(gracePeriodSeconds=-5)),
            delete("policy and orphans", _A, _options(propagationPolicy="Background", orphanDependents=True)),
            delete("other kind of options", _A, {"kind": "ConfigMap", "apiVersion": "v1"}),
            delete("broken options", _A, "{"),
            delete("unknown field of options", _A, _options(bogus=1)),
            delete("without kind", _A, {"gracePeriodSeconds": 0}),
            get("after all that", _A),
        ),
    ),
    Scenario(
        name="propagation",
        steps=(
            post("owner", CONFIG_MAPS, config_map("owner"), save="o"),
            post("dependant", CONFIG_MAPS, _owned("d1", "${o.metadata.uid}")),
            post(
                "blocking dependant",
                CONFIG_MAPS,
                _owned("d2", "${o.metadata.uid}", controller=True, blockOwnerDeletion=True),
            ),
            post("of an absent owner", CONFIG_MAPS, _owned("d3", _OTHER)),
            get("the absent owner's is gone", f"{CONFIG_MAPS}/d3", until=404),
            delete("background", f"{CONFIG_MAPS}/owner", _options(propagationPolicy="Background")),
            get("owner is gone", f"{CONFIG_MAPS}/owner"),
            get("dependant is gone", f"{CONFIG_MAPS}/d1", until=404),
            get("second is gone", f"{CONFIG_MAPS}/d2", until=404),
            post("owner 2", CONFIG_MAPS, config_map("owner"), save="p"),
            post(
                "dependant 2",
                CONFIG_MAPS,
                config_map(
                    "e",
                    ownerReferences=[
                        {
                            "apiVersion": "v1",
                            "kind": "ConfigMap",
                            "name": "owner",
                            "uid": "${p.metadata.uid}",
                            "blockOwnerDeletion": True,
                        }
                    ],
                    finalizers=["x.dev/f"],
                ),
            ),
            delete("foreground", f"{CONFIG_MAPS}/owner", _options(propagationPolicy="Foreground"), view=_kinds),
            get(
                "owner waits", f"{CONFIG_MAPS}/owner", view=lambda body: body.get("metadata", {}).get("finalizers")
            ),
            patch("release the dependant", f"{CONFIG_MAPS}/e", {"metadata": {"finalizers": None}}, view=_kinds),
            get("owner 2 is gone", f"{CONFIG_MAPS}/owner", until=404),
            post("owner 3", CONFIG_MAPS, config_map("owner"), save="q"),
            post("dependant 3", CONFIG_MAPS, _owned("orphan", "${q.metadata.uid}")),
            delete("orphan", f"{CONFIG_MAPS}/owner", _options(propagationPolicy="Orphan"), view=_kinds),
            get("owner 3 is gone", f"{CONFIG_MAPS}/owner", until=404),
            get("orphan stays", f"{CONFIG_MAPS}/orphan"),
        ),
    ),
    Scenario(
        name="delete collection",
        steps=(
            *(
                post(f"create {name}", CONFIG_MAPS, config_map(name, labels={"own": "1", "n": name}), view=_kinds)
                for name in "abcd"
            ),
            delete("by label", CONFIG_MAPS, query={"labelSelector": "n=a"}),
            delete("by field", CONFIG_MAPS, query={"fieldSelector": "metadata.name=b", "labelSelector": "own"}),
            delete("of nothing", CONFIG_MAPS, query={"labelSelector": "own=none"}),
            delete("bad selector", CONFIG_MAPS, query={"labelSelector": "a b"}),
            delete(
                "bad options", CONFIG_MAPS, _options(propagationPolicy="Bogus"), query={"labelSelector": "own"}
            ),
            delete("all of ours", CONFIG_MAPS, query={"labelSelector": "own"}),
            get("nothing is left", CONFIG_MAPS, query={"labelSelector": "own"}),
            delete("of all namespaces", "/api/v1/configmaps", query={"labelSelector": "own=none"}),
            delete(
                "services have no such verb",
                "/api/v1/namespaces/{ns}/services",
                query={"labelSelector": "own=none"},
            ),
            delete("namespaces have no such verb", "/api/v1/namespaces"),
        ),
    ),
    Scenario(
        name="delete what is graceful",
        steps=(
            post("pod without a node", PODS, pod("p"), view=_kinds),
            delete("at once", f"{PODS}/p"),
            post("pod with a node", PODS, pod("p", nodeName="n1"), view=_kinds),
            delete("gracefully", f"{PODS}/p", _options(gracePeriodSeconds=5)),
            delete("longer is not possible", f"{PODS}/p", _options(gracePeriodSeconds=50)),
            delete("sooner", f"{PODS}/p", _options(gracePeriodSeconds=2)),
            get("still there", f"{PODS}/p", view=lambda body: body.get("metadata")),
            delete("forced", f"{PODS}/p", _options(gracePeriodSeconds=0)),
            get("gone", f"{PODS}/p"),
            post("pod with a node, default grace", PODS, pod("p", nodeName="n1"), view=_kinds),
            delete("default grace", f"{PODS}/p"),
            delete("force it", f"{PODS}/p", query={"gracePeriodSeconds": "0"}),
            post("service account", ACCOUNTS, {"metadata": {"name": "s"}}, view=_kinds),
            delete("service account is told whole", f"{ACCOUNTS}/s"),
        ),
    ),
    Scenario(
        name="delete custom objects",
        steps=with_definition(
            "deleteds",
            "Deleted",
            post("create", _GADGETS, gadget("Deleted", "a"), save="a"),
            delete("other uid", f"{_GADGETS}/a", _options(preconditions={"uid": _OTHER})),
            delete("delete", f"{_GADGETS}/a"),
            delete("absent", f"{_GADGETS}/a"),
            post(
                "create with a finalizer",
                _GADGETS,
                {**gadget("Deleted", "b"), "metadata": {"name": "b", "finalizers": ["x.dev/f"]}},
            ),
            delete("wait for the finalizer", f"{_GADGETS}/b"),
            put(
                "finalizer is removed",
                f"{_GADGETS}/b",
                {**gadget("Deleted", "b"), "metadata": {"name": "b", "resourceVersion": "1"}},
            ),
            patch(
                "finalizer is patched away",
                f"{_GADGETS}/b",
                [{"op": "remove", "path": "/metadata/finalizers"}],
                "application/json-patch+json",
            ),
            get("gone", f"{_GADGETS}/b"),
            delete("collection", _GADGETS),
        ),
    ),
    Scenario(
        name="namespaces",
        steps=(
            post("create", "/api/v1/namespaces", {"metadata": {"name": "{ns}-space", "labels": {"a": "b"}}}),
            post("create again", "/api/v1/namespaces", {"metadata": {"name": "{ns}-space"}}),
            get("get", _SPACE),
            get("status", f"{_SPACE}/status"),
            patch("label", _SPACE, {"metadata": {"labels": {"a": "c", "kubernetes.io/metadata.name": "x"}}}),
            post(
                "config map with a finalizer",
                f"{_SPACE}/configmaps",
                config_map("a", finalizers=["x.dev/f"]),
                view=_kinds,
            ),
            delete("delete", _SPACE),
            post("no new objects", f"{_SPACE}/configmaps", config_map("b")),
            patch("changes are possible", f"{_SPACE}/configmaps/a", {"data": {"k": "v"}}, view=_kinds),
            get("still there", _SPACE, view=lambda body: body.get("status", {}).get("phase")),
            patch("release", f"{_SPACE}/configmaps/a", {"metadata": {"finalizers": None}}, view=_kinds),
            get("gone", _SPACE, until=404),
            delete("default stays", "/api/v1/namespaces/default"),
            delete("absent", "/api/v1/namespaces/nowhere"),
            get("absent one", "/api/v1/namespaces/nowhere"),
            put(
                "finalize what is absent", "/api/v1/namespaces/nowhere/finalize", {"metadata": {"name": "nowhere"}}
            ),
        ),
    ),
)
