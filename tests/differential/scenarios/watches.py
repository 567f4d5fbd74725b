"""Watches: initial events, versions, selectors, bookmarks, ends."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import (
    PARTIAL,
    TABLE,
    OpenWatch,
    ReadWatch,
    Scenario,
    Step,
    delete,
    get,
    patch,
    post,
    put,
)
from tests.differential.scenarios.bodies import CONFIG_MAPS, config_map, gadget, gadgets, with_definition

_OWN: Final = {"labelSelector": "own"}
_GADGETS: Final = gadgets("watcheds")


def _cm(name: str, data: Any = None, /, **labels: str) -> Any:
    return config_map(name, data, labels={"own": "1", **labels})


def _quiet(step: Step) -> Step:
    """Only whether it worked."""
    return Step(
        **{**{name: getattr(step, name) for name in step.__slots__}, "view": lambda body: body.get("kind")}
    )


SCENARIOS: Final = (
    Scenario(
        name="watch",
        steps=(
            post("a", CONFIG_MAPS, _cm("a", {"k": "1"}), save="a"),
            OpenWatch(
                id="from a version",
                name="v",
                path=CONFIG_MAPS,
                query={**_OWN, "resourceVersion": "${a.metadata.resourceVersion}"},
            ),
            OpenWatch(id="from now", name="n", path=CONFIG_MAPS, query=_OWN),
            OpenWatch(id="from any", name="z", path=CONFIG_MAPS, query={**_OWN, "resourceVersion": "0"}),
            OpenWatch(id="one name", name="o", path=CONFIG_MAPS, query={"fieldSelector": "metadata.name=a"}),
            OpenWatch(id="one object", name="w", path=f"{CONFIG_MAPS}/a"),
            OpenWatch(id="old path", name="old", path="/api/v1/watch/namespaces/{ns}/configmaps", query=_OWN),
            OpenWatch(id="all namespaces", name="all", path="/api/v1/configmaps", query=_OWN),
            OpenWatch(id="labelled", name="l", path=CONFIG_MAPS, query={"labelSelector": "own,app=x"}),
            put("change a", f"{CONFIG_MAPS}/a", _cm("a", {"k": "2"})),
            post("create b", CONFIG_MAPS, _cm("b")),
            put("nothing changes", f"{CONFIG_MAPS}/b", _cm("b")),
            patch("a gets the label", f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"app": "x"}}}),
            patch("a changes with the label", f"{CONFIG_MAPS}/a", {"data": {"k": "3"}}),
            patch("a loses the label", f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"app": "y"}}}),
            patch("a changes without the label", f"{CONFIG_MAPS}/a", {"data": {"k": "4"}}),
            delete("delete b", f"{CONFIG_MAPS}/b"),
            delete("delete a", f"{CONFIG_MAPS}/a"),
            ReadWatch(id="events since the version", name="v", count=8),
            ReadWatch(id="events since now", name="n", count=9),
            ReadWatch(id="events since any", name="z", count=9),
            ReadWatch(id="events of one name", name="o", count=7),
            ReadWatch(id="events of one object", name="w", count=7),
            ReadWatch(id="events of the old path", name="old", count=9),
            ReadWatch(id="events of the label", name="l", count=3),
        ),
    ),
    Scenario(
        name="watch with initial events",
        steps=(
            _quiet(post("a", CONFIG_MAPS, _cm("a"), save="a")),
            _quiet(post("b", CONFIG_MAPS, _cm("b"))),
            OpenWatch(
                id="streaming list",
                name="s",
                path=CONFIG_MAPS,
                query={
                    **_OWN,
                    "sendInitialEvents": "true",
                    "allowWatchBookmarks": "true",
                    "resourceVersionMatch": "NotOlderThan",
                },
            ),
            ReadWatch(id="its events", name="s", count=3),
            OpenWatch(
                id="streaming list at a version",
                name="t",
                path=CONFIG_MAPS,
                query={
                    **_OWN,
                    "sendInitialEvents": "true",
                    "allowWatchBookmarks": "true",
                    "resourceVersionMatch": "NotOlderThan",
                    "resourceVersion": "${a.metadata.resourceVersion}",
                },
            ),
            ReadWatch(id="events at a version", name="t", count=3),
            OpenWatch(
                id="streaming list of nothing",
                name="e",
                path=CONFIG_MAPS,
                query={
                    "labelSelector": "own=none",
                    "sendInitialEvents": "true",
                    "allowWatchBookmarks": "true",
                    "resourceVersionMatch": "NotOlderThan",
                },
            ),
            ReadWatch(id="end of nothing", name="e", count=1),
            OpenWatch(
                id="no initial events",
                name="f",
                path=CONFIG_MAPS,
                query={**_OWN, "sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"},
            ),
            OpenWatch(id="tables", name="table", path=CONFIG_MAPS, query=_OWN, accept=TABLE),
            OpenWatch(id="metadata", name="partial", path=CONFIG_MAPS, query=_OWN, accept=PARTIAL),
            _quiet(post("c", CONFIG_MAPS, _cm("c", {"x": "y"}))),
            ReadWatch(id="after the streaming list", name="s", count=1),
            ReadWatch(id="only new ones", name="f", count=1),
            ReadWatch(id="rows", name="table", count=3),
            ReadWatch(id="partial objects", name="partial", count=3),
            get("without a match", CONFIG_MAPS, query={"watch": "true", "sendInitialEvents": "true"}),
            get(
                "with another match",
                CONFIG_MAPS,
                query={
                    "watch": "true",
                    "sendInitialEvents": "true",
                    "resourceVersionMatch": "Exact",
                    "resourceVersion": "1",
                },
            ),
            get(
                "match without initial events",
                CONFIG_MAPS,
                query={"watch": "true", "resourceVersionMatch": "NotOlderThan", "resourceVersion": "1"},
            ),
            get(
                "without bookmarks",
                CONFIG_MAPS,
                query={
                    **_OWN,
                    "watch": "true",
                    "sendInitialEvents": "true",
                    "resourceVersionMatch": "NotOlderThan",
                    "timeoutSeconds": "1",
                },
                view=lambda body: "text" if isinstance(body, str) else body,
            ),
        ),
    ),
    Scenario(
        name="watch refused and ended",
        steps=(
            _quiet(post("a", CONFIG_MAPS, _cm("a"))),
            OpenWatch(id="time limit", name="t", path=CONFIG_MAPS, query={**_OWN, "timeoutSeconds": "1"}),
            ReadWatch(id="clean end", name="t"),
            OpenWatch(
                id="time limit with bookmarks",
                name="b",
                path=CONFIG_MAPS,
                query={**_OWN, "timeoutSeconds": "1", "allowWatchBookmarks": "true", "resourceVersion": "0"},
            ),
            ReadWatch(id="end with bookmarks", name="b"),
            get("version is no number", CONFIG_MAPS, query={"watch": "true", "resourceVersion": "x"}),
            get("bad selector", CONFIG_MAPS, query={"watch": "true", "labelSelector": "a b"}),
            get("bad field", CONFIG_MAPS, query={"watch": "true", "fieldSelector": "spec.x=y"}),
            get("bad watch", CONFIG_MAPS, query={"watch": "bogus", "labelSelector": "own", "timeoutSeconds": "1"}),
            get("bad time limit", CONFIG_MAPS, query={"watch": "true", "timeoutSeconds": "x"}),
            get("not a watch", CONFIG_MAPS, query={"watch": "false", "labelSelector": "own=none"}),
            get("watch=0", CONFIG_MAPS, query={"watch": "0", "labelSelector": "own=none"}),
            OpenWatch(id="absent object", name="x", path=f"{CONFIG_MAPS}/none", query={"timeoutSeconds": "1"}),
            get("unknown kind", "/api/v1/namespaces/{ns}/bogus", query={"watch": "true"}),
            OpenWatch(
                id="absent namespace",
                name="ns",
                path="/api/v1/namespaces/nowhere/configmaps",
                query={"timeoutSeconds": "1"},
            ),
            ReadWatch(id="nothing of the namespace", name="ns"),
        ),
    ),
    Scenario(
        name="watch of custom objects",
        steps=with_definition(
            "watcheds",
            "Watched",
            _quiet(post("a", _GADGETS, gadget("Watched", "a", colour="red"))),
            OpenWatch(id="all", name="all", path=_GADGETS),
            OpenWatch(id="red", name="red", path=_GADGETS, query={"fieldSelector": "spec.colour=red"}),
            OpenWatch(id="table", name="table", path=_GADGETS, accept=TABLE),
            _quiet(patch("status", f"{_GADGETS}/a/status", {"status": {"ready": True}})),
            _quiet(patch("blue", f"{_GADGETS}/a", {"spec": {"colour": "blue"}})),
            _quiet(patch("finalizer", f"{_GADGETS}/a", {"metadata": {"finalizers": ["x.dev/f"]}})),
            _quiet(delete("delete", f"{_GADGETS}/a")),
            _quiet(patch("finalized", f"{_GADGETS}/a", {"metadata": {"finalizers": None}})),
            ReadWatch(id="all events", name="all", count=6),
            ReadWatch(id="red events", name="red", count=3),
            ReadWatch(id="table events", name="table", count=6),
        ),
    ),
)
