"""Rules, the policy and the check against escalation, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.api.meta import JsonObject
from serving.local.apiserver.access import escalation
from serving.local.apiserver.access.attributes import Attributes, of_path, of_target, refusal
from serving.local.apiserver.access.bootstrap_roles import AUTOUPDATE, cluster_role_bindings, cluster_roles, wanted
from serving.local.apiserver.access.policy import Policy, RoleKey
from serving.local.apiserver.access.rules import FULL_AUTHORITY, Rule, broken_down, covers, to_json, uncovered
from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.paths import Target, parse
from serving.local.apiserver.request import User

ALICE = User(name="alice", groups=("devs", "system:authenticated"))
ACCOUNT = User(name="system:serviceaccount:ns:builder", groups=("system:serviceaccounts",))


def rule(verbs: str, groups: str, resources: str, *names: str) -> Rule:
    """Words; `core` is the group without a name."""
    return Rule(
        verbs=tuple(verbs.split()),
        api_groups=tuple("" if group == "core" else group for group in groups.split()),
        resources=tuple(resources.split()),
        resource_names=names,
    )


def urls(verbs: str, paths: str) -> Rule:
    return Rule(verbs=tuple(verbs.split()), non_resource_urls=tuple(paths.split()))


def ask(
    verb: str, resource: str, *, user: User = ALICE, group: str = "", namespace: str = "", name: str = ""
) -> Attributes:
    resource, _, subresource = resource.partition("/")
    return Attributes(
        user=user,
        verb=verb,
        group=group,
        resource=resource,
        subresource=subresource,
        namespace=namespace,
        name=name,
    )


@pytest.mark.parametrize(
    ("allowing", "asked", "allowed"),
    [
        (rule("get list", "core", "pods"), ask("get", "pods"), True),
        (rule("get list", "core", "pods"), ask("delete", "pods"), False),
        (rule("get", "core", "pods"), ask("get", "pods/log"), False),
        (rule("get", "core", "pods/log"), ask("get", "pods/log"), True),
        (rule("get", "core", "pods/log"), ask("get", "pods"), False),
        (rule("get", "core", "*"), ask("get", "pods/log"), True),
        (rule("update", "apps", "*/scale"), ask("update", "deployments/scale", group="apps"), True),
        (rule("update", "apps", "*/scale"), ask("update", "deployments/status", group="apps"), False),
        (rule("update", "apps", "*/scale"), ask("update", "deployments", group="apps"), False),
        (rule("get", "*", "services"), ask("get", "services", group="serving.knative.dev"), True),
        (rule("get", "core", "services"), ask("get", "services", group="serving.knative.dev"), False),
        (rule("*", "core", "secrets", "mine"), ask("delete", "secrets", name="mine"), True),
        (rule("*", "core", "secrets", "mine"), ask("get", "secrets", name="yours"), False),
        (rule("*", "core", "secrets", "mine"), ask("list", "secrets"), False),
        (urls("get", "/healthz/*"), of_path(ALICE, "GET", "/healthz/etcd"), True),
        (urls("get", "/healthz/*"), of_path(ALICE, "GET", "/healthz"), False),
        (urls("get", "*"), of_path(ALICE, "GET", "/anything"), True),
        (urls("get", "/api"), of_path(ALICE, "POST", "/api"), False),
        (urls("*", "*"), ask("get", "pods"), False),
        (rule("*", "*", "*"), of_path(ALICE, "GET", "/api"), False),
    ],
)
def test_one_rule(allowing: Rule, asked: Attributes, allowed: bool) -> None:
    assert allowing.allows(asked) is allowed
    policy = Policy()
    policy.set_role("", "r", {"rules": [to_json(allowing)]})
    policy.set_binding("", "b", binding("r", user("alice")))
    assert policy.decide(asked).allowed is allowed


def user(name: str) -> JsonObject:
    return {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name}


def binding(role: str, *subjects: JsonObject, kind: str = "ClusterRole") -> JsonObject:
    return {"roleRef": {"kind": kind, "name": role}, "subjects": list(subjects)}


READER: JsonObject = {"rules": [to_json(rule("get", "core", "pods"))]}


def test_bindings_count_where_they_are() -> None:
    policy = Policy()
    policy.set_role("", "reader", READER)
    policy.set_role("ns", "reader", {"rules": [to_json(rule("delete", "core", "pods"))]})
    policy.set_binding("ns", "one", binding("reader", user("alice")))
    assert policy.decide(ask("get", "pods", namespace="ns")).reason == (
        'RBAC: allowed by RoleBinding "one/ns" of ClusterRole "reader" to User "alice"'
    )
    assert not policy.decide(ask("get", "pods", namespace="other")).allowed
    assert not policy.decide(ask("get", "pods")).allowed
    policy.set_binding("ns", "one", binding("reader", user("alice"), kind="Role"))
    assert not policy.decide(ask("get", "pods", namespace="ns")).allowed
    assert policy.decide(ask("delete", "pods", namespace="ns")).allowed
    policy.set_binding("ns", "one", None)
    assert not policy.decide(ask("delete", "pods", namespace="ns")).allowed


@pytest.mark.parametrize(
    ("subject", "who", "described"),
    [
        ({"kind": "Group", "name": "devs"}, ALICE, 'Group "devs"'),
        (
            {"kind": "ServiceAccount", "name": "builder", "namespace": "ns"},
            ACCOUNT,
            'ServiceAccount "builder/ns"',
        ),
        (user(ACCOUNT.name), ACCOUNT, f'User "{ACCOUNT.name}"'),
    ],
)
def test_subjects(subject: JsonObject, who: User, described: str) -> None:
    policy = Policy()
    policy.set_role("", "reader", READER)
    policy.set_binding("", "all", binding("reader", user("bob"), subject))
    decision = policy.decide(ask("get", "pods", user=who, namespace="x"))
    assert decision == (True, f'RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "reader" to {described}')
    assert not policy.decide(ask("get", "pods", user=User(name="eve"))).allowed


def test_an_account_of_the_binding_s_own_namespace() -> None:
    policy = Policy()
    policy.set_role("", "reader", READER)
    policy.set_binding("ns", "b", binding("reader", {"kind": "ServiceAccount", "name": "builder"}))
    policy.set_binding("", "c", binding("reader", {"kind": "ServiceAccount", "name": "builder"}))
    assert policy.decide(ask("get", "pods", user=ACCOUNT, namespace="ns")).allowed
    assert not policy.decide(ask("get", "pods", user=ACCOUNT)).allowed


def test_a_role_that_does_not_exist_is_told_of() -> None:
    policy = Policy()
    policy.set_binding("", "b", binding("gone", user("alice")))
    decision = policy.decide(ask("list", "pods", namespace="ns"))
    assert decision == (False, 'RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found')
    policy.set_role("", "gone", READER)
    assert policy.decide(ask("get", "pods", namespace="ns")).allowed
    policy.set_role("", "gone", {"rules": None})
    assert policy.decide(ask("get", "pods", namespace="ns")) == (False, "")


def test_masters_may_everything() -> None:
    root = User(name="root", groups=("system:masters",))
    assert Policy().decide(ask("escalate", "roles", user=root)).allowed
    assert Policy().rules_for(root, "ns") == (list(FULL_AUTHORITY), "")


@pytest.mark.parametrize(
    ("asked", "reason", "message", "details"),
    [
        (
            ask("list", "pods", namespace="y"),
            "",
            'pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "y"',
            {"kind": "pods"},
        ),
        (
            ask("get", "services", group="serving.knative.dev", name="s"),
            "RBAC: x",
            (
                'services.serving.knative.dev "s" is forbidden: User "alice" cannot get resource "services" in '
                'API group "serving.knative.dev" at the cluster scope: RBAC: x'
            ),
            {"name": "s", "group": "serving.knative.dev", "kind": "services"},
        ),
        (
            ask("create", "pods/exec", namespace="y", name="p"),
            "",
            (
                'pods "p" is forbidden: User "alice" cannot create resource "pods/exec" in API group "" in the '
                'namespace "y"'
            ),
            {"name": "p", "kind": "pods"},
        ),
        (of_path(ALICE, "GET", "/metrics"), "", 'forbidden: User "alice" cannot get path "/metrics"', {}),
    ],
)
def test_refusals(asked: Attributes, reason: str, message: str, details: JsonObject) -> None:
    refused = refusal(asked, reason)
    assert (refused.code, refused.reason, refused.message, refused.details) == (403, "Forbidden", message, details)


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/namespaces/ns/pods", {}, ("list", "pods", "ns", "")),
        ("GET", "/api/v1/namespaces/ns/pods", {"watch": "true"}, ("watch", "pods", "ns", "")),
        ("GET", "/api/v1/pods", {"fieldSelector": "metadata.name=a"}, ("list", "pods", "", "a")),
        ("GET", "/api/v1/pods", {"fieldSelector": "metadata.name!=a"}, ("list", "pods", "", "")),
        ("HEAD", "/api/v1/namespaces/ns/pods/a", {}, ("get", "pods", "ns", "a")),
        ("POST", "/api/v1/namespaces/ns/pods", {}, ("create", "pods", "ns", "")),
        ("PUT", "/api/v1/namespaces/ns/pods/a/status", {}, ("update", "pods/status", "ns", "a")),
        ("PATCH", "/api/v1/namespaces/ns/pods/a", {}, ("patch", "pods", "ns", "a")),
        ("DELETE", "/api/v1/namespaces/ns/pods/a", {}, ("delete", "pods", "ns", "a")),
        ("DELETE", "/api/v1/namespaces/ns/pods", {}, ("deletecollection", "pods", "ns", "")),
        ("GET", "/api/v1/namespaces/ns", {}, ("get", "namespaces", "ns", "ns")),
        ("GET", "/api/v1/namespaces", {}, ("list", "namespaces", "", "")),
        (
            "POST",
            "/api/v1/namespaces/ns/serviceaccounts/a/token",
            {},
            ("create", "serviceaccounts/token", "ns", "a"),
        ),
    ],
)
def test_what_is_asked(method: str, path: str, query: dict[str, str], expected: tuple[str, ...]) -> None:
    target = parse(path)
    assert isinstance(target, Target)
    asked = of_target(ALICE, method, target, query)
    assert (asked.verb, asked.combined, asked.namespace, asked.name) == expected


# Rules that cover others.

WORDS = st.sampled_from(["*", "a", "b", "c"])
SOME = st.lists(WORDS, min_size=1, max_size=3, unique=True).map(tuple)
RESOURCES = st.lists(
    st.sampled_from(["*", "p", "q", "p/x", "q/x", "*/x"]), min_size=1, max_size=3, unique=True
).map(tuple)
RULES = st.one_of(
    st.builds(
        Rule,
        verbs=SOME,
        api_groups=SOME,
        resources=RESOURCES,
        resource_names=st.one_of(st.just(()), st.lists(st.sampled_from("nm"), min_size=1).map(tuple)),
    ),
    st.builds(
        Rule, verbs=SOME, non_resource_urls=st.lists(st.sampled_from(["/x", "/x/*", "*"]), min_size=1).map(tuple)
    ),
)
QUESTIONS = st.one_of(
    st.builds(
        Attributes,
        user=st.just(ALICE),
        verb=st.sampled_from("abcd"),
        group=st.sampled_from("abcd"),
        resource=st.sampled_from("pqr"),
        subresource=st.sampled_from(["", "x", "y"]),
        name=st.sampled_from(["", "n", "m", "o"]),
    ),
    st.builds(
        Attributes, user=st.just(ALICE), verb=st.sampled_from("abcd"), path=st.sampled_from(["/x", "/x/y", "/z"])
    ),
)


@given(RULES)
def test_a_rule_covers_itself(one: Rule) -> None:
    assert uncovered([one], [one]) == []
    assert uncovered(FULL_AUTHORITY, [one]) == []


@given(RULES, QUESTIONS)
def test_the_parts_of_a_rule_allow_what_it_allows(one: Rule, asked: Attributes) -> None:
    assert one.allows(asked) == any(part.allows(asked) for part in broken_down(one))


@given(RULES, RULES, QUESTIONS)
def test_what_covers_allows_at_least_as_much(owner: Rule, other: Rule, asked: Attributes) -> None:
    for part in broken_down(other):
        if covers(owner, part) and part.allows(asked):
            assert owner.allows(asked)


@given(st.lists(RULES, max_size=4), QUESTIONS)
def test_the_index_decides_as_the_rules_do(rules: list[Rule], asked: Attributes) -> None:
    policy = Policy()
    policy.set_role("", "r", {"rules": [to_json(one) for one in rules]})
    policy.set_binding("", "b", binding("r", user("alice")))
    assert policy.decide(asked).allowed == any(one.allows(asked) for one in rules)


# Escalation.


def named(kind: str, name: str = "x", namespace: str = "ns", **fields: Any) -> JsonObject:
    return {"kind": kind, "metadata": {"name": name, "namespace": namespace}, **fields}


def test_nobody_gives_away_what_they_do_not_have() -> None:
    policy = Policy()
    policy.set_role("", "editor", {"rules": [to_json(rule("get", "core", "pods"))]})
    policy.set_binding("ns", "b", binding("editor", user("alice")))
    fine = named("Role", rules=[to_json(rule("get", "core", "pods", "one"))])
    escalation.check(policy, ALICE, "roles", fine, None)
    more = named("Role", rules=[to_json(rule("get delete watch", "core", "pods secrets"))])
    with pytest.raises(StatusError) as caught:
        escalation.check(policy, ALICE, "roles", more, None)
    assert caught.value.message == (
        'roles.rbac.authorization.k8s.io "x" is forbidden: user "alice" (groups=["devs" "system:authenticated"]) '
        "is attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete" "watch"]}'
    )
    escalation.check(policy, ALICE, "roles", more, {**more, "metadata": {**more["metadata"], "finalizers": ["f"]}})
    allow = rule("escalate bind", "rbac.authorization.k8s.io", "roles clusterroles")
    policy.set_role("", "editor", {"rules": [to_json(allow)]})
    escalation.check(policy, ALICE, "roles", more, None)


def test_bindings_need_the_rights_of_their_role() -> None:
    policy = Policy()
    policy.set_role("", "pods", READER)
    policy.set_role("", "secrets", {"rules": [to_json(rule("get", "core", "secrets"))]})
    policy.set_binding("ns", "b", binding("pods", user("alice")))
    escalation.check(policy, ALICE, "rolebindings", named("RoleBinding", **binding("pods", user("bob"))), None)
    with pytest.raises(StatusError, match="not currently held"):
        escalation.check(
            policy, ALICE, "rolebindings", named("RoleBinding", **binding("secrets", user("x"))), None
        )
    everywhere = named("ClusterRoleBinding", namespace="", **binding("pods", user("bob")))
    with pytest.raises(StatusError, match="not currently held"):
        escalation.check(policy, ALICE, "clusterrolebindings", everywhere, None)
    with pytest.raises(StatusError, match='"no" not found'):
        escalation.check(policy, ALICE, "rolebindings", named("RoleBinding", **binding("no", user("x"))), None)


def test_aggregation_needs_everything() -> None:
    policy = Policy()
    gathering = named("ClusterRole", namespace="", aggregationRule={"clusterRoleSelectors": [{}]})
    with pytest.raises(StatusError, match="must have cluster-admin privileges to use the aggregationRule"):
        escalation.check(policy, ALICE, "clusterroles", gathering, None)
    policy.set_role("", "all", {"rules": [to_json(one) for one in FULL_AUTHORITY]})
    policy.set_binding("", "all", binding("all", user("alice")))
    escalation.check(policy, ALICE, "clusterroles", gathering, None)
    assert policy.rules_of_role(RoleKey("", "all")) == FULL_AUTHORITY


def test_default_roles_come_back() -> None:
    for default in (*cluster_roles(), *cluster_role_bindings()):
        assert wanted(default, default) is None
        assert wanted(default, None) is default
    admin = next(role for role in cluster_roles() if role["metadata"]["name"] == "system:basic-user")
    weakened = {**admin, "rules": [{"verbs": ["get"]}]}
    mended = wanted(admin, weakened)
    assert mended is not None
    assert mended["rules"] == [{"verbs": ["get"]}, *admin["rules"]]
    own = {**weakened, "metadata": {**admin["metadata"], "annotations": {AUTOUPDATE: "false"}}}
    assert wanted(admin, own) is None
