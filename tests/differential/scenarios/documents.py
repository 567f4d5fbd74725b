"""Discovery and OpenAPI: of the kinds that both servers serve, what clients read of them."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import Scenario, Step, get
from tests.differential.scenarios.bodies import with_definition

_AGGREGATED: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
_AGGREGATED_BETA: Final = (
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)
_GROUPS: Final = (
    "",
    "apps",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "coordination.k8s.io",
    "diff.example.dev",
    "discovery.k8s.io",
    "events.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
)
_RESOURCES: Final = frozenset(
    (
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "namespaces",
        "nodes",
        "pods",
        "resourcequotas",
        "secrets",
        "serviceaccounts",
        "services",
        "deployments",
        "leases",
        "endpointslices",
        "poddisruptionbudgets",
        "clusterrolebindings",
        "clusterroles",
        "rolebindings",
        "roles",
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "customresourcedefinitions",
        "documenteds",
        "selfsubjectreviews",
        "tokenreviews",
        "localsubjectaccessreviews",
        "selfsubjectaccessreviews",
        "selfsubjectrulesreviews",
        "subjectaccessreviews",
    )
)
_SUBRESOURCES: Final = frozenset(
    ("status", "scale", "binding", "eviction", "exec", "log", "attach", "portforward", "token", "finalize")
)


def _aggregated(body: Any) -> Any:
    """Our groups, versions v1, resources by name."""
    if not isinstance(body, dict) or "items" not in body:
        return body
    groups = {}
    for group in body["items"]:
        name = group["metadata"].get("name", "")
        if name not in _GROUPS:
            continue
        groups[name] = {
            version["version"]: {
                "freshness": version.get("freshness"),
                **{
                    each["resource"]: _resource(each)
                    for each in version["resources"]
                    if each["resource"] in _RESOURCES
                },
            }
            for version in group["versions"]
            if version["version"] == "v1"
        }
    return {**body, "items": groups}


def _resource(resource: Any) -> Any:
    kept = {key: value for key, value in resource.items() if key not in ("resource", "subresources")}
    kept["verbs"] = sorted(kept["verbs"])
    kept["subresources"] = {
        each["subresource"]: {**each, "verbs": sorted(each["verbs"])}
        for each in resource.get("subresources", [])
        if each["subresource"] in _SUBRESOURCES
    }
    return kept


def _groups(body: Any) -> Any:
    if not isinstance(body, dict) or "groups" not in body:
        return body
    ours = {
        group["name"]: {**group, "versions": [each for each in group["versions"] if each["version"] == "v1"]}
        for group in body["groups"]
        if group["name"] in _GROUPS
    }
    return {**body, "groups": ours}


def _resources(body: Any) -> Any:
    if not isinstance(body, dict) or "resources" not in body:
        return body
    kept = {}
    for resource in body["resources"]:
        name, _, sub = resource["name"].partition("/")
        if name in _RESOURCES and (not sub or sub in _SUBRESOURCES):
            shown = {key: value for key, value in resource.items() if key != "storageVersionHash"}
            kept[resource["name"]] = {**shown, "verbs": sorted(resource["verbs"])}
    return {**body, "resources": kept}


def _index(body: Any) -> Any:
    """Which documents there are, of our groups."""
    if not isinstance(body, dict) or "paths" not in body:
        return body
    ours = {"api/v1", *(f"apis/{group}/v1" for group in _GROUPS if group)}
    return {
        path: value["serverRelativeURL"].split("?")[0] for path, value in body["paths"].items() if path in ours
    }


def _parameters(path: str, verb: str) -> Any:
    """Names of an operation's parameters, and its kind and action."""

    def view(body: Any) -> Any:
        operation = (
            body["paths"].get(path, {}).get(verb, {}) if isinstance(body, dict) and "paths" in body else body
        )
        if not isinstance(operation, dict):
            return operation
        names = sorted(each.get("name", "") for each in operation.get("parameters", []))
        return {
            "parameters": names,
            "kind": operation.get("x-kubernetes-group-version-kind"),
            "action": operation.get("x-kubernetes-action"),
        }

    return view


def _schema(name: str) -> Any:
    """Names and types of a schema's fields, its lists' keys and its kinds."""

    def view(body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        schemas = body.get("components", {}).get("schemas") or body.get("definitions") or {}
        found = schemas.get(name)
        if found is None:
            return f"no schema {name}"
        keys = (
            "type",
            "x-kubernetes-list-type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-patch-strategy",
            "x-kubernetes-patch-merge-key",
            "x-kubernetes-map-type",
        )
        fields = {
            field: {key: each[key] for key in keys if key in each}
            for field, each in found.get("properties", {}).items()
        }
        return {
            "fields": fields,
            "required": found.get("required"),
            "kinds": found.get("x-kubernetes-group-version-kind"),
        }

    return view


def _v3(id: str, path: str, view: Any) -> Step:
    return get(id, f"/openapi/v3/{path}", view=view)


_K: Final = "io.k8s.api.core.v1"

SCENARIOS: Final = (
    Scenario(
        name="discovery",
        steps=with_definition(
            "documenteds",
            "Documented",
            get("groups, aggregated", "/apis", accept=_AGGREGATED, view=_aggregated),
            get("core, aggregated", "/api", accept=_AGGREGATED, view=_aggregated),
            get(
                "groups, aggregated, beta",
                "/apis",
                accept=_AGGREGATED_BETA,
                view=lambda body: body.get("apiVersion"),
            ),
            get("groups", "/apis", view=_groups),
            get(
                "core",
                "/api",
                view=lambda body: {
                    key: value for key, value in body.items() if key != "serverAddressByClientCIDRs"
                },
            ),
            get("core resources", "/api/v1", view=_resources),
            *(
                step
                for group in _GROUPS
                if group
                for step in (
                    get(
                        f"group {group}",
                        f"/apis/{group}",
                        view=lambda body: {
                            **body,
                            "versions": [each for each in body.get("versions", []) if each["version"] == "v1"],
                        },
                    ),
                    get(f"resources of {group}", f"/apis/{group}/v1", view=_resources),
                )
            ),
        ),
    ),
    Scenario(
        name="openapi",
        steps=with_definition(
            "specifieds",
            "Specified",
            get("index", "/openapi/v3", view=_index),
            get("unknown document", "/openapi/v3/apis/bogus.example.dev/v1"),
            *(
                _v3(f"schema of {name}", "api/v1", _schema(f"{_K}.{name}"))
                for name in (
                    "Pod",
                    "PodSpec",
                    "Container",
                    "ConfigMap",
                    "Secret",
                    "Service",
                    "ServiceSpec",
                    "ServiceAccount",
                    "Namespace",
                    "PodStatus",
                )
            ),
            _v3("schema of Deployment", "apis/apps/v1", _schema("io.k8s.api.apps.v1.Deployment")),
            _v3("schema of Lease", "apis/coordination.k8s.io/v1", _schema("io.k8s.api.coordination.v1.Lease")),
            _v3("schema of Role", "apis/rbac.authorization.k8s.io/v1", _schema("io.k8s.api.rbac.v1.Role")),
            _v3(
                "patch of config maps",
                "api/v1",
                _parameters("/api/v1/namespaces/{namespace}/configmaps/{name}", "patch"),
            ),
            _v3("post of pods", "api/v1", _parameters("/api/v1/namespaces/{namespace}/pods", "post")),
            _v3("get of namespaces", "api/v1", _parameters("/api/v1/namespaces/{name}", "get")),
            _v3(
                "put of deployments",
                "apis/apps/v1",
                _parameters("/apis/apps/v1/namespaces/{namespace}/deployments/{name}", "put"),
            ),
            get(
                "of custom objects",
                "/openapi/v3/apis/diff.example.dev/v1",
                until=200,
                view=_schema("dev.example.diff.v1.Specified"),
            ),
            get(
                "patch of custom objects",
                "/openapi/v3/apis/diff.example.dev/v1",
                until=200,
                view=_parameters("/apis/diff.example.dev/v1/namespaces/{namespace}/specifieds/{name}", "patch"),
            ),
            get(
                "version 2",
                "/openapi/v2",
                view=lambda body: (
                    (body.get("swagger"), _schema(f"{_K}.ConfigMap")(body)) if isinstance(body, dict) else body
                ),
            ),
        ),
    ),
)
