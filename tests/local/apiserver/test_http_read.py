"""Reading over HTTP: lists, watches, tables, discovery, authentication."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
import yaml

from serving.local.apiserver.service import Running
from tests.local.apiserver.harness import http_session, running_apiserver
from tests.local.apiserver.objects import config_map, pod, widget
from tests.local.apiserver.requests import CONFIG_MAPS, OWN, PODS, WIDGETS, Api

TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
PARTIAL = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
SECRETS = "/api/v1/namespaces/default/secrets"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_lists(widgets: Api) -> None:
    empty = await widgets.get(SECRETS)
    assert (empty["kind"], empty["apiVersion"], empty["items"]) == ("SecretList", "v1", [])
    await widgets.create(SECRETS, {"metadata": {"name": "a", "labels": {"x": "1"}}})
    await widgets.create(SECRETS, {"metadata": {"name": "b"}})
    made = await widgets.create(WIDGETS, widget("w", colour="red"))
    listed = await widgets.get(WIDGETS)
    assert listed["items"] == [made]
    assert listed["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    listed = await widgets.get(SECRETS)
    assert [sorted(item) for item in listed["items"]] == [["metadata", "type"]] * 2
    for query, names in [
        ({"labelSelector": "x=1"}, ["a"]),
        ({"labelSelector": "!x"}, ["b"]),
        ({"fieldSelector": "metadata.name=b"}, ["b"]),
        ({"limit": "1"}, ["a"]),
    ]:
        found = await widgets.get("/api/v1/secrets", query)
        assert [item["metadata"]["name"] for item in found["items"]] == names
    page = await widgets.get(SECRETS, limit="1")
    assert page["metadata"]["remainingItemCount"] == 1
    rest = await widgets.get(SECRETS, {"limit": "1", "continue": page["metadata"]["continue"]})
    assert [item["metadata"]["name"] for item in rest["items"]] == ["b"]
    assert [
        w["metadata"]["name"] for w in (await widgets.get(WIDGETS, fieldSelector="spec.colour=red"))["items"]
    ] == ["w"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"labelSelector": "a b"}, 400),
        ({"fieldSelector": "spec.x=1"}, 400),
        ({"limit": "many"}, 400),
        ({"resourceVersion": "x"}, 400),
        ({"resourceVersion": "999999"}, 504),
        ({"resourceVersionMatch": "Exact"}, 422),
        ({"continue": "?"}, 400),
        ({"watch": "true", "resourceVersion": "999999"}, 504),
        ({"watch": "true", "sendInitialEvents": "true"}, 422),
        ({"watch": "true", "resourceVersionMatch": "NotOlderThan", "resourceVersion": "1"}, 422),
    ],
)
async def test_bad_queries(api: Api, query: dict[str, str], code: int) -> None:
    answer = await api.send("GET", CONFIG_MAPS, params=query)
    assert (answer.status, answer.json["code"]) == (code, code)


async def test_watch_from_a_list(api: Api) -> None:
    revision = (await api.get(CONFIG_MAPS))["metadata"]["resourceVersion"]
    made = await api.create(CONFIG_MAPS, config_map("a", k="1"))
    async with api.watch(CONFIG_MAPS, resourceVersion=revision) as events:
        assert await events.next() == {"type": "ADDED", "object": made}
        changed = await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": "2"}})
        assert await events.next() == {"type": "MODIFIED", "object": changed}
        await api.delete(f"{CONFIG_MAPS}/a")
        event = await events.next()
        assert (event["type"], event["object"]["data"]) == ("DELETED", {"k": "2"})
        assert int(event["object"]["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])
    async with api.watch(CONFIG_MAPS, resourceVersion=changed["metadata"]["resourceVersion"]) as events:
        assert (await events.next())["type"] == "DELETED"


async def test_watch_with_a_selector(api: Api) -> None:
    async with api.watch(CONFIG_MAPS, labelSelector="on=yes", resourceVersion="0") as events:
        await api.create(CONFIG_MAPS, config_map("a"))
        on = await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"on": "yes"}}})
        assert await events.next() == {"type": "ADDED", "object": on}
        off = await api.patch(f"{CONFIG_MAPS}/a", {"metadata": {"labels": {"on": "no"}}})
        event = await events.next()
        assert (event["type"], event["object"]["metadata"]["labels"]) == ("DELETED", {"on": "yes"})
        assert event["object"]["metadata"]["resourceVersion"] == off["metadata"]["resourceVersion"]


async def test_initial_events_and_bookmarks(api: Api) -> None:
    await api.create(CONFIG_MAPS, config_map("a"))
    async with api.watch(CONFIG_MAPS) as events:
        assert (await events.next())["object"]["metadata"]["name"] == "a"
    streaming = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
    }
    async with api.watch(CONFIG_MAPS, params={**streaming, **OWN}, timeoutSeconds="1") as events:
        assert (await events.next())["type"] == "ADDED"
        bookmark = await events.next()
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert bookmark["object"]["kind"] == "ConfigMap"
        await api.create(CONFIG_MAPS, config_map("b"))
        assert (await events.next())["type"] == "ADDED"
        last = await events.rest()
        assert [event["type"] for event in last] == ["BOOKMARK"]
        assert "annotations" not in last[0]["object"]["metadata"]
    quiet = {"sendInitialEvents": "false", "resourceVersionMatch": "NotOlderThan"}
    async with api.watch(CONFIG_MAPS, params=quiet) as events:
        await api.create(CONFIG_MAPS, config_map("c"))
        assert (await events.next())["object"]["metadata"]["name"] == "c"


async def test_a_watch_that_is_too_old(tmp_path: Path) -> None:
    async with running_apiserver(tmp_path, history=4) as server, http_session(server) as session:
        api = Api(session)
        made = await api.create(CONFIG_MAPS, config_map("a"))
        for number in range(12):
            await api.patch(f"{CONFIG_MAPS}/a", {"data": {"k": str(number)}})
        async with api.watch(CONFIG_MAPS, resourceVersion=made["metadata"]["resourceVersion"]) as events:
            (event,) = await events.rest()
        assert event["type"] == "ERROR"
        assert (event["object"]["reason"], event["object"]["code"]) == ("Expired", 410)
        assert event["object"]["message"].startswith("too old resource version: ")


async def test_watches_of_many_see_the_same(api: Api) -> None:
    async def follow() -> list[str]:
        async with api.watch(CONFIG_MAPS, resourceVersion="0") as events:
            started.release()
            return [(await events.next())["object"]["metadata"]["name"] for _ in range(20)]

    started = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        followers = [group.create_task(follow()) for _ in range(10)]
        for _ in followers:
            await started.acquire()
        await asyncio.gather(*(api.create(CONFIG_MAPS, config_map(f"c{n}")) for n in range(20)))
    assert len({tuple(follower.result()) for follower in followers}) == 1


async def test_tables(widgets: Api) -> None:
    await widgets.create(WIDGETS, widget("w", colour="red", size=3))
    answer = await widgets.send("GET", WIDGETS, headers=TABLE)
    assert [column["name"] for column in answer.json["columnDefinitions"]] == [
        "Name",
        "Colour",
        "Size",
        "Ready",
        "Age",
        "Parts",
    ]
    assert answer.json["rows"][0]["cells"][:4] == ["w", "red", 3, None]
    whole = await widgets.send("GET", f"{WIDGETS}/w", headers=TABLE, includeObject="Object")
    assert whole.json["rows"][0]["object"]["spec"] == {"colour": "red", "size": 3}
    async with widgets.watch(WIDGETS, headers=TABLE) as events:
        first = await events.next()
        assert len(first["object"]["columnDefinitions"]) == 6
        await widgets.patch(f"{WIDGETS}/w", {"spec": {"size": 4}})
        second = await events.next()
        assert (second["type"], second["object"]["columnDefinitions"]) == ("MODIFIED", None)
        assert second["object"]["rows"][0]["cells"][2] == 4


async def test_metadata_only(api: Api) -> None:
    made = await api.create(CONFIG_MAPS, config_map("a", k="v"))
    answer = await api.send("GET", CONFIG_MAPS, headers=PARTIAL, params=OWN)
    assert answer.json["kind"] == "PartialObjectMetadataList"
    assert answer.json["items"] == [
        {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": made["metadata"]}
    ]
    async with api.watch(CONFIG_MAPS, headers=PARTIAL) as events:
        assert "data" not in (await events.next())["object"]


async def test_aggregated_discovery(widgets: Api) -> None:
    answer = await widgets.send("GET", "/apis", headers={"Accept": f"{AGGREGATED},application/json"})
    assert answer.headers["Content-Type"] == AGGREGATED
    groups = {item["metadata"]["name"]: item for item in answer.json["items"]}
    assert [version["version"] for version in groups["example.dev"]["versions"]] == ["v1", "v1beta1"]
    resource = groups["example.dev"]["versions"][0]["resources"][0]
    assert (resource["resource"], resource["scope"], resource["shortNames"]) == ("widgets", "Namespaced", ["wd"])
    assert [sub["subresource"] for sub in resource["subresources"]] == ["status", "scale"]
    tag = answer.headers["ETag"]
    again = await widgets.send("GET", "/apis", headers={"Accept": AGGREGATED, "If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    core = await widgets.send("GET", "/api", headers={"Accept": AGGREGATED})
    assert core.json["items"][0]["metadata"] == {}


async def test_legacy_discovery_and_openapi(widgets: Api) -> None:
    assert (await widgets.get("/api"))["versions"] == ["v1"]
    groups = (await widgets.get("/apis"))["groups"]
    assert "example.dev" in {group["name"] for group in groups}
    for group in groups:
        assert (await widgets.get(f"/apis/{group['name']}"))["kind"] == "APIGroup"
        for version in group["versions"]:
            assert (await widgets.get(f"/apis/{version['groupVersion']}"))["resources"]
    names = {resource["name"] for resource in (await widgets.get("/api/v1"))["resources"]}
    assert {"pods", "pods/log", "pods/status", "namespaces/finalize"} <= names
    for path, entry in (await widgets.get("/openapi/v3"))["paths"].items():
        document = await widgets.get(entry["serverRelativeURL"])
        patched = [item["patch"] for item in document["paths"].values() if "patch" in item]
        assert path.startswith("apis/auth") or patched
        for operation in patched:
            assert "fieldValidation" in [parameter["name"] for parameter in operation["parameters"]]
    for missing in ("/openapi/v3/apis/no/v1", "/metrics", "/apis/nope/v1/things"):
        assert (await widgets.send("GET", missing)).status == 404
    assert (await widgets.send("GET", "/apis/nope")).status == 404


async def test_who_may_ask(server: Running) -> None:
    connector = aiohttp.UnixConnector(path=str(server.socket))
    async with aiohttp.ClientSession(base_url="http://nodeless", connector=connector) as anonymous:
        api = Api(anonymous)
        for path in ("/livez", "/readyz", "/healthz"):
            assert (await api.send("GET", path)).body == b"ok"
        assert (await api.send("GET", "/version")).json["major"] == "1"
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {server.token}"}):
            answer = await api.send("GET", "/api/v1/pods", headers=header)
            assert (answer.status, answer.message) == (401, "Unauthorized")


async def test_reviews(api: Api, server: Running) -> None:
    base = "/apis/authentication.k8s.io/v1"
    me = await api.create(f"{base}/selfsubjectreviews", {"metadata": {}})
    assert me["status"]["userInfo"]["username"] == "nodeless:admin"
    review = await api.create(f"{base}/tokenreviews", {"spec": {"token": server.token}})
    assert review["status"]["authenticated"] is True
    review = await api.create(f"{base}/tokenreviews", {"spec": {"token": "no"}})
    assert review["status"]["user"] == {}
    may = await api.create(
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"spec": {"resourceAttributes": {"verb": "get"}}}
    )
    assert may["status"]["allowed"] is True
    assert (await api.send("GET", f"{base}/tokenreviews")).status == 405


async def test_objects_of_pods_that_stream(api: Api) -> None:
    await api.create(PODS, pod("p"))
    for name in ("exec", "attach", "portforward"):
        answer = await api.send("GET", f"{PODS}/p/{name}")
        assert (answer.status, answer.json["reason"]) == (400, "BadRequest")
    assert (await api.send("GET", f"{PODS}/p/nonsense")).status == 404
    assert (await api.send("GET", f"{PODS}/q/log")).status == 404


@pytest.mark.parametrize(
    ("path", "accept", "message"),
    [
        ("", "PartialObjectMetadata", "you requested PartialObjectMetadata, but the requested object is a list"),
        ("/a", "PartialObjectMetadataList", "but the requested object is not a list (*core.ConfigMap)"),
    ],
)
async def test_one_is_no_list(api: Api, path: str, accept: str, message: str) -> None:
    await api.create(CONFIG_MAPS, config_map("a"))
    headers = {"Accept": f"application/json;as={accept};v=v1;g=meta.k8s.io"}
    async with api.session.get(f"{CONFIG_MAPS}{path}", headers=headers) as response:
        body = await response.json()
    assert (response.status, body["reason"]) == (406, "NotAcceptable")
    assert message in body["message"]


async def test_answers_in_yaml(api: Api) -> None:
    made = await api.create(CONFIG_MAPS, config_map("a"))
    for path, status in (("/a", 200), ("/none", 404)):
        async with api.session.get(f"{CONFIG_MAPS}{path}", headers={"Accept": "application/yaml"}) as response:
            assert (response.status, response.content_type) == (status, "application/yaml")
            body = yaml.safe_load(await response.text())
        assert body["kind"] == ("ConfigMap" if status == 200 else "Status")
        assert status != 200 or body == made
    watch = f"{CONFIG_MAPS}?watch=true"
    async with api.session.get(watch, headers={"Accept": "application/yaml"}) as response:
        assert response.status == 406
