"""The objects around a Service on a real API server: placeholders, DomainMappings, volumes, dry runs."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.cluster.install import kubectl
from tests.cluster.namespaces import Namespace, service


def test_tags_have_placeholders_which_follow_them(namespace: Namespace) -> None:
    body = service("shop", "you")
    body["spec"]["traffic"] = [{"latestRevision": True, "percent": 100, "tag": "next"}]
    namespace.apply(body)
    namespace.ready("shop")
    placeholders = {item["metadata"]["name"]: item for item in namespace.get("service")}
    assert placeholders.keys() == {"shop", "next-shop"}
    for item in placeholders.values():
        assert item["spec"]["type"] == "ExternalName"
        assert item["metadata"]["labels"]["serving.knative.dev/route"] == "shop"
    body["metadata"]["labels"] = {"team": "blue"}
    body["spec"]["traffic"] = [{"latestRevision": True, "percent": 100}]
    namespace.apply(body)
    namespace.until(lambda: len(namespace.get("service")) == 1, "the tag's placeholder is gone")
    namespace.until(
        lambda: namespace.get("service", "shop")["metadata"]["labels"].get("team") == "blue", "the label"
    )


def test_a_domain_mapping_claims_its_domain_and_gives_it_back(namespace: Namespace) -> None:
    patch = json.dumps({"data": {"autocreate-cluster-domain-claims": "true"}})
    control_plane = namespace.components.control_plane
    kubectl(control_plane, "patch", "cm", "config-network", "-n", "knative-serving", "--type=merge", "-p", patch)
    namespace.apply(service("shop", "you"))
    namespace.ready("shop")
    domain = f"shop.{namespace.name}.org"
    mapping = {
        "apiVersion": "serving.knative.dev/v1beta1",
        "kind": "DomainMapping",
        "metadata": {"name": domain},
        "spec": {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "shop"}},
    }
    namespace.apply(mapping)
    namespace.kubectl("wait", f"domainmapping/{domain}", "--for=condition=Ready", "--timeout=60s")
    assert json.loads(namespace.kubectl("get", "cdc", domain, "-o", "json"))["spec"]["namespace"] == namespace.name
    request = urllib.request.Request(namespace.components.url, headers={"Host": domain})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.read().strip() == b"Hello you!"
    namespace.kubectl("delete", "domainmapping", domain, "--wait", "--timeout=60s")
    namespace.until(
        lambda: not namespace.kubectl("get", "cdc", domain, "--ignore-not-found"), "the claim went with it"
    )


def test_secrets_and_config_maps_reach_the_pod(namespace: Namespace) -> None:
    namespace.kubectl("create", "secret", "generic", "who", "--from-literal=TARGET=secret")
    namespace.kubectl("create", "configmap", "files", "--from-literal=a=b")
    body = service("volumes", "nobody")
    pod = body["spec"]["template"]["spec"]
    pod["containers"][0] |= {
        "env": [{"name": "TARGET", "valueFrom": {"secretKeyRef": {"name": "who", "key": "TARGET"}}}],
        "volumeMounts": [{"name": "files", "mountPath": "/files"}],
    }
    pod["volumes"] = [{"name": "files", "configMap": {"name": "files"}}]
    namespace.apply(body)
    namespace.ready("volumes")
    assert namespace.ask("volumes") == (200, "Hello secret!")


def test_a_dry_run_asks_the_api_server_about_the_pod(namespace: Namespace) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-pods"},
        "spec": {"hard": {"pods": "0"}},
    }
    arguments = ("create", "--dry-run=server", "-f", "-")
    namespace.kubectl(*arguments, stdin=json.dumps(service("dry", "you")))
    namespace.apply(quota)
    namespace.until(
        lambda: "hard" in namespace.get("resourcequota", "no-pods").get("status", {}), "the quota counts"
    )
    with pytest.raises(AssertionError, match=r"dry run failed with .* is forbidden: exceeded quota: no-pods"):
        namespace.kubectl(*arguments, stdin=json.dumps(service("dry", "you")))
    assert not namespace.get("ksvc")


def test_a_quota_that_is_used_up_is_told(namespace: Namespace) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-pods"},
        "spec": {"hard": {"pods": "0"}},
    }
    namespace.apply(quota)
    namespace.until(
        lambda: "hard" in namespace.get("resourcequota", "no-pods").get("status", {}), "the quota counts"
    )
    namespace.apply(service("full", "you"))

    def told() -> bool:
        conditions = [
            condition
            for revision in namespace.get("revision")
            for condition in revision["status"].get("conditions", ())
            if condition["type"] == "ResourcesAvailable"
        ]
        return any("exceeded quota" in condition.get("message", "") for condition in conditions)

    namespace.until(told, "the Revision says that the quota is used up")
    namespace.kubectl("delete", "resourcequota", "no-pods")
    namespace.ready("full")
