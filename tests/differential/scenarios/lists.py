"""Lists: selectors, pages, versions."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import Scenario, Step, delete, get, post, put
from tests.differential.scenarios.bodies import (
    CONFIG_MAPS,
    PODS,
    SECRETS,
    SERVICES,
    config_map,
    gadget,
    gadgets,
    pod,
    with_definition,
)


def _names(body: Any) -> Any:
    """Names and everything about the list itself."""
    if not isinstance(body, dict) or "items" not in body:
        return body
    return {
        **body,
        "items": [
            item["metadata"]["name"] for item in body["items"] if item["metadata"]["name"] != "kube-root-ca.crt"
        ],
    }


def _list(id: str, path: str = CONFIG_MAPS, **query: str) -> Step:
    return get(id, path, query={name.rstrip("_"): value for name, value in query.items()}, view=_names)


def _selected(selector: str) -> Step:
    return _list(f"labels {selector}", labelSelector=selector)


def _fields(selector: str, path: str = CONFIG_MAPS) -> Step:
    return _list(f"fields {selector} of {path.rsplit('/', 1)[1]}", path, fieldSelector=selector)


_GADGETS: Final = gadgets("listeds")

SCENARIOS: Final = (
    Scenario(
        name="selectors",
        steps=(
            *(
                post(
                    f"create {name}", CONFIG_MAPS, config_map(name, labels=labels), view=lambda body: body["kind"]
                )
                for name, labels in {
                    "a": {"own": "1", "app": "x", "tier": "front"},
                    "b": {"own": "1", "app": "x", "tier": "back"},
                    "c": {"own": "1", "app": "y"},
                    "d": {"own": "1", "empty": ""},
                }.items()
            ),
            get("whole", CONFIG_MAPS, query={"labelSelector": "own"}),
            *map(
                _selected,
                (
                    "app=x,own",
                    "app==x,own",
                    "app!=x,own",
                    "app in (x,y)",
                    "app notin (x),own",
                    "app,!tier",
                    "!app,own",
                    "empty=",
                    "empty=,own",
                    "app=x,tier=back",
                    "app in (x), tier notin (back)",
                    "own,app in ()",
                    "own, app",
                    "app=none",
                    "own>0",
                    "own<2",
                    "own > 1",
                    "app>1",
                    "app in x",
                    "app=x=y",
                    "=x",
                    "app in (x",
                    "a b",
                    ",",
                    "app!",
                    "-bad=x",
                    "app=-bad",
                    "app=" + "x" * 64,
                    "x.dev/a=b",
                    "a/b/c=d",
                    "(x)",
                ),
            ),
            *map(
                _fields,
                (
                    "metadata.name=a",
                    "metadata.name==a",
                    "metadata.name!=a,metadata.name!=kube-root-ca.crt",
                    "metadata.name=none",
                    "metadata.namespace={ns},metadata.name=b",
                    "metadata.namespace=other",
                    "metadata.name=a,metadata.name=b",
                    "spec.x=y",
                    "metadata.labels=x",
                    "metadata.name",
                    "metadata.name in (a)",
                    "=a",
                    "metadata.uid=x",
                    "data.k=v",
                ),
            ),
            _list("both selectors", labelSelector="app=x", fieldSelector="metadata.name=b"),
            _list(
                "all namespaces",
                "/api/v1/configmaps",
                labelSelector="own",
                fieldSelector="metadata.namespace={ns}",
            ),
            post("secret", SECRETS, {"metadata": {"name": "s"}, "type": "example.dev/t"}),
            _fields("type=example.dev/t", SECRETS),
            _fields("type=Opaque", SECRETS),
            post(
                "service",
                SERVICES,
                {"metadata": {"name": "s"}, "spec": {"type": "ExternalName", "externalName": "a.example.dev"}},
            ),
            _fields("spec.type=ExternalName", SERVICES),
            _fields("spec.type=ClusterIP", SERVICES),
            _fields("spec.clusterIP=None", SERVICES),
            _fields("spec.externalName=x", SERVICES),
        ),
    ),
    Scenario(
        name="pod selectors",
        steps=(
            post("p", PODS, pod("p"), view=lambda body: body["kind"]),
            post("q", PODS, pod("q", nodeName="n1", restartPolicy="Never"), view=lambda body: body["kind"]),
            *(
                _fields(selector, PODS)
                for selector in (
                    "status.phase=Pending",
                    "status.phase!=Pending",
                    "spec.nodeName=",
                    "spec.nodeName=n1",
                    "spec.nodeName!=n1",
                    "spec.restartPolicy=Never",
                    "spec.serviceAccountName=default",
                    "spec.schedulerName=default-scheduler",
                    "status.podIP=",
                    "spec.hostNetwork=false",
                    "status.nominatedNodeName=",
                    "spec.priority=0",
                    "status.phase=Pending,spec.nodeName=n1",
                    "spec.containers=x",
                )
            ),
        ),
    ),
    Scenario(
        name="pages",
        steps=(
            *(
                post(
                    f"create {name}",
                    CONFIG_MAPS,
                    config_map(name, labels={"own": "1"}),
                    view=lambda body: body["kind"],
                )
                for name in "abcde"
            ),
            _list("first two", limit="2", labelSelector="own"),
            get(
                "first two again",
                CONFIG_MAPS,
                query={"limit": "2", "labelSelector": "own"},
                save="page",
                view=_names,
            ),
            _list("next two", limit="2", labelSelector="own", continue_="${page.metadata.continue}"),
            _list("rest", labelSelector="own", continue_="${page.metadata.continue}"),
            post(
                "create in between",
                CONFIG_MAPS,
                config_map("bb", labels={"own": "1"}),
                view=lambda body: body["kind"],
            ),
            delete("delete in between", f"{CONFIG_MAPS}/d", view=lambda body: body["kind"]),
            _list("rest of what was", labelSelector="own", continue_="${page.metadata.continue}"),
            _list("other selector", limit="2", labelSelector="!none", continue_="${page.metadata.continue}"),
            _list("exact page", limit="5", labelSelector="own"),
            _list("all on a page", limit="50", labelSelector="own"),
            _list("limit 0", limit="0", labelSelector="own"),
            _list("limit is no number", limit="x"),
            _list("limit is negative", limit="-1", labelSelector="own"),
            _list("bad token", continue_="bogus"),
            _list("token and version", continue_="${page.metadata.continue}", resourceVersion="5"),
            _list(
                "token and version 0",
                continue_="${page.metadata.continue}",
                resourceVersion="0",
                labelSelector="own",
            ),
            _list("token and match", continue_="${page.metadata.continue}", resourceVersionMatch="Exact"),
            _list("limit and version 0", limit="2", resourceVersion="0", labelSelector="own"),
            *(
                post(f"secret {name}", SECRETS, {"metadata": {"name": name}}, view=lambda body: body["kind"])
                for name in "xyz"
            ),
            get("remaining are counted", SECRETS, query={"limit": "1"}, view=_names),
        ),
    ),
    Scenario(
        name="versions of lists",
        steps=(
            post("create a", CONFIG_MAPS, config_map("a", {"k": "1"}, labels={"own": "1"}), save="a"),
            _list("version before", labelSelector="own"),
            post("create b", CONFIG_MAPS, config_map("b", labels={"own": "1"})),
            put("change a", f"{CONFIG_MAPS}/a", config_map("a", {"k": "2"}, labels={"own": "1"})),
            _list("newest", labelSelector="own"),
            _list("any", labelSelector="own", resourceVersion="0"),
            _list(
                "any, explicitly", labelSelector="own", resourceVersion="0", resourceVersionMatch="NotOlderThan"
            ),
            _list(
                "not older",
                labelSelector="own",
                resourceVersion="${a.metadata.resourceVersion}",
                resourceVersionMatch="NotOlderThan",
            ),
            _list("not older, by default", labelSelector="own", resourceVersion="${a.metadata.resourceVersion}"),
            get(
                "exactly",
                CONFIG_MAPS,
                query={
                    "labelSelector": "own",
                    "resourceVersion": "${a.metadata.resourceVersion}",
                    "resourceVersionMatch": "Exact",
                },
            ),
            _list(
                "exactly, by a limit",
                labelSelector="own",
                resourceVersion="${a.metadata.resourceVersion}",
                limit="10",
            ),
            _list("exactly 0", resourceVersion="0", resourceVersionMatch="Exact"),
            _list("match without a version", resourceVersionMatch="Exact"),
            _list("unknown match", resourceVersion="1", resourceVersionMatch="Bogus"),
            _list("no number", resourceVersion="x"),
            _list("negative", resourceVersion="-1"),
            get("one, any", f"{CONFIG_MAPS}/a", query={"resourceVersion": "0"}),
            get("one, no number", f"{CONFIG_MAPS}/a", query={"resourceVersion": "x"}),
            _list("initial events without watch", sendInitialEvents="true"),
            _list("unknown parameter", labelSelector="own", bogus="1"),
            _list("pretty", labelSelector="own", pretty="true"),
        ),
    ),
    Scenario(
        name="lists of custom objects",
        steps=with_definition(
            "listeds",
            "Listed",
            post("a", _GADGETS, gadget("Listed", "a", colour="red"), view=lambda body: body["kind"]),
            post("b", _GADGETS, gadget("Listed", "b", colour="blue"), view=lambda body: body["kind"]),
            get("whole", _GADGETS),
            _fields("spec.colour=red", _GADGETS),
            _fields("spec.colour!=red", _GADGETS),
            _fields("spec.size=1", _GADGETS),
            _fields("metadata.name=a", _GADGETS),
            _list("page", _GADGETS, limit="1"),
            _list("none", _GADGETS, labelSelector="x=y"),
            _list("version from the future", _GADGETS, resourceVersion="999999999"),
        ),
    ),
)
