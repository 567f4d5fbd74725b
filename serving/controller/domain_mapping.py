"""DomainMapping: a domain of one's own for a Service, a Route, or the placeholder Service of a tag.

A domain belongs to the namespace that its ClusterDomainClaim names. Without a claim nobody serves it, unless
`autocreate-cluster-domain-claims` lets the mapping make one; then the mapping takes it along when it goes, which
is what its finalizer is for. `status.annotations` tell gateways what to serve (`TARGET_ANNOTATION`).
"""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from serving.api import keys
from serving.api.conditions import Conditions, ConditionSet
from serving.api.http_option import HttpOptionError, check_http_option
from serving.api.names import quote
from serving.api.resources import DOMAIN_CLAIMS, DOMAIN_MAPPINGS
from serving.api.v1 import Address
from serving.api.v1beta1 import TARGET_ANNOTATION, ClusterDomainClaim, DomainMapping
from serving.controller.writes import Create, Delete, Patch, Write, status_patch

CONDITIONS = ConditionSet(
    dependents=("CertificateProvisioned", "DomainClaimed", "IngressReady", "ReferenceResolved")
)
_LOCAL_SUFFIX = ".svc.cluster.local"


class Referent(msgspec.Struct, frozen=True, kw_only=True):
    """What `spec.ref` leads to: `url` of the object, or `error` when there is none.

    `target` is `<route>` or `<route>/<tag>`; empty when no Route is behind the object.
    """

    url: str = ""
    error: str = ""
    target: str = ""


def reconcile_domain_mapping(
    mapping: DomainMapping,
    *,
    claim: ClusterDomainClaim | None,
    referent: Referent,
    autocreate: bool,
    scheme: str,
    host_owner: str,
    programmed: bool | None,
    now: str,
) -> list[Write]:
    """The writes that are due. `host_owner` is the key of a Route that has the domain as its own host, if any;
    `programmed`: all gateways serve the mapping as its status says, None = not known yet."""
    meta = mapping.metadata
    if keys.DOMAIN_MAPPING_FINALIZER not in meta.finalizers:
        return [_finalizers(mapping, (*meta.finalizers, keys.DOMAIN_MAPPING_FINALIZER))]
    conditions = CONDITIONS.initialise(mapping.status.conditions, now=now)
    if meta.generation != mapping.status.observed_generation:
        conditions = _not_configured(conditions, now)
    url = f"{scheme}://{meta.name}"
    status = msgspec.structs.replace(
        mapping.status, observed_generation=meta.generation, url=url, address=Address(url=url)
    )
    writes: list[Write] = []
    if claim is None and autocreate:
        writes.append(_claim(mapping))
        conditions = CONDITIONS.mark_unknown(conditions, "DomainClaimed", now=now)
    target = ""
    if claim is not None and claim.spec.namespace == meta.namespace:
        conditions = CONDITIONS.mark_true(conditions, "DomainClaimed", now=now)
        conditions = _certificate(conditions, mapping, now)
        conditions, target = _resolved(conditions, mapping, referent, now)
    elif claim is not None or not autocreate:
        message = "The domain name is already in use by another DomainMapping"
        conditions = CONDITIONS.mark_false(
            conditions, "DomainClaimed", reason="DomainAlreadyClaimed", message=message, now=now
        )
    kept = {key: text for key, text in status.annotations.items() if key != TARGET_ANNOTATION}
    status = msgspec.structs.replace(
        status, annotations=kept | ({TARGET_ANNOTATION: target} if target else {}), conditions=conditions
    )
    if target:
        same = mapping.status.annotations.get(TARGET_ANNOTATION) == target
        served = programmed if same else False
        conditions = _ingress(conditions, mapping, served=served, host_owner=host_owner, now=now)
        status = msgspec.structs.replace(status, conditions=conditions)
    patch = status_patch(DOMAIN_MAPPINGS, meta, old=mapping.status, new=status)
    return [*writes, patch] if patch else writes


def finalize_domain_mapping(
    mapping: DomainMapping, *, claim: ClusterDomainClaim | None, autocreate: bool
) -> list[Write]:
    """A mapping that goes: its claim goes with it when such claims are ours to make."""
    meta = mapping.metadata
    if keys.DOMAIN_MAPPING_FINALIZER not in meta.finalizers:
        return []
    left = tuple(name for name in meta.finalizers if name != keys.DOMAIN_MAPPING_FINALIZER)
    writes: list[Write] = []
    if autocreate and claim is not None and claim.spec.namespace == meta.namespace:
        writes.append(
            Delete(resource=DOMAIN_CLAIMS, namespace="", name=claim.metadata.name, uid=claim.metadata.uid)
        )
    return [*writes, _finalizers(mapping, left)]


def check_address(url: str, *, namespace: str) -> str:
    """Why a mapping in `namespace` cannot lead to this URL, or an empty string."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.path.removesuffix("/"):
        return f"resolved URI {quote(url)} contains a path"
    labels = host.removesuffix(_LOCAL_SUFFIX).split(".")
    if not host.endswith(_LOCAL_SUFFIX) or len(labels) != 2:
        return f"resolved URI {quote(url)} must be of the form {{name}}.{{namespace}}{_LOCAL_SUFFIX}"
    if labels[1] != namespace:
        return f"resolved URI {quote(url)} must be in same namespace as DomainMapping"
    return ""


def _resolved(
    conditions: Conditions, mapping: DomainMapping, referent: Referent, now: str
) -> tuple[Conditions, str]:
    problem = referent.error or check_address(referent.url, namespace=mapping.metadata.namespace)
    if problem:
        conditions = CONDITIONS.mark_false(
            conditions, "ReferenceResolved", reason="ResolveFailed", message=problem, now=now
        )
        return conditions, ""
    conditions = CONDITIONS.mark_true(conditions, "ReferenceResolved", now=now)
    try:
        check_http_option(mapping.metadata.annotations)
    except HttpOptionError as error:
        return _blocked(conditions, "InvalidAnnotation", str(error), now), ""
    if not referent.target:
        name = mapping.spec.ref.name
        message = f'Service "{name}" is no placeholder Service of a Route, and only these can be served.'
        return _blocked(conditions, "BackendNotSupported", message, now), ""
    return conditions, referent.target


def _certificate(conditions: Conditions, mapping: DomainMapping, now: str) -> Conditions:
    if mapping.spec.tls is not None:
        return CONDITIONS.mark_false(
            conditions,
            "CertificateProvisioned",
            reason="TLSNotSupported",
            message=f"Secret {quote(mapping.spec.tls.secret_name)} is not used: the gateway serves HTTP only",
            now=now,
        )
    return CONDITIONS.mark_true(
        conditions,
        "CertificateProvisioned",
        reason="TLSNotEnabled",
        message="external-domain-tls is not enabled",
        now=now,
    )


def _ingress(
    conditions: Conditions, mapping: DomainMapping, *, served: bool | None, host_owner: str, now: str
) -> Conditions:
    if host_owner:
        message = f'Host "{mapping.metadata.name}" is already in use by Route "{host_owner}".'
        return _blocked(conditions, "DomainConflict", message, now)
    if served is None and mapping.metadata.generation == mapping.status.observed_generation:
        return conditions
    if served:
        return CONDITIONS.mark_true(conditions, "IngressReady", now=now)
    return CONDITIONS.mark_unknown(
        conditions,
        "IngressReady",
        reason="Uninitialized",
        message="Waiting for load balancer to be ready",
        now=now,
    )


def _blocked(conditions: Conditions, reason: str, message: str, now: str) -> Conditions:
    return CONDITIONS.mark_false(conditions, "IngressReady", reason=reason, message=message, now=now)


def _not_configured(conditions: Conditions, now: str) -> Conditions:
    return CONDITIONS.mark_unknown(
        conditions,
        "IngressReady",
        reason="IngressNotConfigured",
        message="Ingress has not yet been reconciled.",
        now=now,
    )


def _claim(mapping: DomainMapping) -> Create:
    meta = mapping.metadata
    return Create(
        resource=DOMAIN_CLAIMS,
        body={
            "apiVersion": DOMAIN_CLAIMS.api_version,
            "kind": DOMAIN_CLAIMS.kind,
            "metadata": {"name": meta.name},
            "spec": {"namespace": meta.namespace},
        },
    )


def _finalizers(mapping: DomainMapping, finalizers: tuple[str, ...]) -> Patch:
    meta = mapping.metadata
    return Patch(
        resource=DOMAIN_MAPPINGS,
        namespace=meta.namespace,
        name=meta.name,
        patch={"metadata": {"finalizers": list(finalizers)}},
        resource_version=meta.resource_version,
    )
