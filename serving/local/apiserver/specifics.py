"""What only some built-in kinds do when they are written: defaults and validation."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.access import rbac_objects
from serving.local.apiserver.access.policy import GROUP as RBAC
from serving.local.apiserver.crds import crd_causes, default_crd
from serving.local.apiserver.errors import Cause
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.leases import check_times, lease_causes
from serving.local.apiserver.pods import default_pod, pod_causes, pod_update_causes

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
        found = pod_causes(obj)
        if old is not None:
            found += pod_update_causes(obj, old, binding=subresource == "binding")
        return found
    rule = _RULES.get(kind.qualified)
    return rule(obj, old) if rule is not None else []


def _namespace(obj: JsonObject, old: JsonObject | None) -> None:
    obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = obj["metadata"]["name"]
    if old is None:
        obj.setdefault("spec", {})["finalizers"] = [NAMESPACE_FINALIZER]
    else:
        obj["spec"] = old.get("spec") or {}


def _secret(obj: JsonObject, _old: JsonObject | None) -> None:
    plain = obj.pop("stringData", None)
    if plain:
        data = obj["data"] = dict(obj.get("data") or {})
        for name, value in plain.items():
            data[name] = base64.b64encode(str(value).encode()).decode()
    obj.setdefault("type", "Opaque")


def _secret_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    found: list[Cause] = []
    for name, value in (obj.get("data") or {}).items():
        try:
            base64.b64decode(value or "", validate=True)
        except (binascii.Error, TypeError, ValueError):
            found.append(
                errors.invalid_value(f"data[{name}]", "<secret contents redacted>", "illegal base64 data")
            )
    if old is not None and obj.get("type") != old.get("type"):
        found.append(errors.invalid_value("type", obj.get("type"), "field is immutable"))
    return found + _immutable_causes(obj, old)


def _immutable_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    if old is None or not old.get("immutable"):
        return []
    fixed = ("data", "binaryData", "immutable")
    return [
        errors.forbidden_field(name, "field is immutable when `immutable` is set")
        for name in fixed
        if obj.get(name) != old.get(name)
    ]


def _service(obj: JsonObject, old: JsonObject | None) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    before = (old or {}).get("spec") or {}
    for name in ("clusterIP", "clusterIPs"):
        if name in before and not spec.get(name) and spec["type"] != "ExternalName":
            spec[name] = before[name]


def _service_causes(obj: JsonObject, _old: JsonObject | None) -> list[Cause]:
    found: list[Cause] = []
    spec = obj["spec"]
    allowed = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
    if spec["type"] not in allowed:
        found.append(errors.not_supported("spec.type", spec["type"], allowed))
    if spec["type"] == "ExternalName" and not spec.get("externalName"):
        found.append(errors.required("spec.externalName"))
    if not spec.get("ports") and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        found.append(errors.required("spec.ports"))
    for index, port in enumerate(spec.get("ports") or ()):
        number = port.get("port")
        if not isinstance(number, int) or not 1 <= number <= 65535:
            field = f"spec.ports[{index}].port"
            found.append(errors.invalid_value(field, number, "must be between 1 and 65535, inclusive"))
    return found


def _pod(obj: JsonObject, _old: JsonObject | None) -> None:
    default_pod(obj)


def _crd(obj: JsonObject, _old: JsonObject | None) -> None:
    default_crd(obj)


def _crd_rules(obj: JsonObject, _old: JsonObject | None) -> list[Cause]:
    return crd_causes(obj)


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


def _config_map_rules(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    found = [
        errors.invalid_value(f"data[{name}]", value, "must be a string")
        for name, value in (obj.get("data") or {}).items()
        if not isinstance(value, str)
    ]
    return found + _immutable_causes(obj, old)


_ADMISSION: Final = "webhookconfigurations.admissionregistration.k8s.io"
_CRDS: Final = "customresourcedefinitions.apiextensions.k8s.io"
_DEFAULTS: Final[dict[str, Callable[[JsonObject, JsonObject | None], None]]] = {
    "namespaces": _namespace,
    "secrets": _secret,
    "services": _service,
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
    "configmaps": _config_map_rules,
    "secrets": _secret_causes,
    "services": _service_causes,
    "leases.coordination.k8s.io": lease_causes,
    f"roles.{RBAC}": rbac_objects.role_causes,
    f"clusterroles.{RBAC}": rbac_objects.role_causes,
    f"rolebindings.{RBAC}": rbac_objects.binding_causes,
    f"clusterrolebindings.{RBAC}": rbac_objects.binding_causes,
    _CRDS: _crd_rules,
    f"mutating{_ADMISSION}": _webhook_causes,
    f"validating{_ADMISSION}": _webhook_causes,
}
