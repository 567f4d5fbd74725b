"""Mutating- and ValidatingWebhookConfigurations, under upstream's names: users see these names in messages.

Status subresources are not sent here: they hold nothing that a user wrote, and every status write would wait.
"""

from __future__ import annotations

from typing import Any, Final

from serving.api.keys import SYSTEM_NAMESPACE
from serving.api.meta import JsonObject

DEFAULTING_NAME: Final = "webhook.serving.knative.dev"
VALIDATION_NAME: Final = "validation.webhook.serving.knative.dev"
CONFIG_NAME: Final = "config.webhook.serving.knative.dev"
DEFAULTING_PATH: Final = "/defaulting"
VALIDATION_PATH: Final = "/resource-validation"
CONFIG_PATH: Final = "/config-validation"
SERVICE_NAME: Final = "webhook"
SERVICE_NAMES: Final = tuple(f"{SERVICE_NAME}.{SYSTEM_NAMESPACE}.svc{rest}" for rest in ("", ".cluster.local"))
"""Names in the certificate; an API server checks the first when it calls the Service."""
CONFIGURATION_NAMES: Final = (DEFAULTING_NAME, VALIDATION_NAME, CONFIG_NAME)

_TIMEOUT_SECONDS: Final = 10
_RULES: Final = [
    {
        "apiGroups": ["serving.knative.dev"],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["configurations", "revisions", "routes", "services"],
        "scope": "Namespaced",
    },
    {
        "apiGroups": ["serving.knative.dev"],
        "apiVersions": ["v1beta1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["domainmappings"],
        "scope": "Namespaced",
    },
]
_CONFIG_RULES: Final = [
    {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["configmaps"],
        "scope": "Namespaced",
    }
]


def webhook_configurations(url: str, ca_bundle: str | None) -> list[JsonObject]:
    """Configurations for a webhook that is reached at `url` (`https://host:port`, no path).

    `ca_bundle` is the base64 of the PEM certificates that sign it; None = the API server's system roots. Over
    plain HTTP, which only the embedded API server does, there is no CEL expression: it evaluates none.
    """
    base = url.rstrip("/")
    return _configurations(lambda path: {"url": base + path}, ca_bundle, cel=base.startswith("https:"))


def service_webhook_configurations(ca_bundle: str | None = None) -> list[JsonObject]:
    """Configurations for a webhook behind the Service `webhook` of the system namespace."""
    service = {"name": SERVICE_NAME, "namespace": SYSTEM_NAMESPACE}
    return _configurations(lambda path: {"service": {**service, "path": path}}, ca_bundle, cel=True)


def _configurations(client: Any, ca_bundle: str | None, *, cel: bool) -> list[JsonObject]:
    def configuration(kind: str, name: str, path: str, rules: list[JsonObject], **more: Any) -> JsonObject:
        client_config = client(path)
        if ca_bundle is not None:
            client_config["caBundle"] = ca_bundle
        webhook = {
            "name": name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": client_config,
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "timeoutSeconds": _TIMEOUT_SECONDS,
            "rules": rules,
            **more,
        }
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {
                "name": name,
                "labels": {
                    "app.kubernetes.io/component": "webhook",
                    "app.kubernetes.io/name": "knative-serving",
                },
            },
            "webhooks": [webhook],
        }

    # Other ConfigMaps must come and go while no webhook runs, above all the one with the cluster's authority.
    ours = {"name": "knative-configuration", "expression": "request.name.startsWith('config-')"}
    selected = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SYSTEM_NAMESPACE}}}
    return [
        configuration(
            "MutatingWebhookConfiguration",
            DEFAULTING_NAME,
            DEFAULTING_PATH,
            _RULES,
            reinvocationPolicy="IfNeeded",
        ),
        configuration("ValidatingWebhookConfiguration", VALIDATION_NAME, VALIDATION_PATH, _RULES),
        configuration(
            "ValidatingWebhookConfiguration",
            CONFIG_NAME,
            CONFIG_PATH,
            _CONFIG_RULES,
            **selected,
            **({"matchConditions": [ours]} if cel else {}),
        ),
    ]
