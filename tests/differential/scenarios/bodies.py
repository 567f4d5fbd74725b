"""Paths and objects that scenarios share."""

from __future__ import annotations

from typing import Any, Final

from serving.api.meta import JsonObject
from tests.differential.model import AnyStep, delete, get, post

CORE: Final = "/api/v1/namespaces/{ns}"
CONFIG_MAPS: Final = f"{CORE}/configmaps"
SECRETS: Final = f"{CORE}/secrets"
SERVICES: Final = f"{CORE}/services"
ACCOUNTS: Final = f"{CORE}/serviceaccounts"
PODS: Final = f"{CORE}/pods"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/{ns}/leases"
DEPLOYMENTS: Final = "/apis/apps/v1/namespaces/{ns}/deployments"
DEFINITIONS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def config_map(name: str, data: Any = None, /, **metadata: Any) -> JsonObject:
    body: JsonObject = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}
    return body if data is None else {**body, "data": data}


def pod(name: str, /, **spec: Any) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "example.dev/app:1"}], **spec},
    }


GADGET_SCHEMA: Final[JsonObject] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "default": 1, "minimum": 0, "maximum": 10},
                "colour": {"type": "string", "enum": ["red", "blue"]},
                "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
                "replicas": {"type": "integer", "format": "int32"},
                "port": {"x-kubernetes-int-or-string": True},
                "ratio": {"type": "number"},
                "when": {"type": "string", "format": "date-time"},
                "maybe": {"type": "string", "nullable": True},
                "flag": {"type": "boolean", "default": False},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 2},
                "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                "plain": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
                "parts": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": {"type": "string"},
                            "weight": {"type": "integer", "default": 10},
                        },
                    },
                },
                "nested": {
                    "type": "object",
                    "required": ["must"],
                    "properties": {"must": {"type": "string"}, "may": {"type": "string"}},
                },
            },
        },
        "status": {
            "type": "object",
            "properties": {
                "ready": {"type": "boolean"},
                "replicas": {"type": "integer"},
                "conditions": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"type": {"type": "string"}, "status": {"type": "string"}},
                    },
                },
            },
        },
    },
}


def definition(plural: str, kind: str, /, schema: Any = None, **version: Any) -> JsonObject:
    """A namespaced CRD of the group `diff.example.dev`."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.diff.example.dev"},
        "spec": {
            "group": "diff.example.dev",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": GADGET_SCHEMA if schema is None else schema},
                    **version,
                }
            ],
        },
    }


GADGET_VERSION: Final[JsonObject] = {
    "subresources": {
        "status": {},
        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
    },
    "selectableFields": [{"jsonPath": ".spec.colour"}],
    "additionalPrinterColumns": [
        {"name": "Colour", "type": "string", "jsonPath": ".spec.colour"},
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Flag", "type": "boolean", "jsonPath": ".spec.flag"},
        {"name": "When", "type": "date", "jsonPath": ".spec.when"},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
        {"name": "Plain", "type": "string", "jsonPath": ".spec.plain", "priority": 1},
    ],
}


def gadgets(plural: str) -> str:
    return f"/apis/diff.example.dev/v1/namespaces/{{ns}}/{plural}"


def gadget(kind: str, name: str, /, **spec: Any) -> JsonObject:
    return {"apiVersion": "diff.example.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def with_definition(plural: str, kind: str, *steps: AnyStep) -> tuple[AnyStep, ...]:
    """The steps between the making and the deleting of a CRD."""
    return (
        post("define", DEFINITIONS, definition(plural, kind, **GADGET_VERSION), view=lambda body: body["kind"]),
        get("wait for the definition", gadgets(plural), until=200, view=lambda body: body["kind"]),
        *steps,
        delete("undefine", f"{DEFINITIONS}/{plural}.diff.example.dev", view=lambda body: body["kind"]),
    )
