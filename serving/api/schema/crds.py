"""The CustomResourceDefinitions: names, printer columns and schemas of the kinds that users write.

The kinds by which upstream's own components talk to each other are defined too, with any content: upstream's
clients and dashboards list them, and must find none rather than an error. nodeless neither reads nor writes them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from serving.api.meta import JsonObject
from serving.api.schema.kinds import KINDS
from serving.api.schema.openapi import kind_schema

_SERVING: Final = "serving.knative.dev"
_NETWORKING: Final = "networking.internal.knative.dev"
_AUTOSCALING: Final = "autoscaling.internal.knative.dev"
_CACHING: Final = "caching.internal.knative.dev"


class _Column(msgspec.Struct, frozen=True):
    name: str
    path: str
    type: str = "string"

    def rendered(self) -> JsonObject:
        return {"name": self.name, "type": self.type, "jsonPath": self.path}


_READY: Final = (
    _Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
    _Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
)
_URL: Final = _Column("URL", ".status.url")
_LATEST: Final = (
    _Column("LatestCreated", ".status.latestCreatedRevisionName"),
    _Column("LatestReady", ".status.latestReadyRevisionName"),
)
_REVISION: Final = (
    _Column("Config Name", r".metadata.labels['serving\.knative\.dev/configuration']"),
    _Column("Generation", r".metadata.labels['serving\.knative\.dev/configurationGeneration']"),
)
_REPLICAS: Final = (
    _Column("Actual Replicas", ".status.actualReplicas", "integer"),
    _Column("Desired Replicas", ".status.desiredReplicas", "integer"),
)


_ANYTHING: Final[JsonObject] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def custom_resource_definitions() -> list[JsonObject]:
    """apiextensions.k8s.io/v1 objects, in the order in which they are installed."""
    return [
        _serving(
            "Service", ("kservice", "ksvc"), (_URL, *_LATEST, *_READY), labels=("addressable", "podspecable")
        ),
        _serving("Configuration", ("config", "cfg"), (*_LATEST, *_READY), labels=("podspecable",)),
        _serving("Revision", ("rev",), (*_REVISION, *_READY, *_REPLICAS)),
        _serving("Route", ("rt",), (_URL, *_READY), labels=("addressable",)),
        _serving("DomainMapping", ("dm",), (_URL, *_READY), version="v1beta1"),
        _definition(
            "ClusterDomainClaim",
            group=_NETWORKING,
            version="v1alpha1",
            short_names=("cdc",),
            categories=("knative-internal", "networking"),
            scope="Cluster",
            labels={"app.kubernetes.io/component": "networking"},
        ),
        *_internal_definitions(),
    ]


def _internal_definitions() -> list[JsonObject]:
    scales = (
        _Column("DesiredScale", ".status.desiredScale", "integer"),
        _Column("ActualScale", ".status.actualScale", "integer"),
    )
    serverless = (
        _Column("Mode", ".spec.mode"),
        _Column("Activators", ".spec.numActivators", "integer"),
        _Column("ServiceName", ".status.serviceName"),
        _Column("PrivateServiceName", ".status.privateServiceName"),
    )
    return [
        _internal("PodAutoscaler", _AUTOSCALING, "autoscaling", ("kpa", "pa"), (*scales, *_READY)),
        _internal("Metric", _AUTOSCALING, "autoscaling", (), _READY),
        _internal("ServerlessService", _NETWORKING, "networking", ("sks",), (*serverless, *_READY)),
        _internal("Ingress", _NETWORKING, "networking", ("kingress", "king"), _READY, plural="ingresses"),
        _internal("Certificate", _NETWORKING, "networking", ("kcert",), _READY),
        _internal("Image", _CACHING, "caching", (), (_Column("Image", ".spec.image"),)),
    ]


def _internal(
    kind: str,
    group: str,
    category: str,
    short_names: tuple[str, ...],
    columns: tuple[_Column, ...],
    *,
    plural: str = "",
) -> JsonObject:
    return _definition(
        kind,
        group=group,
        version="v1alpha1",
        short_names=short_names,
        categories=("knative-internal", category),
        columns=columns,
        labels={"app.kubernetes.io/component": category},
        plural=plural,
        schema=_ANYTHING,
    )


def _serving(
    kind: str,
    short_names: tuple[str, ...],
    columns: tuple[_Column, ...],
    *,
    version: str = "v1",
    labels: tuple[str, ...] = (),
) -> JsonObject:
    return _definition(
        kind,
        group=_SERVING,
        version=version,
        short_names=short_names,
        categories=("all", "knative", "serving"),
        columns=columns,
        labels={f"duck.knative.dev/{label}": "true" for label in labels},
    )


def _definition(
    kind: str,
    *,
    group: str,
    version: str,
    short_names: tuple[str, ...],
    categories: tuple[str, ...],
    columns: tuple[_Column, ...] = (),
    scope: str = "Namespaced",
    labels: dict[str, str],
    plural: str = "",
    schema: JsonObject | None = None,
) -> JsonObject:
    plural = plural or f"{kind.lower()}s"
    served: dict[str, Any] = {"name": version, "served": True, "storage": True, "subresources": {"status": {}}}
    if columns:
        served["additionalPrinterColumns"] = [column.rendered() for column in columns]
    served["schema"] = {"openAPIV3Schema": schema or kind_schema(KINDS[kind])}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "labels": {
                "app.kubernetes.io/name": "knative-serving",
                "knative.dev/crd-install": "true",
                **labels,
            },
        },
        "spec": {
            "group": group,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "categories": list(categories),
                **({"shortNames": list(short_names)} if short_names else {}),
            },
            "scope": scope,
            "versions": [served],
        },
    }
