"""Tables and bare metadata."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import PARTIAL, PARTIAL_LIST, TABLE, Scenario, Step, delete, get, patch, post
from tests.differential.scenarios.bodies import (
    ACCOUNTS,
    CONFIG_MAPS,
    DEFINITIONS,
    DEPLOYMENTS,
    LEASES,
    PODS,
    RBAC,
    SECRETS,
    SERVICES,
    config_map,
    gadget,
    gadgets,
    pod,
    with_definition,
)

_G: Final = gadgets("tableds")


def _quiet(body: Any) -> Any:
    return body.get("kind") if isinstance(body, dict) else body


def _columns(body: Any) -> Any:
    """Names, types and formats; the texts of the descriptions are no behaviour."""
    if not isinstance(body, dict) or body.get("kind") != "Table":
        return body
    columns = [
        (each["name"], each["type"], each["format"], each["priority"]) for each in body["columnDefinitions"]
    ]
    return {**body, "columnDefinitions": columns}


def _table(id: str, path: str, **query: str) -> Step:
    return get(id, path, query=query, accept=TABLE, view=_columns)


SCENARIOS: Final = (
    Scenario(
        name="tables",
        steps=(
            post(
                "config map", CONFIG_MAPS, config_map("a", {"x": "1", "y": "2"}, labels={"own": "1"}), view=_quiet
            ),
            get("config map, with the texts", f"{CONFIG_MAPS}/a", accept=TABLE),
            _table("config maps", CONFIG_MAPS, labelSelector="own"),
            _table("page", CONFIG_MAPS, labelSelector="own", limit="1"),
            _table("empty", CONFIG_MAPS, labelSelector="own=none"),
            _table("whole objects", f"{CONFIG_MAPS}/a", includeObject="Object"),
            _table("no objects", f"{CONFIG_MAPS}/a", includeObject="None"),
            _table("unknown objects", f"{CONFIG_MAPS}/a", includeObject="Bogus"),
            _table("absent", f"{CONFIG_MAPS}/none"),
            get(
                "older form",
                f"{CONFIG_MAPS}/a",
                accept="application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                view=_columns,
            ),
            post("answer to a post", CONFIG_MAPS, config_map("b"), accept=TABLE, view=_columns),
            delete("answer to a delete", f"{CONFIG_MAPS}/b", accept=TABLE, view=_columns),
            post("secret", SECRETS, {"metadata": {"name": "s"}, "data": {"a": "AAEC"}}, view=_quiet),
            _table("secrets", f"{SECRETS}/s"),
            post(
                "service",
                SERVICES,
                {
                    "metadata": {"name": "s"},
                    "spec": {
                        "clusterIP": "None",
                        "selector": {"a": "b"},
                        "ports": [{"name": "w", "port": 80}, {"name": "x", "port": 81, "protocol": "UDP"}],
                    },
                },
                view=_quiet,
            ),
            _table("services", f"{SERVICES}/s"),
            post(
                "external service",
                SERVICES,
                {"metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "a.example.dev"}},
                view=_quiet,
            ),
            _table("external services", f"{SERVICES}/e"),
            post("service account", ACCOUNTS, {"metadata": {"name": "sa"}}, view=_quiet),
            _table("service accounts", f"{ACCOUNTS}/sa"),
            post("pod", PODS, pod("p"), view=_quiet),
            _table("pods", f"{PODS}/p"),
            patch(
                "pod status",
                f"{PODS}/p/status",
                {
                    "status": {
                        "phase": "Running",
                        "podIP": "10.1.2.3",
                        "podIPs": [{"ip": "10.1.2.3"}],
                        "conditions": [{"type": "Ready", "status": "True"}],
                        "containerStatuses": [
                            {
                                "name": "c",
                                "ready": True,
                                "restartCount": 2,
                                "image": "i",
                                "imageID": "",
                                "state": {"running": {"startedAt": "2001-01-01T00:00:00Z"}},
                            }
                        ],
                    }
                },
                view=_quiet,
            ),
            _table("running pod", f"{PODS}/p"),
            patch(
                "pod waits",
                f"{PODS}/p/status",
                {
                    "status": {
                        "containerStatuses": [
                            {
                                "name": "c",
                                "ready": False,
                                "restartCount": 2,
                                "image": "i",
                                "imageID": "",
                                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                            }
                        ],
                        "conditions": [{"type": "Ready", "status": "False"}],
                    }
                },
                view=_quiet,
            ),
            _table("waiting pod", f"{PODS}/p"),
            patch(
                "pod ends",
                f"{PODS}/p/status",
                {
                    "status": {
                        "phase": "Failed",
                        "containerStatuses": [
                            {
                                "name": "c",
                                "ready": False,
                                "restartCount": 2,
                                "image": "i",
                                "imageID": "",
                                "state": {"terminated": {"exitCode": 3, "reason": "Error"}},
                            }
                        ],
                    }
                },
                view=_quiet,
            ),
            _table("ended pod", f"{PODS}/p"),
            post(
                "deployment",
                DEPLOYMENTS,
                {
                    "metadata": {"name": "d"},
                    "spec": {
                        "paused": True,
                        "replicas": 0,
                        "selector": {"matchLabels": {"a": "b"}},
                        "template": {
                            "metadata": {"labels": {"a": "b"}},
                            "spec": {"containers": [{"name": "c", "image": "i"}]},
                        },
                    },
                },
                view=_quiet,
            ),
            _table("deployments", f"{DEPLOYMENTS}/d"),
            post("lease", LEASES, {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}, view=_quiet),
            _table("leases", f"{LEASES}/l"),
            post("role", f"{RBAC}/namespaces/{{ns}}/roles", {"metadata": {"name": "r"}, "rules": []}, view=_quiet),
            _table("roles", f"{RBAC}/namespaces/{{ns}}/roles/r"),
            post(
                "role binding",
                f"{RBAC}/namespaces/{{ns}}/rolebindings",
                {
                    "metadata": {"name": "r"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
                    "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}],
                },
                view=_quiet,
            ),
            _table("role bindings", f"{RBAC}/namespaces/{{ns}}/rolebindings/r"),
            _table("namespace", "/api/v1/namespaces/{ns}"),
        ),
    ),
    Scenario(
        name="tables of custom objects",
        steps=with_definition(
            "tableds",
            "Tabled",
            post(
                "full",
                _G,
                gadget("Tabled", "a", colour="red", flag=True, when="2001-01-01T00:00:00Z", plain=["a", "b"]),
                view=_quiet,
            ),
            post("empty", _G, gadget("Tabled", "b"), view=_quiet),
            patch(
                "ready",
                f"{_G}/a/status",
                {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
                view=_quiet,
            ),
            get("all", _G, accept=TABLE),
            _table("one", f"{_G}/a"),
            _table("definition", f"{DEFINITIONS}/tableds.diff.example.dev"),
        ),
    ),
    Scenario(
        name="bare metadata",
        steps=(
            post("config map", CONFIG_MAPS, config_map("a", {"x": "1"}, labels={"own": "1"}), view=_quiet),
            get("one", f"{CONFIG_MAPS}/a", accept=PARTIAL),
            get("list", CONFIG_MAPS, query={"labelSelector": "own"}, accept=PARTIAL_LIST),
            get("list as one", CONFIG_MAPS, query={"labelSelector": "own"}, accept=PARTIAL),
            get("one as list", f"{CONFIG_MAPS}/a", accept=PARTIAL_LIST),
            patch("answer to a patch", f"{CONFIG_MAPS}/a", {"data": {"y": "1"}}, accept=PARTIAL),
            get("page", CONFIG_MAPS, query={"labelSelector": "own", "limit": "1"}, accept=PARTIAL_LIST),
        ),
    ),
)
