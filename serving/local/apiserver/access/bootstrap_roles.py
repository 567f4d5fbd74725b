"""The roles and bindings that every Kubernetes cluster has, as far as this server has what they speak of. Pure.

Rules also name kinds that this server does not serve (Jobs, StatefulSets), so that a role copied from here to a
cluster means the same there.
"""

from __future__ import annotations

from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver.access.policy import GROUP

AUTOUPDATE: Final = "rbac.authorization.kubernetes.io/autoupdate"
_LABEL: Final = "kubernetes.io/bootstrapping"
_AGGREGATE: Final = "rbac.authorization.k8s.io/aggregate-to-"
_API_VERSION: Final = f"{GROUP}/v1"
_READ: Final = "get list watch"
_WRITE: Final = "create delete deletecollection patch update"
_READ_WRITE: Final = "create delete deletecollection get list patch update watch"
_AUTHENTICATION: Final = "authentication.k8s.io"
_AUTHORIZATION: Final = "authorization.k8s.io"
_EVENTS: Final = ("", "events.k8s.io")
_PROBES: Final = "/livez /readyz /healthz /version /version/"


def _rule(verbs: str, groups: str | tuple[str, ...], resources: str) -> JsonObject:
    return {
        "apiGroups": [groups] if isinstance(groups, str) else list(groups),
        "resources": resources.split(),
        "verbs": verbs.split(),
    }


def _urls(verbs: str, urls: str) -> JsonObject:
    return {"nonResourceURLs": urls.split(), "verbs": verbs.split()}


def _view() -> list[JsonObject]:
    return [
        _rule(
            _READ,
            "",
            "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
            "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
        ),
        _rule(
            _READ,
            "",
            "bindings limitranges namespaces/status pods/log pods/status replicationcontrollers/status "
            "resourcequotas resourcequotas/status",
        ),
        _rule(_READ, "", "namespaces"),
        _rule(_READ, _EVENTS, "events"),
        _rule(_READ, "discovery.k8s.io", "endpointslices"),
        _rule(
            _READ,
            "apps",
            "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
            "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
        ),
        _rule(_READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
        _rule(_READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
        _rule(_READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
        _rule(_READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    ]


def _edit() -> list[JsonObject]:
    return [
        _rule(_READ, "", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
        _rule("impersonate", "", "serviceaccounts"),
        _rule(_WRITE, "", "pods pods/attach pods/exec pods/portforward pods/proxy"),
        _rule("create", "", "pods/eviction"),
        _rule(
            _WRITE,
            "",
            "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
            "serviceaccounts services services/proxy",
        ),
        _rule("create", "", "serviceaccounts/token"),
        _rule(_WRITE, _EVENTS, "events"),
        _rule(
            _WRITE,
            "apps",
            "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale "
            "statefulsets statefulsets/scale",
        ),
        _rule(_WRITE, "autoscaling", "horizontalpodautoscalers"),
        _rule(_WRITE, "batch", "cronjobs jobs"),
        _rule(_WRITE, "policy", "poddisruptionbudgets"),
        _rule(_WRITE, "networking.k8s.io", "ingresses networkpolicies"),
        _rule(_READ_WRITE, "coordination.k8s.io", "leases"),
    ]


def _node() -> list[JsonObject]:
    """What a kubelet needs."""
    return [
        _rule("create", _AUTHENTICATION, "tokenreviews"),
        _rule("create", _AUTHORIZATION, "localsubjectaccessreviews subjectaccessreviews"),
        _rule(_READ, "", "services"),
        _rule("create get list watch", "", "nodes"),
        _rule("patch update", "", "nodes nodes/status"),
        _rule("create patch update", _EVENTS, "events"),
        _rule(f"create delete {_READ}", "", "pods"),
        _rule("patch update", "", "pods/status"),
        _rule("create", "", "pods/eviction"),
        _rule(_READ, "", "configmaps secrets"),
        _rule("get", "", "endpoints persistentvolumeclaims persistentvolumes serviceaccounts"),
        _rule("create delete get patch update", "coordination.k8s.io", "leases"),
        _rule("create", "", "serviceaccounts/token"),
        _rule(_READ, "node.k8s.io", "runtimeclasses"),
    ]


def _role(name: str, rules: list[JsonObject] | None, *, into: str = "", aggregate: str = "") -> JsonObject:
    """`into`: whose aggregate it is part of; `aggregate`: what it gathers itself."""
    labels = {_LABEL: "rbac-defaults"}
    if into:
        labels[_AGGREGATE + into] = "true"
    role: JsonObject = {
        "apiVersion": _API_VERSION,
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}},
    }
    if aggregate:
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {_AGGREGATE + aggregate: "true"}}]}
    if rules is not None:
        role["rules"] = rules
    return role


def cluster_roles() -> list[JsonObject]:
    return [
        _role("cluster-admin", [_rule("*", "*", "*"), _urls("*", "*")]),
        _role("system:discovery", [_urls("get", f"/api /api/* /apis /apis/* /openapi /openapi/* {_PROBES}")]),
        _role(
            "system:monitoring",
            [
                _urls("get", "/metrics /metrics/slis /livez /livez/* /readyz /readyz/* /healthz /healthz/*"),
                _rule("get", "", "nodes/metrics"),
            ],
        ),
        _role(
            "system:basic-user",
            [
                _rule("create", _AUTHORIZATION, "selfsubjectaccessreviews selfsubjectrulesreviews"),
                _rule("create", _AUTHENTICATION, "selfsubjectreviews"),
            ],
        ),
        _role("system:public-info-viewer", [_urls("get", _PROBES)]),
        _role(
            "system:auth-delegator",
            [
                _rule("create", _AUTHENTICATION, "tokenreviews"),
                _rule("create", _AUTHORIZATION, "subjectaccessreviews"),
            ],
        ),
        _role(
            "system:service-account-issuer-discovery",
            [
                _urls(
                    "get",
                    "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks "
                    "/openid/v1/jwks/",
                )
            ],
        ),
        _role("system:node", _node()),
        _role("admin", None, aggregate="admin"),
        _role("edit", None, into="admin", aggregate="edit"),
        _role("view", None, into="edit", aggregate="view"),
        _role(
            "system:aggregate-to-admin",
            [
                _rule("create", _AUTHORIZATION, "localsubjectaccessreviews"),
                _rule(_READ_WRITE, GROUP, "rolebindings roles"),
            ],
            into="admin",
        ),
        _role("system:aggregate-to-edit", _edit(), into="edit"),
        _role("system:aggregate-to-view", _view(), into="view"),
    ]


def _binding(role: str, *groups: str) -> JsonObject:
    return {
        "apiVersion": _API_VERSION,
        "kind": "ClusterRoleBinding",
        "metadata": {"name": role, "labels": {_LABEL: "rbac-defaults"}, "annotations": {AUTOUPDATE: "true"}},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "Group", "apiGroup": GROUP, "name": group} for group in groups],
    }


def cluster_role_bindings() -> list[JsonObject]:
    everybody = "system:authenticated"
    return [
        _binding("cluster-admin", "system:masters"),
        _binding("system:monitoring", "system:monitoring"),
        _binding("system:discovery", everybody),
        _binding("system:basic-user", everybody),
        _binding("system:public-info-viewer", everybody, "system:unauthenticated"),
        _binding("system:service-account-issuer-discovery", "system:serviceaccounts"),
        # Nobody has it: nodes are let in by an authorizer of their own in a cluster, by nodeless-node here.
        _binding("system:node"),
    ]


def wanted(default: JsonObject, current: JsonObject | None) -> JsonObject | None:
    """What a default object should be changed to; None = nothing to do.

    As in Kubernetes, rules and subjects that are missing are put back and others stay, unless the object's
    annotation turns that off.
    """
    if current is None:
        return default
    metadata = current["metadata"]
    if (metadata.get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    result = dict(current)
    result["metadata"] = dict(metadata)
    for field in ("labels", "annotations"):
        kept = {**(default["metadata"].get(field) or {}), **(metadata.get(field) or {})}
        result["metadata"][field] = kept
    if "aggregationRule" in default:
        result.setdefault("aggregationRule", default["aggregationRule"])
    else:
        for field in ("rules", "subjects"):
            if field in default:
                have = list(current.get(field) or ())
                result[field] = have + [item for item in default[field] if item not in have]
    return None if result == current else result
