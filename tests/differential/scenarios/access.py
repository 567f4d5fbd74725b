"""RBAC objects and reviews."""

from __future__ import annotations

from typing import Any, Final

from tests.differential.model import Scenario, Step, delete, get, patch, post, put
from tests.differential.scenarios.bodies import RBAC

_ROLES: Final = f"{RBAC}/namespaces/{{ns}}/roles"
_BINDINGS: Final = f"{RBAC}/namespaces/{{ns}}/rolebindings"
_REVIEWS: Final = "/apis/authorization.k8s.io/v1"
_RULE: Final = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
_REF: Final = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
_USER: Final = {"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}


def _role(id: str, name: str = "x", **fields: Any) -> Step:
    return post(id, _ROLES, {"metadata": {"name": name}, **fields})


def _binding(id: str, name: str = "x", ref: Any = _REF, *subjects: Any) -> Step:
    return post(id, _BINDINGS, {"metadata": {"name": name}, "roleRef": ref, "subjects": list(subjects)})


def _subject(id: str, user: str, groups: Any = (), **attributes: Any) -> Step:
    spec = {"user": user, "groups": list(groups), "resourceAttributes": attributes}
    return post(id, f"{_REVIEWS}/subjectaccessreviews", {"spec": spec}, view=_verdict)


def _verdict(body: Any) -> Any:
    """Whether it is allowed; the reason names the binding, which differs by name only."""
    return body["status"].get("allowed") if isinstance(body.get("status"), dict) else body


SCENARIOS: Final = (
    Scenario(
        name="roles",
        steps=(
            _role("create", "r", rules=[_RULE]),
            _role("no rules", "s"),
            _role("null rules", "t", rules=None),
            _role("name with colons", "system:x", rules=[]),
            _role("name with a slash", "a/b", rules=[]),
            _role("name with a percent", "a%b", rules=[]),
            _role("no verbs", rules=[{"apiGroups": [""], "resources": ["pods"]}]),
            _role("no groups", rules=[{"resources": ["pods"], "verbs": ["get"]}]),
            _role("no resources", rules=[{"apiGroups": [""], "verbs": ["get"]}]),
            _role("URLs in a role", rules=[{"nonResourceURLs": ["/x"], "verbs": ["get"]}]),
            post(
                "cluster role",
                f"{RBAC}/clusterroles",
                {"metadata": {"name": "diff:r"}, "rules": [_RULE, {"nonResourceURLs": ["/x"], "verbs": ["get"]}]},
            ),
            post(
                "URLs and resources",
                f"{RBAC}/clusterroles",
                {"metadata": {"name": "diff:x"}, "rules": [{**_RULE, "nonResourceURLs": ["/x"]}]},
            ),
            patch("add a rule", f"{_ROLES}/r", {"rules": [_RULE, {**_RULE, "resources": ["secrets"]}]}),
            _binding("bind", "b", _REF, _USER),
            _binding("account", "c", _REF, {"kind": "ServiceAccount", "name": "s", "namespace": "{ns}"}),
            _binding(
                "group, filled in",
                "d",
                {"kind": "Role", "name": "r"} | {"apiGroup": "rbac.authorization.k8s.io"},
                {"kind": "Group", "name": "g"},
            ),
            _binding("no subjects", "e"),
            _binding("account without a namespace", "x", _REF, {"kind": "ServiceAccount", "name": "s"}),
            _binding("unknown subject", "x", _REF, {"kind": "Bogus", "name": "s"}),
            _binding("subject without a name", "x", _REF, {"kind": "User"}),
            _binding("no role", "x", {}),
            _binding("role without a name", "x", {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role"}),
            _binding(
                "unknown kind of role",
                "x",
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "Bogus", "name": "r"},
            ),
            _binding("unknown group of role", "x", {"apiGroup": "bogus", "kind": "Role", "name": "r"}),
            put(
                "role cannot change",
                f"{_BINDINGS}/b",
                {"metadata": {"name": "b"}, "roleRef": {**_REF, "name": "s"}, "subjects": [_USER]},
            ),
            put(
                "subjects may change",
                f"{_BINDINGS}/b",
                {"metadata": {"name": "b"}, "roleRef": _REF, "subjects": [{**_USER, "name": "v"}]},
            ),
            post(
                "cluster binding",
                f"{RBAC}/clusterrolebindings",
                {
                    "metadata": {"name": "diff:r"},
                    "roleRef": {**_REF, "kind": "ClusterRole", "name": "diff:r"},
                    "subjects": [{**_USER, "name": "diff-user"}],
                },
            ),
            post(
                "cluster binding of a role",
                f"{RBAC}/clusterrolebindings",
                {"metadata": {"name": "diff:x"}, "roleRef": _REF, "subjects": []},
            ),
            _subject("allowed by the role", "v", namespace="{ns}", verb="get", resource="pods"),
            _subject("not elsewhere", "v", namespace="other", verb="get", resource="pods"),
            _subject("not another verb", "v", namespace="{ns}", verb="delete", resource="pods"),
            _subject("not a subresource", "v", namespace="{ns}", verb="get", resource="pods", subresource="log"),
            _subject("by the group", "w", ["g"], namespace="{ns}", verb="get", resource="secrets"),
            _subject(
                "by the account", "system:serviceaccount:{ns}:s", namespace="{ns}", verb="get", resource="pods"
            ),
            _subject(
                "everywhere by the cluster role", "diff-user", namespace="other", verb="get", resource="pods"
            ),
            _subject("administrator", "any", ["system:masters"], verb="*", resource="*", group="*"),
            _subject("nobody", "nobody", namespace="{ns}", verb="get", resource="pods"),
            post(
                "by a URL",
                f"{_REVIEWS}/subjectaccessreviews",
                {"spec": {"user": "diff-user", "nonResourceAttributes": {"path": "/x", "verb": "get"}}},
                view=_verdict,
            ),
            post(
                "another URL",
                f"{_REVIEWS}/subjectaccessreviews",
                {"spec": {"user": "diff-user", "nonResourceAttributes": {"path": "/y", "verb": "get"}}},
                view=_verdict,
            ),
            post(
                "local review",
                f"{_REVIEWS}/namespaces/{{ns}}/localsubjectaccessreviews",
                {
                    "metadata": {"namespace": "{ns}"},
                    "spec": {
                        "user": "v",
                        "resourceAttributes": {"namespace": "{ns}", "verb": "get", "resource": "pods"},
                    },
                },
                view=_verdict,
            ),
            post(
                "local review of another namespace",
                f"{_REVIEWS}/namespaces/{{ns}}/localsubjectaccessreviews",
                {
                    "metadata": {"namespace": "{ns}"},
                    "spec": {
                        "user": "v",
                        "resourceAttributes": {"namespace": "other", "verb": "get", "resource": "pods"},
                    },
                },
            ),
            delete("cluster role is deleted", f"{RBAC}/clusterroles/diff:r", view=lambda body: body.get("status")),
            delete(
                "cluster binding is deleted",
                f"{RBAC}/clusterrolebindings/diff:r",
                view=lambda body: body.get("status"),
            ),
        ),
    ),
    Scenario(
        name="reviews",
        steps=(
            post(
                "own access",
                f"{_REVIEWS}/selfsubjectaccessreviews",
                {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}},
                view=_verdict,
            ),
            post(
                "own access, whole",
                f"{_REVIEWS}/selfsubjectaccessreviews",
                {
                    "kind": "SelfSubjectAccessReview",
                    "apiVersion": "authorization.k8s.io/v1",
                    "spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "{ns}"}},
                },
                view=lambda body: {
                    key: sorted(value) if key == "status" else value for key, value in body.items()
                },
            ),
            post("of nothing", f"{_REVIEWS}/selfsubjectaccessreviews", {"spec": {}}),
            post(
                "of both",
                f"{_REVIEWS}/selfsubjectaccessreviews",
                {
                    "spec": {
                        "resourceAttributes": {"verb": "get", "resource": "pods"},
                        "nonResourceAttributes": {"path": "/", "verb": "get"},
                    }
                },
            ),
            post(
                "of nobody",
                f"{_REVIEWS}/subjectaccessreviews",
                {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}},
            ),
            post("of no attributes", f"{_REVIEWS}/subjectaccessreviews", {"spec": {"user": "u"}}),
            post(
                "own rules",
                f"{_REVIEWS}/selfsubjectrulesreviews",
                {"spec": {"namespace": "{ns}"}},
                view=lambda body: (
                    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]} in body["status"]["resourceRules"]
                    if "status" in body and isinstance(body["status"], dict)
                    else body
                ),
            ),
            post("own rules of no namespace", f"{_REVIEWS}/selfsubjectrulesreviews", {"spec": {}}),
            post(
                "who am I",
                "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                {},
                view=lambda body: (
                    body["kind"],
                    "system:masters" in body["status"]["userInfo"]["groups"],
                    "system:authenticated" in body["status"]["userInfo"]["groups"],
                ),
            ),
            post(
                "bad token",
                "/apis/authentication.k8s.io/v1/tokenreviews",
                {"spec": {"token": "bogus"}},
                view=lambda body: {
                    **body,
                    "status": {**body["status"], "error": bool(body["status"].get("error"))},
                },
            ),
            post("no token", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {}}),
            get("reviews cannot be listed", "/apis/authentication.k8s.io/v1/tokenreviews"),
        ),
    ),
)
