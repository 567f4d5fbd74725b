"""Objects around a Route: placeholder Services, domains of one's own, redirects, rollouts, old Revisions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from serving.api.meta import JsonObject
from serving.api.resources import DOMAIN_CLAIMS
from tests.e2e.cluster import Cluster, Objects
from tests.e2e.http import Gateway
from tests.e2e.manifests import AUTOSCALING, service

SYSTEM = "knative-serving"
VISIBILITY = "networking.knative.dev/visibility"
REDIRECT = "networking.knative.dev/http-protocol"


@pytest.fixture
async def claims(cluster: Cluster) -> AsyncIterator[None]:
    """DomainMappings may claim their domains; what a test mapped is deleted after it."""
    key = "autocreate-cluster-domain-claims"
    await cluster.patch("configmap", "config-network", {"data": {key: "true"}}, namespace=SYSTEM)
    yield
    for item in await cluster.list("domainmapping"):
        await cluster.delete("domainmapping", item["metadata"]["name"])
    await cluster.until("domainmapping", lambda items: not items, what="the mappings are gone")
    await cluster.patch("configmap", "config-network", {"data": {key: None}}, namespace=SYSTEM)


def mapping(name: str, *, to: str, kind: str = "Service", group: str = "serving.knative.dev/v1") -> JsonObject:
    return {
        "apiVersion": "serving.knative.dev/v1beta1",
        "kind": "DomainMapping",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ref": {"apiVersion": group, "kind": kind, "name": to}},
    }


async def test_placeholders_follow_tags_and_their_label_hides_a_tag(
    cluster: Cluster, gateway: Gateway, name: str
) -> None:
    tagged = [{"latestRevision": True, "percent": 100, "tag": "blue"}]
    body = service(name, traffic=tagged)
    body["metadata"] |= {"labels": {"team": "a"}, "annotations": {"note": "x"}}
    await cluster.deploy(body)
    blue = f"blue-{name}"
    placeholders = {item["metadata"]["name"]: item for item in await cluster.list("service")}
    for each in (name, blue):
        meta = placeholders[each]["metadata"]
        assert meta["labels"] == {
            "team": "a",
            "serving.knative.dev/service": name,
            "serving.knative.dev/route": name,
        }
        assert meta["annotations"]["note"] == "x"
        assert meta["ownerReferences"][0]["kind"] == "Route"
        assert placeholders[each]["spec"]["type"] == "ExternalName"
    host = f"{blue}.default.{gateway.domain}"
    assert (await gateway.get(host)).status == 200

    await cluster.patch("service", blue, {"metadata": {"labels": {VISIBILITY: "cluster-local"}}})
    local = f"http://{blue}.default.svc.cluster.local"
    await cluster.until("route", lambda items: _tag_url(items, name) == local, what="the tag is cluster-local")
    await cluster.condition("route", name)
    assert (await gateway.get(host)).status == 404
    assert (await gateway.get(name)).status == 200
    await cluster.patch("service", blue, {"metadata": {"labels": {VISIBILITY: None}}})
    await cluster.until("route", lambda items: _tag_url(items, name) == f"http://{host}", what="public again")

    await cluster.apply(service(name, traffic=[{"latestRevision": True, "percent": 100}]))
    await cluster.until(
        "service",
        lambda items: blue not in {item["metadata"]["name"] for item in items},
        what="the tag's Service is gone",
    )


def _tag_url(items: Objects, name: str) -> str:
    for item in items:
        if item["metadata"]["name"] == name:
            return next((target.get("url", "") for target in item.get("status", {}).get("traffic", ())), "")
    return ""


async def test_a_service_under_the_name_is_in_the_way_until_it_goes(cluster: Cluster, name: str) -> None:
    await cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"port": 80}]},
        }
    )
    await cluster.apply(service(name))
    found = await cluster.condition("route", name, status="False")
    assert (found["reason"], found["message"]) == (
        "NotOwned",
        f'There is an existing placeholder Service "{name}" that we do not own.',
    )
    await cluster.delete("service", name)
    await cluster.ready(name)


@pytest.mark.usefixtures("claims")
async def test_a_domain_of_ones_own(cluster: Cluster, gateway: Gateway, name: str) -> None:
    tagged = [{"latestRevision": True, "percent": 100, "tag": "blue"}]
    await cluster.deploy(service(name, env={"TARGET": "you"}, traffic=tagged))
    domains = {
        f"ksvc.{name}.example.com": mapping(f"ksvc.{name}.example.com", to=name),
        f"route.{name}.example.com": mapping(f"route.{name}.example.com", to=name, kind="Route"),
        f"tag.{name}.example.com": mapping(f"tag.{name}.example.com", to=f"blue-{name}", group="v1"),
    }
    for domain, body in domains.items():
        await cluster.apply(body)
        await cluster.condition("domainmapping", domain)
        answer = await gateway.get(domain)
        assert (answer.status, answer.text) == (200, "Hello you!\n")
    status = (await cluster.get("domainmapping", f"ksvc.{name}.example.com"))["status"]
    assert status["url"] == status["address"]["url"] == f"http://ksvc.{name}.example.com"
    await cluster.at_zero(name)
    assert (await gateway.get(f"tag.{name}.example.com")).text == "Hello you!\n"

    await cluster.delete("domainmapping", f"ksvc.{name}.example.com")
    claims = (await cluster.client.list(DOMAIN_CLAIMS))["items"]
    left = {item["metadata"]["name"] for item in claims if name in item["metadata"]["name"]}
    assert left == {f"route.{name}.example.com", f"tag.{name}.example.com"}
    async with asyncio.timeout(10):
        while (await gateway.get(f"ksvc.{name}.example.com")).status != 404:
            await asyncio.sleep(0.05)


async def test_a_domain_without_a_claim_is_not_served(cluster: Cluster, gateway: Gateway, name: str) -> None:
    domain = f"{name}.example.org"
    await cluster.deploy(service(name))
    await cluster.apply(mapping(domain, to=name))
    found = await cluster.condition("domainmapping", domain, status="False")
    assert found["reason"] == "DomainAlreadyClaimed"
    assert (await gateway.get(domain)).status == 404
    claim: JsonObject = {
        "apiVersion": DOMAIN_CLAIMS.api_version,
        "kind": "ClusterDomainClaim",
        "metadata": {"name": domain},
        "spec": {"namespace": "default"},
    }
    await cluster.client.create(DOMAIN_CLAIMS, claim)
    await cluster.condition("domainmapping", domain)
    assert (await gateway.get(domain)).status == 200
    await cluster.delete("domainmapping", domain)
    await cluster.client.get(DOMAIN_CLAIMS, domain)  # it was not the mapping's own
    await cluster.client.delete(DOMAIN_CLAIMS, domain)


async def test_plain_http_is_redirected_on_demand(cluster: Cluster, gateway: Gateway, name: str) -> None:
    body = service(name)
    body["metadata"]["annotations"] = {REDIRECT: "redirected"}
    await cluster.deploy(body)
    host = gateway.host(name)

    async def get() -> tuple[int, str]:
        url = f"{gateway.url}/a?b=c"
        async with gateway.session.get(url, headers={"Host": host}, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("location", "")

    assert await get() == (301, f"https://{host}/a?b=c")
    await cluster.patch("ksvc", name, {"metadata": {"annotations": {REDIRECT: None}}})
    async with asyncio.timeout(10):
        while (await get())[0] == 301:
            await asyncio.sleep(0.05)


async def test_a_header_chooses_the_tag(cluster: Cluster, gateway: Gateway, name: str) -> None:
    flag = "tag-header-based-routing"
    first, second = f"{name}-00001", f"{name}-00002"
    await cluster.deploy(service(name, env={"TARGET": "old"}))
    split = [{"revisionName": second, "percent": 100}, {"revisionName": first, "percent": 0, "tag": "old"}]
    await cluster.deploy(service(name, env={"TARGET": "new"}))
    await cluster.deploy(service(name, env={"TARGET": "new"}, traffic=split))

    async def answer(tag: str) -> str:
        return (await gateway.get(name, headers={"Knative-Serving-Tag": tag})).text

    assert await answer("old") == "Hello new!\n", "the feature is off"
    await cluster.patch("configmap", "config-features", {"data": {flag: "enabled"}}, namespace=SYSTEM)
    try:
        async with asyncio.timeout(10):
            while await answer("old") != "Hello old!\n":
                await asyncio.sleep(0.05)
        assert await answer("unknown") == "Hello new!\n"
    finally:
        await cluster.patch("configmap", "config-features", {"data": {flag: None}}, namespace=SYSTEM)


async def test_a_new_revision_takes_over_step_by_step(cluster: Cluster, gateway: Gateway, name: str) -> None:
    body = service(name, env={"TARGET": "1"})
    body["metadata"]["annotations"] = {"serving.knative.dev/rollout-duration": "6s"}
    await cluster.deploy(body)
    body["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "2"
    await cluster.apply(body)
    seen: list[dict[str, int]] = []

    def all_moved(items: Objects) -> bool:
        for item in items:
            traffic = item.get("status", {}).get("traffic", ())
            shares = {target["revisionName"]: target["percent"] for target in traffic}
            if item["metadata"]["name"] == name and shares and shares not in seen:
                seen.append(shares)
        return bool(seen) and seen[-1] == {f"{name}-00002": 100}

    await cluster.until("route", all_moved, what="all traffic has moved")
    await cluster.ready(name)
    moved = [shares.get(f"{name}-00002", 0) for shares in seen]
    assert moved[:2] == [0, 1], seen
    assert moved == sorted(moved)
    assert len(moved) >= 5
    assert all(sum(shares.values()) == 100 for shares in seen)
    assert (await gateway.get(name)).text == "Hello 2!\n"
    route = await cluster.get("route", name)
    assert not route["status"].get("annotations")


async def test_revisions_nobody_uses_are_collected(cluster: Cluster, name: str) -> None:
    settings = {
        "retain-since-create-time": "0s",
        "retain-since-last-active-time": "0s",
        "min-non-active-revisions": "1",
        "max-non-active-revisions": "1",
    }
    scale = {f"{AUTOSCALING}/initial-scale": "0"}
    await cluster.patch(
        "configmap", "config-autoscaler", {"data": {"allow-zero-initial-scale": "true"}}, namespace=SYSTEM
    )
    try:
        for target in ("1", "2", "3", "4"):
            await cluster.deploy(service(name, env={"TARGET": target}, annotations=scale))
        of_service = f"serving.knative.dev/service={name}"
        assert len(await cluster.list("revision", of_service)) == 4
        await cluster.patch("configmap", "config-gc", {"data": settings}, namespace=SYSTEM)
        left = {f"{name}-00003", f"{name}-00004"}
        await cluster.until(
            "revision",
            lambda items: {item["metadata"]["name"] for item in items} == left,
            selector=of_service,
            what="one spare Revision is left",
        )
        assert (await cluster.ready(name))["status"]["latestReadyRevisionName"] == f"{name}-00004"
    finally:
        await cluster.patch("configmap", "config-gc", {"data": dict.fromkeys(settings)}, namespace=SYSTEM)
        await cluster.patch(
            "configmap", "config-autoscaler", {"data": {"allow-zero-initial-scale": None}}, namespace=SYSTEM
        )
