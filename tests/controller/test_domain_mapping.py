"""Conditions and target of a DomainMapping in every state."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from serving.api.meta import JsonObject
from serving.api.v1beta1 import ClusterDomainClaim, DomainMapping
from serving.controller.domain_mapping import (
    Referent,
    check_address,
    finalize_domain_mapping,
    reconcile_domain_mapping,
)
from serving.controller.writes import Create, Delete, Patch, Write
from tests.controller.world import _merge

NOW = "2026-01-01T00:00:00Z"
FOUND = Referent(url="http://hello.default.svc.cluster.local", target="hello")


def mapping(**spec: Any) -> JsonObject:
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello", "namespace": "default"}
    return {
        "metadata": {
            "name": "www.example.com",
            "namespace": "default",
            "uid": "u1",
            "generation": 1,
            "finalizers": ["domainmappings.serving.knative.dev"],
        },
        "spec": {"ref": ref} | spec,
    }


def claim(namespace: str = "default") -> ClusterDomainClaim:
    return msgspec.convert(
        {"metadata": {"name": "www.example.com", "uid": "u2"}, "spec": {"namespace": namespace}},
        ClusterDomainClaim,
    )


def run(body: JsonObject, **changes: Any) -> list[Write]:
    facts: dict[str, Any] = {
        "claim": claim(),
        "referent": FOUND,
        "autocreate": False,
        "scheme": "http",
        "host_owner": "",
        "programmed": None,
        "now": NOW,
    }
    return reconcile_domain_mapping(msgspec.convert(body, DomainMapping), **facts | changes)


def settled(body: JsonObject, **changes: Any) -> JsonObject:
    """The status after as many runs as it takes."""
    for _ in range(5):
        patches = [write for write in run(body, **changes) if isinstance(write, Patch)]
        if not patches:
            status: JsonObject = body["status"]
            return status
        for patch in patches:
            _merge(body, patch.patch)
    raise AssertionError("does not settle")


def conditions(status: JsonObject) -> dict[str, tuple[str, str, str]]:
    return {
        one["type"]: (one["status"], one.get("reason", ""), one.get("message", "")) for one in status["conditions"]
    }


def test_a_mapping_that_is_served() -> None:
    status = settled(mapping(), programmed=True)
    assert {kind: row[0] for kind, row in conditions(status).items()} == {
        "CertificateProvisioned": "True",
        "DomainClaimed": "True",
        "IngressReady": "True",
        "Ready": "True",
        "ReferenceResolved": "True",
    }
    assert conditions(status)["CertificateProvisioned"][1:] == (
        "TLSNotEnabled",
        "external-domain-tls is not enabled",
    )
    assert status["url"] == "http://www.example.com"
    assert status["address"] == {"url": "http://www.example.com"}
    assert status["annotations"] == {"nodeless.dev/target": "hello"}
    assert status["observedGeneration"] == 1


def test_the_finalizer_comes_first() -> None:
    body = mapping()
    body["metadata"]["finalizers"] = ["others/stay"]
    (patch,) = run(body)
    assert isinstance(patch, Patch)
    assert patch.patch["metadata"]["finalizers"] == ["others/stay", "domainmappings.serving.knative.dev"]


@pytest.mark.parametrize(
    ("changes", "kind", "status", "reason", "message"),
    [
        (
            {"claim": claim("other")},
            "DomainClaimed",
            "False",
            "DomainAlreadyClaimed",
            "The domain name is already in use by another DomainMapping",
        ),
        (
            {"claim": None},
            "DomainClaimed",
            "False",
            "DomainAlreadyClaimed",
            "The domain name is already in use by another DomainMapping",
        ),
        ({"claim": None, "autocreate": True}, "DomainClaimed", "Unknown", "", ""),
        (
            {"referent": Referent(error='failed to get object default/x: services "x" not found')},
            "ReferenceResolved",
            "False",
            "ResolveFailed",
            'failed to get object default/x: services "x" not found',
        ),
        (
            {"referent": Referent(url="http://a.default.svc.cluster.local/path")},
            "ReferenceResolved",
            "False",
            "ResolveFailed",
            'resolved URI "http://a.default.svc.cluster.local/path" contains a path',
        ),
        (
            {"referent": Referent(url=FOUND.url)},
            "IngressReady",
            "False",
            "BackendNotSupported",
            'Service "hello" is no placeholder Service of a Route, and only these can be served.',
        ),
        (
            {"host_owner": "default/www"},
            "IngressReady",
            "False",
            "DomainConflict",
            'Host "www.example.com" is already in use by Route "default/www".',
        ),
        (
            {"programmed": False},
            "IngressReady",
            "Unknown",
            "Uninitialized",
            "Waiting for load balancer to be ready",
        ),
    ],
)
def test_conditions(changes: dict[str, Any], kind: str, status: str, reason: str, message: str) -> None:
    found = conditions(settled(mapping(), **changes))
    assert found[kind] == (status, reason, message)
    assert found["Ready"] == (status, reason, message)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://a.default.svc.cluster.local", ""),
        ("http://a.default.svc.cluster.local/", ""),
        ("http://a.example.com", 'resolved URI "http://a.example.com" must be of the form {name}.{namespace}'),
        ("http://a.b.default.svc.cluster.local", "must be of the form"),
        ("http://a.other.svc.cluster.local", "must be in same namespace as DomainMapping"),
    ],
)
def test_addresses(url: str, problem: str) -> None:
    found = check_address(url, namespace="default")
    assert problem in found
    assert bool(problem) == bool(found)


def test_a_claim_is_made_where_that_is_allowed() -> None:
    (create, patch) = run(mapping(), claim=None, autocreate=True)
    assert isinstance(create, Create)
    assert isinstance(patch, Patch)
    assert create.body["metadata"] == {"name": "www.example.com"}
    assert create.body["spec"] == {"namespace": "default"}


def test_who_loses_the_claim_is_served_no_longer() -> None:
    body = mapping()
    settled(body, programmed=True)
    assert "annotations" not in settled(body, claim=claim("other")) or not body["status"]["annotations"]


def test_a_certificate_of_ones_own_is_said_to_be_unused() -> None:
    found = conditions(settled(mapping(tls={"secretName": "cert"}), programmed=True))
    assert found["CertificateProvisioned"][:2] == ("False", "TLSNotSupported")


def test_a_wrong_http_option_is_told() -> None:
    body = mapping()
    body["metadata"]["annotations"] = {"networking.knative.dev/http-protocol": "maybe"}
    found = conditions(settled(body, programmed=True))
    assert found["IngressReady"][2] == "incorrect http-protocol annotation: maybe"


@pytest.mark.parametrize(
    ("autocreate", "owner", "deleted"),
    [(True, "default", True), (False, "default", False), (True, "other", False)],
)
def test_deletion_takes_only_its_own_claim(*, autocreate: bool, owner: str, deleted: bool) -> None:
    gone = msgspec.convert(mapping(), DomainMapping)
    writes = finalize_domain_mapping(gone, claim=claim(owner), autocreate=autocreate)
    assert any(isinstance(write, Delete) for write in writes) is deleted
    patch = writes[-1]
    assert isinstance(patch, Patch)
    assert patch.patch == {"metadata": {"finalizers": []}}
