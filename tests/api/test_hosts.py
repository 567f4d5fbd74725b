"""Hosts of routes and tags."""

from __future__ import annotations

import pytest

from serving.api.config import domain, network
from serving.api.hosts import HostError, Hosts, address_url, hosts_of
from serving.api.meta import ObjectMeta

DOMAINS = domain.parse({"example.com": ""})
META = ObjectMeta(name="hello", namespace="default")
LOCAL = {"networking.knative.dev/visibility": "cluster-local"}


def test_a_public_route() -> None:
    hosts = hosts_of(META, "", domain=DOMAINS, network=network.parse({}))
    assert hosts == Hosts(
        "hello",
        "hello.default.example.com",
        ("hello.default", "hello.default.svc", "hello.default.svc.cluster.local"),
        "http://hello.default.example.com",
    )
    assert not hosts.cluster_local


def test_a_tag() -> None:
    hosts = hosts_of(META, "blue", domain=DOMAINS, network=network.parse({"default-external-scheme": "https"}))
    assert hosts.url == "https://blue-hello.default.example.com"
    assert hosts.local[0] == "blue-hello.default"


def test_a_cluster_local_route_ignores_the_template() -> None:
    meta = ObjectMeta(name="hello", namespace="default", labels=LOCAL)
    hosts = hosts_of(meta, "", domain=DOMAINS, network=network.parse({"domain-template": "{{.Name}}.{{.Domain}}"}))
    assert hosts.cluster_local
    assert hosts.url == "http://hello.default.svc.cluster.local" == address_url("hello", "default")


def test_one_tag_may_be_cluster_local() -> None:
    hosts = hosts_of(META, "blue", domain=DOMAINS, network=network.parse({}), labels=LOCAL)
    assert hosts.url == "http://blue-hello.default.svc.cluster.local"


def test_the_clusters_own_domain_makes_a_route_cluster_local() -> None:
    assert hosts_of(META, "", domain=domain.parse({}), network=network.parse({})).cluster_local


def test_templates_see_labels_and_annotations() -> None:
    meta = ObjectMeta(name="hello", namespace="default", annotations={"sub": "shop"}, labels={"team": "a"})
    config = network.parse(
        {"domain-template": '{{.Name}}.{{index .Annotations "sub"}}.{{index .Labels "team"}}.{{.Domain}}'}
    )
    assert hosts_of(meta, "", domain=DOMAINS, network=config).public == "hello.shop.a.example.com"


def test_a_host_that_is_none_is_an_error_for_the_condition() -> None:
    config = network.parse({"domain-template": '{{.Name}}.{{index .Annotations "sub"}}.{{.Domain}}'})
    with pytest.raises(HostError) as caught:
        hosts_of(META, "", domain=DOMAINS, network=config)
    assert str(caught.value).startswith(
        'domain name error: invalid domain name "hello..example.com": url: Invalid value: "hello..example.com": '
    )
