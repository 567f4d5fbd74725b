"""ResourceQuotas, LimitRanges, and what else is added to new Pods and Services."""

from __future__ import annotations

from fractions import Fraction

import pytest

from serving.api.meta import JsonObject
from serving.local.apiserver import quota
from tests.local.apiserver.objects import config_map, pod
from tests.local.apiserver.requests import CONFIG_MAPS, PODS, Api

QUOTAS = "/api/v1/namespaces/default/resourcequotas"
RANGES = "/api/v1/namespaces/default/limitranges"
SERVICES = "/api/v1/namespaces/default/services"


def quota_of(**hard: str) -> JsonObject:
    named = {name.replace("__", "/").replace("_", "."): value for name, value in hard.items()}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": named}}


def pod_with(name: str, **requests: str) -> JsonObject:
    body = pod(name)
    body["spec"]["containers"][0]["resources"] = {"requests": requests}
    return body


def service(name: str, **spec: object) -> JsonObject:
    spec = {"ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


async def test_requests_beyond_the_quota(api: Api) -> None:
    await api.create(QUOTAS, quota_of(requests_cpu="50m", pods="2"))
    answer = await api.send("POST", PODS, pod_with("p", cpu="100m"))
    assert answer.status == 403
    assert answer.message == (
        'pods "p" is forbidden: exceeded quota: q, requested: requests.cpu=100m, used: requests.cpu=0, '
        "limited: requests.cpu=50m"
    )
    missing = await api.send("POST", PODS, pod("p"))
    assert missing.message == 'pods "p" is forbidden: failed quota: q: must specify requests.cpu for: c'
    await api.create(PODS, pod_with("a", cpu="20m"))
    await api.create(PODS, pod_with("b", cpu="20m"))
    full = await api.send("POST", PODS, pod_with("c", cpu="1m"))
    assert "requested: pods=1, used: pods=2, limited: pods=2" in full.message


async def test_counts_and_the_status_of_a_quota(api: Api) -> None:
    async with api.watch(QUOTAS) as events:
        await api.create(QUOTAS, quota_of(count__configmaps="3"))
        while (await events.next())["object"].get("status", {}).get("used") != {"count/configmaps": "1"}:
            pass  # kube-root-ca.crt
        await api.create(CONFIG_MAPS, config_map("a"))
        await api.create(CONFIG_MAPS, config_map("b"))
        assert (await api.send("POST", CONFIG_MAPS, config_map("c"))).status == 403
        while (await events.next())["object"]["status"]["used"] != {"count/configmaps": "3"}:
            pass


async def test_limit_ranges(api: Api) -> None:
    item = {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "2"}}
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [item]}}
    await api.create(RANGES, limits)
    made = await api.create(PODS, pod("p"))
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}
    big = pod("big")
    big["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "3"}}
    answer = await api.send("POST", PODS, big)
    assert answer.message == ('pods "big" is forbidden: maximum cpu usage per Container is 2, but limit is 3')


@pytest.mark.parametrize(
    ("amount", "like", "text"),
    [
        (Fraction(1, 20), "1", "50m"),
        (Fraction(0), "1", "0"),
        (Fraction(2000), "1", "2k"),
        (Fraction(256 * 1024**2), "1Gi", "256Mi"),
        (Fraction(1500), "1Gi", "1500"),
    ],
)
def test_quantities(amount: Fraction, like: str, text: str) -> None:
    assert quota.shown(amount, like=like) == text


async def test_pods_bear_a_node_that_is_away(api: Api) -> None:
    made = await api.create(PODS, pod("p"))
    assert [toleration["key"] for toleration in made["spec"]["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (0, "PreemptLowerPriority")


async def test_services_get_addresses(api: Api) -> None:
    one = await api.create(SERVICES, service("one"))
    two = await api.create(SERVICES, service("two", type="NodePort"))
    assert one["spec"]["clusterIPs"] == [one["spec"]["clusterIP"]] != two["spec"]["clusterIPs"]
    assert 30000 <= two["spec"]["ports"][0]["nodePort"] < 32768
    kept = await api.send("PUT", f"{SERVICES}/two", service("two", type="NodePort"))
    assert kept.json["spec"] == two["spec"]
    taken = await api.send("POST", SERVICES, service("three", clusterIP=one["spec"]["clusterIP"]))
    assert (taken.status, "already allocated" in taken.message) == (422, True)
    await api.delete(f"{SERVICES}/one")
    await api.create(SERVICES, service("three", clusterIP=one["spec"]["clusterIP"]))
    dry = await api.create(SERVICES, service("dry"), dryRun="All")
    await api.create(SERVICES, service("four", clusterIP=dry["spec"]["clusterIP"]))


async def test_services_of_other_types(api: Api) -> None:
    headless = await api.create(SERVICES, service("h", clusterIP="None", selector={"a": "b"}))
    assert headless["spec"]["clusterIPs"] == ["None"]
    name = await api.create(SERVICES, service("n", type="ExternalName", externalName="example.com"))
    assert "clusterIP" not in name["spec"]
    changed = await api.patch(f"{SERVICES}/n", {"spec": {"type": "ClusterIP", "externalName": None}})
    assert changed["spec"]["clusterIP"]
    refused = await api.send("PUT", f"{SERVICES}/h", service("h", clusterIP="10.96.3.4"))
    assert "may not change once set" in refused.message
