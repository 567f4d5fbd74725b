"""Authentication, authorisation and service accounts over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from serving.api.meta import JsonObject
from serving.local.apiserver.access import users
from serving.local.apiserver.access.tokens import ISSUER
from serving.local.apiserver.auth import TokenError
from serving.local.apiserver.service import Running
from tests.local.apiserver.harness import http_session, running_apiserver
from tests.local.apiserver.objects import config_map, pod
from tests.local.apiserver.requests import CONFIG_MAPS, PODS, Answer, Api

ROLES = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
CLUSTER_ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
NAMESPACES = "/api/v1/namespaces"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
REVIEWS = "/apis/authorization.k8s.io/v1"
TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


def binding(name: str, role: str, *subjects: JsonObject, kind: str = "ClusterRole") -> JsonObject:
    return {"metadata": {"name": name}, "roleRef": {"kind": kind, "name": role}, "subjects": list(subjects)}


def user(name: str) -> JsonObject:
    return {"kind": "User", "name": name}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def with_users(directory: Path, *names: str) -> AsyncIterator[tuple[Api, dict[str, Api], Running]]:
    tokens = {name: await asyncio.to_thread(users.add, directory, name, (), created="") for name in names}
    async with running_apiserver(directory) as server, http_session(server) as session:
        others = {}
        sessions = []
        for name, token in tokens.items():
            sessions.append(session_of(server, token))
            others[name] = Api(sessions[-1])
        try:
            yield Api(session), others, server
        finally:
            for made in sessions:
                await made.close()


def session_of(server: Running, token: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        base_url="http://nodeless",
        connector=aiohttp.UnixConnector(path=str(server.socket), limit=0),
        headers=bearer(token),
    )


@pytest.mark.parametrize("header", [None, "Bearer nonsense", "Basic eA==", "Bearer a.b.c", "Bearer"])
async def test_strangers_are_refused(api: Api, header: str | None) -> None:
    headers = {"Authorization": header or ""}
    answer = await api.send("GET", PODS, headers=headers)
    assert (answer.status, answer.json["reason"], answer.message) == (401, "Unauthorized", "Unauthorized")
    assert (await api.send("GET", "/healthz", headers=headers)).status == 200


async def test_a_user_may_do_what_bindings_say_as_soon_as_they_say_it(tmp_path: Path) -> None:
    async with with_users(tmp_path, "alice") as (admin, others, _):
        alice = others["alice"]
        refused = await alice.send("GET", PODS)
        assert (refused.status, refused.message) == (
            403,
            (
                'pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace '
                '"default"'
            ),
        )
        assert (await alice.send("GET", "/apis")).status == 200
        assert (
            await alice.send("GET", "/metrics")
        ).message == 'forbidden: User "alice" cannot get path "/metrics"'
        await admin.create(BINDINGS, binding("b", "view", user("alice")))
        assert (await alice.send("GET", PODS)).status == 200
        assert (await alice.send("POST", CONFIG_MAPS, config_map("a"))).status == 403
        await admin.patch(f"{CLUSTER_ROLES}/view", {"metadata": {"labels": {"x": "y"}}})
        await admin.delete(f"{BINDINGS}/b")
        assert (await alice.send("GET", PODS)).status == 403


async def test_aggregated_roles_gather_what_is_there(tmp_path: Path) -> None:
    async with with_users(tmp_path, "alice") as (admin, others, _):
        await admin.create(BINDINGS, binding("b", "view", user("alice")))
        widgets = "/apis/example.dev/v1/namespaces/default/widgets"
        assert (await others["alice"].send("GET", widgets)).status == 403
        more = {
            "metadata": {"name": "more", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
            "rules": [{"apiGroups": ["example.dev"], "resources": ["widgets"], "verbs": ["list"]}],
        }
        await admin.create(CLUSTER_ROLES, more)

        async def rules() -> list[Any]:
            found: list[Any] = (await admin.get(f"{CLUSTER_ROLES}/admin"))["rules"]
            return found

        async with asyncio.timeout(5):
            while more["rules"][0] not in await rules():  # type: ignore[index]
                await asyncio.sleep(0.01)
        assert (await others["alice"].send("GET", widgets)).status == 404  # allowed, but there is no such thing
        await admin.delete(f"{CLUSTER_ROLES}/more")
        async with asyncio.timeout(5):
            while more["rules"][0] in await rules():  # type: ignore[index]
                await asyncio.sleep(0.01)


async def test_nobody_escalates(tmp_path: Path) -> None:
    async with with_users(tmp_path, "alice") as (admin, others, _):
        await admin.create(BINDINGS, binding("b", "admin", user("alice")))
        alice = others["alice"]
        fine = {
            "metadata": {"name": "r"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        }
        await alice.create(ROLES, fine)
        worse = {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
        answer = await alice.send("PATCH", f"{ROLES}/r", worse, media="application/merge-patch+json")
        assert answer.status == 403
        assert "attempting to grant RBAC permissions not currently held" in answer.message
        await alice.create(BINDINGS, binding("mine", "edit", user("bob")))
        answer = await alice.send("POST", BINDINGS, binding("root", "cluster-admin", user("alice")))
        assert (answer.status, answer.json["details"]["kind"]) == (403, "rolebindings")


async def test_impersonation_needs_a_permission(tmp_path: Path) -> None:
    async with with_users(tmp_path, "alice") as (admin, others, _):
        as_bob = {"Impersonate-User": "bob", "Impersonate-Group": "devs"}
        answer = await admin.send("POST", WHOAMI, {}, headers=as_bob)
        assert answer.json["status"]["userInfo"] == {"username": "bob", "groups": ["devs", "system:authenticated"]}
        refused = await others["alice"].send("POST", WHOAMI, {}, headers=as_bob)
        assert (refused.status, refused.message) == (
            403,
            (
                'users "bob" is forbidden: User "alice" cannot impersonate resource "users" in API group "" at '
                "the cluster scope"
            ),
        )
        await admin.create(BINDINGS, binding("b", "edit", user("alice")))  # may act as accounts of the namespace
        as_account = {"Impersonate-User": "system:serviceaccount:default:default"}
        answer = await others["alice"].send("POST", WHOAMI, {}, headers=as_account)
        assert answer.json["status"]["userInfo"]["groups"][0] == "system:serviceaccounts"
        answer = await admin.send("POST", WHOAMI, {}, headers={"Impersonate-Group": "devs"})
        assert answer.status == 500


async def test_reviews(tmp_path: Path) -> None:
    async with with_users(tmp_path, "alice") as (admin, others, _):
        await admin.create(BINDINGS, binding("b", "view", user("alice")))
        alice = others["alice"]

        async def may(verb: str, resource: str, namespace: str = "default") -> JsonObject:
            spec = {"resourceAttributes": {"verb": verb, "resource": resource, "namespace": namespace}}
            status: JsonObject = (await alice.create(f"{REVIEWS}/selfsubjectaccessreviews", {"spec": spec}))[
                "status"
            ]
            return status

        assert await may("list", "pods") == {
            "allowed": True,
            "reason": 'RBAC: allowed by RoleBinding "b/default" of ClusterRole "view" to User "alice"',
        }
        assert await may("delete", "pods") == {"allowed": False}
        assert await may("list", "pods", "other") == {"allowed": False}
        rules = await alice.create(f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
        assert any("pods" in rule["resources"] for rule in rules["status"]["resourceRules"])
        spec = {
            "user": "alice",
            "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"},
        }
        assert (await alice.send("POST", f"{REVIEWS}/subjectaccessreviews", {"spec": spec})).status == 403
        asked = await admin.create(f"{REVIEWS}/subjectaccessreviews", {"spec": spec})
        assert asked["status"]["allowed"] is True
        local = f"{REVIEWS}/namespaces/default/localsubjectaccessreviews"
        assert (await admin.create(local, {"spec": spec}))["status"]["allowed"] is True


async def test_users_come_and_go_while_the_server_runs(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path) as server, http_session(server) as session:
        admin = Api(session)
        token = await asyncio.to_thread(users.add, tmp_path, "late", ("devs",), created="")
        answer = await admin.send("POST", WHOAMI, {}, headers=bearer(token))
        assert answer.json["status"]["userInfo"] == {
            "username": "late",
            "groups": ["devs", "system:authenticated"],
        }
        assert token not in (tmp_path / users.FILE).read_text()
        second = await asyncio.to_thread(users.add, tmp_path, "late", (), created="")
        assert (await admin.send("POST", WHOAMI, {}, headers=bearer(second))).status == 201
        assert (await admin.send("POST", WHOAMI, {}, headers=bearer(token))).status == 401
        await asyncio.to_thread(users.remove, tmp_path, "late")
        async with asyncio.timeout(2):
            while (await admin.send("POST", WHOAMI, {}, headers=bearer(second))).status == 201:
                await asyncio.sleep(0.05)


def test_users_that_cannot_be(tmp_path: Path) -> None:
    for name in ("", "a b", "system:admin", "-x"):
        with pytest.raises(users.UserError, match="user name"):
            users.add(tmp_path, name, (), created="")
    with pytest.raises(users.UserError, match="server's own"):
        users.add(tmp_path, "a", ("system:nodes",), created="")
    with pytest.raises(users.UserError, match="no user 'a'"):
        users.remove(tmp_path, "a")
    (tmp_path / users.FILE).write_text('{"a": 5}')
    with pytest.raises(TokenError, match=users.FILE):
        users.load(tmp_path)


# Service accounts.


async def token(api: Api, account: str = "default", **spec: Any) -> Answer:
    return await api.send("POST", f"{ACCOUNTS}/{account}/token", {"spec": spec})


async def test_a_token_says_who_it_is_for_as_long_as_that_exists(api: Api) -> None:
    made = await api.create(PODS, pod("p"))
    reference = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
    issued = (await token(api, expirationSeconds=600, boundObjectRef=reference)).json
    assert issued["spec"]["audiences"] == [ISSUER]
    value = issued["status"]["token"]
    keys = await api.get("/openid/v1/jwks")
    key = jwt.PyJWK(keys["keys"][0])
    claims = jwt.decode(value, key, algorithms=["ES256"], audience=ISSUER, issuer=ISSUER)
    assert claims["sub"] == "system:serviceaccount:default:default"
    assert claims["exp"] - claims["iat"] == 600
    assert claims["kubernetes.io"]["pod"] == {"name": "p", "uid": made["metadata"]["uid"]}
    who = (await api.send("POST", WHOAMI, {}, headers=bearer(value))).json["status"]["userInfo"]
    assert who["username"] == claims["sub"]
    assert who["groups"] == ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    assert who["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    assert (await api.send("GET", PODS, headers=bearer(value))).status == 403
    review = await api.create(TOKEN_REVIEWS, {"spec": {"token": value}})
    assert (review["status"]["authenticated"], review["status"]["audiences"]) == (True, [ISSUER])
    await api.delete(f"{PODS}/p", {"gracePeriodSeconds": 0})
    assert (await api.send("POST", WHOAMI, {}, headers=bearer(value))).status == 401
    review = await api.create(TOKEN_REVIEWS, {"spec": {"token": value}})
    assert review["status"] == {
        "user": {},
        "error": "[invalid bearer token, service account token has been invalidated]",
    }


async def test_tokens_for_others_and_of_accounts_made_again(api: Api) -> None:
    await api.create(ACCOUNTS, {"metadata": {"name": "a"}})
    value = (await token(api, "a", audiences=["vault"])).json["status"]["token"]
    assert (await api.send("POST", WHOAMI, {}, headers=bearer(value))).status == 401
    review = await api.create(TOKEN_REVIEWS, {"spec": {"token": value, "audiences": ["x", "vault"]}})
    assert review["status"]["audiences"] == ["vault"]
    mine = (await token(api, "a")).json["status"]["token"]
    assert (await api.send("POST", WHOAMI, {}, headers=bearer(mine))).status == 201
    forged = mine[:-4] + ("AAAA" if mine[-4:] != "AAAA" else "BBBB")
    assert (await api.send("POST", WHOAMI, {}, headers=bearer(forged))).status == 401
    await api.delete(f"{ACCOUNTS}/a")
    await api.create(ACCOUNTS, {"metadata": {"name": "a"}})
    assert (await api.send("POST", WHOAMI, {}, headers=bearer(mine))).status == 401


@pytest.mark.parametrize(
    ("account", "spec", "code", "message"),
    [
        ("default", {"expirationSeconds": 599}, 422, "may not specify a duration less than 10 minutes"),
        ("default", {"expirationSeconds": 1 << 33}, 422, "may not specify a duration larger than 2^32 seconds"),
        ("nobody", {}, 404, 'serviceaccounts "nobody" not found'),
        (
            "default",
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "q"}},
            404,
            'pods "q" not found',
        ),
        ("default", {"boundObjectRef": {"kind": "Lease", "apiVersion": "v1"}}, 400, "cannot bind token to object"),
        (
            "default",
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "x"}},
            409,
            "does not match the UID in record",
        ),
        (
            "other",
            {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}},
            400,
            'cannot bind token for serviceaccount "other" to pod running with different serviceaccount name.',
        ),
    ],
)
async def test_tokens_that_are_not_given(
    api: Api, account: str, spec: JsonObject, code: int, message: str
) -> None:
    await api.create(PODS, pod("p"))
    await api.create(ACCOUNTS, {"metadata": {"name": "other"}})
    answer = await token(api, account, **spec)
    assert answer.status == code
    assert message in answer.message


async def test_every_namespace_has_its_account_and_certificate(api: Api) -> None:
    await api.create(NAMESPACES, {"metadata": {"name": "n"}})
    # The account may be a moment late; a pod waits for it.
    made = await api.create("/api/v1/namespaces/n/pods", pod("p"))
    assert made["spec"]["serviceAccountName"] == made["spec"]["serviceAccount"] == "default"
    (volume,) = made["spec"]["volumes"]
    assert [next(iter(source)) for source in volume["projected"]["sources"]] == [
        "serviceAccountToken",
        "configMap",
        "downwardAPI",
    ]
    (mount,) = made["spec"]["containers"][0]["volumeMounts"]
    assert mount == {
        "name": volume["name"],
        "readOnly": True,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }
    for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
        before = await api.get(f"{NAMESPACES}/n/{path}")
        await api.delete(f"{NAMESPACES}/n/{path}")
        async with asyncio.timeout(5):
            while (await api.send("GET", f"{NAMESPACES}/n/{path}")).status != 200:
                await asyncio.sleep(0.01)
        after = await api.get(f"{NAMESPACES}/n/{path}")
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert "BEGIN CERTIFICATE" in after["data"]["ca.crt"]


@pytest.mark.parametrize(
    ("spec", "account", "mounted"),
    [
        ({}, {}, True),
        ({"automountServiceAccountToken": False}, {}, False),
        ({}, {"automountServiceAccountToken": False}, False),
        ({"automountServiceAccountToken": True}, {"automountServiceAccountToken": False}, True),
    ],
)
async def test_tokens_are_mounted_unless_somebody_objects(
    api: Api, spec: JsonObject, account: JsonObject, mounted: bool
) -> None:
    pulls = {"imagePullSecrets": [{"name": "pull"}]}
    await api.create(ACCOUNTS, {"metadata": {"name": "a"}, **account, **pulls})
    made = await api.create(PODS, pod("p", serviceAccountName="a", **spec))
    assert ("volumes" in made["spec"]) is mounted
    assert made["spec"]["imagePullSecrets"] == [{"name": "pull"}]


async def test_a_pod_needs_its_account(api: Api) -> None:
    answer = await api.send("POST", PODS, pod("p", serviceAccountName="no"))
    assert (answer.status, answer.message) == (
        403,
        'pods "p" is forbidden: error looking up service account default/no: serviceaccount "no" not found',
    )


async def test_own_processes_have_only_their_own_rights(server: Running, api: Api) -> None:
    components = server.kubeconfig.parent / "components"
    assert sorted(path.stem for path in components.iterdir()) == ["controller", "gateway", "node", "webhook"]
    value = (components / "gateway.token").read_text().strip()
    answer = await api.send("DELETE", f"{PODS}/p", headers=bearer(value))
    assert 'User "system:serviceaccount:knative-serving:gateway" cannot delete' in answer.message


async def test_discovery_of_the_issuer(api: Api) -> None:
    found = await api.get("/.well-known/openid-configuration")
    assert found["issuer"] == ISSUER
    assert found["jwks_uri"].endswith("/openid/v1/jwks")
    assert json.dumps(found)
