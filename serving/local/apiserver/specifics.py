"""What only some built-in kinds do when they are written: defaults and validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import deployments, errors, event_rules, services, stored_data
from serving.local.apiserver.access import rbac_objects
from serving.local.apiserver.access.policy import GROUP as RBAC
from serving.local.apiserver.crd_rules import crd_causes
from serving.local.apiserver.crds import default_crd
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.leases import check_times, lease_causes
from serving.local.apiserver.pods import default_pod
from serving.local.apiserver.podvalidation.spec import pod_causes
from serving.local.apiserver.podvalidation.updates import update_causes

NAMESPACE_FINALIZER: Final = "kubernetes"
PROTECTED_NAMESPACES: Final = ("default", "kube-system", "kube-public")


def apply_defaults(obj: JsonObject, kind: Kind, old: JsonObject | None) -> None:
    """In place. `old` is None at create."""
    rule = None if kind.custom else _DEFAULTS.get(kind.qualified)
    if rule is not None:
        rule(obj, old)


def causes(obj: JsonObject, kind: Kind, old: JsonObject | None, *, subresource: str = "") -> list[Cause]:
    """What is wrong; empty = the object may be stored."""
    if kind.custom:
        return []
    if kind.qualified == "pods":
        return pod_causes(obj) if old is None else update_causes(obj, old, binding=subresource == "binding")
    rule = _RULES.get(kind.qualified)
    return rule(obj, old) if rule is not None else []


def _namespace(obj: JsonObject, old: JsonObject | None) -> None:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    if old is None:
        obj.setdefault("spec", {})["finalizers"] = [NAMESPACE_FINALIZER]
    else:
        obj["spec"] = old.get("spec") or {}


def _pod(obj: JsonObject, _old: JsonObject | None) -> None:
    default_pod(obj)


def _crd(obj: JsonObject, _old: JsonObject | None) -> None:
    default_crd(obj)


def _webhooks(obj: JsonObject, _old: JsonObject | None) -> None:
    mutating = obj["kind"] == "MutatingWebhookConfiguration"
    for hook in obj.get("webhooks") or ():
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("matchPolicy", "Equivalent")
        hook.setdefault("namespaceSelector", {})
        hook.setdefault("objectSelector", {})
        hook.setdefault("timeoutSeconds", 10)
        if mutating:
            hook.setdefault("reinvocationPolicy", "Never")
        for rule in hook.get("rules") or ():
            rule.setdefault("scope", "*")


def _webhook_causes(obj: JsonObject, _old: JsonObject | None) -> list[Cause]:
    found: list[Cause] = []
    for index, hook in enumerate(obj.get("webhooks") or ()):
        path = f"webhooks[{index}]"
        if not hook.get("name"):
            found.append(errors.required(f"{path}.name"))
        target = hook.get("clientConfig") or {}
        if not target.get("url") and not target.get("service"):
            found.append(errors.required(f"{path}.clientConfig", "exactly one of url or service is required"))
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            allowed = ("None", "NoneOnDryRun")
            found.append(errors.not_supported(f"{path}.sideEffects", hook.get("sideEffects") or "", allowed))
        if hook.get("matchConditions"):
            found.append(errors.forbidden_field(f"{path}.matchConditions", "CEL is not evaluated by this server"))
        if not hook.get("admissionReviewVersions"):
            found.append(errors.required(f"{path}.admissionReviewVersions"))
    return found


_ADMISSION: Final = "webhookconfigurations.admissionregistration.k8s.io"
_CRDS: Final = "customresourcedefinitions.apiextensions.k8s.io"
_DEFAULTS: Final[dict[str, Callable[[JsonObject, JsonObject | None], None]]] = {
    "namespaces": _namespace,
    "configmaps": stored_data.default_config_map,
    "secrets": stored_data.default_secret,
    "deployments.apps": deployments.default_deployment,
    "events": event_rules.default_core_event,
    "events.events.k8s.io": event_rules.default_new_event,
    "services": services.default_service,
    "pods": _pod,
    "leases.coordination.k8s.io": check_times,
    f"roles.{RBAC}": rbac_objects.default_role,
    f"clusterroles.{RBAC}": rbac_objects.default_role,
    f"rolebindings.{RBAC}": rbac_objects.default_binding,
    f"clusterrolebindings.{RBAC}": rbac_objects.default_binding,
    _CRDS: _crd,
    f"mutating{_ADMISSION}": _webhooks,
    f"validating{_ADMISSION}": _webhooks,
}
_RULES: Final[dict[str, Callable[[JsonObject, JsonObject | None], list[Cause]]]] = {
    "configmaps": stored_data.config_map_causes,
    "secrets": stored_data.secret_causes,
    "services": services.causes,
    "deployments.apps": deployments.deployment_causes,
    "events": event_rules.core_event_causes,
    "events.events.k8s.io": event_rules.new_event_causes,
    "leases.coordination.k8s.io": lease_causes,
    f"roles.{RBAC}": rbac_objects.role_causes,
    f"clusterroles.{RBAC}": rbac_objects.role_causes,
    f"rolebindings.{RBAC}": rbac_objects.binding_causes,
    f"clusterrolebindings.{RBAC}": rbac_objects.binding_causes,
    _CRDS: crd_causes,
    f"mutating{_ADMISSION}": _webhook_causes,
    f"validating{_ADMISSION}": _webhook_causes,
}
