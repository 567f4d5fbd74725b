"""Admission webhooks: which are called for a request, what they are sent, and what their answer means. Pure."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import StatusError, bad_request, internal
from serving.local.apiserver.patch import apply_json_patch
from serving.local.apiserver.request import Admitted
from serving.local.apiserver.selectors import LabelSelector, from_label_selector, match_labels
from serving.local.apiserver.webhook_services import ServiceTarget

DEFAULT_TIMEOUT_SECONDS: Final = 10
_EXEMPT_GROUP: Final = "admissionregistration.k8s.io"


class Hook(msgspec.Struct, frozen=True, kw_only=True):
    """One webhook of a configuration object, ready to match."""

    name: str
    url: str
    service: ServiceTarget | None
    ca_bundle: str
    fail: bool
    timeout_seconds: int
    side_effects: str
    reinvoke: bool
    rules: tuple[JsonObject, ...]
    namespace_selector: LabelSelector
    object_selector: LabelSelector


def parse_hooks(configuration: JsonObject) -> list[Hook]:
    """The webhooks of a valid Mutating- or ValidatingWebhookConfiguration, in their order."""
    return [
        Hook(
            name=hook["name"],
            url=(hook.get("clientConfig") or {}).get("url") or "",
            service=_service(hook),
            ca_bundle=(hook.get("clientConfig") or {}).get("caBundle") or "",
            fail=hook.get("failurePolicy", "Fail") == "Fail",
            timeout_seconds=hook.get("timeoutSeconds") or DEFAULT_TIMEOUT_SECONDS,
            side_effects=hook.get("sideEffects") or "Unknown",
            reinvoke=hook.get("reinvocationPolicy") == "IfNeeded",
            rules=tuple(hook.get("rules") or ()),
            namespace_selector=from_label_selector(hook.get("namespaceSelector") or {}),
            object_selector=from_label_selector(hook.get("objectSelector") or {}),
        )
        for hook in configuration.get("webhooks") or ()
    ]


def _service(hook: JsonObject) -> ServiceTarget | None:
    service = (hook.get("clientConfig") or {}).get("service")
    if not service:
        return None
    return ServiceTarget(
        namespace=str(service.get("namespace") or ""),
        name=str(service.get("name") or ""),
        path=str(service.get("path") or ""),
        port=int(service.get("port") or 443),
    )


def has_rule(hook: Hook, request: Admitted) -> bool:
    """Whether the hook wants to know of this kind, subresource and operation: the same for all objects."""
    return request.kind.group != _EXEMPT_GROUP and any(_rule_matches(rule, request) for rule in hook.rules)


def selects(hook: Hook, request: Admitted, namespace_labels: dict[str, str]) -> bool:
    """Whether the hook's selectors match the namespace and the object."""
    if not match_labels(hook.namespace_selector, namespace_labels):
        return False
    objects = [obj for obj in (request.obj, request.old) if obj is not None]
    return any(match_labels(hook.object_selector, obj["metadata"].get("labels") or {}) for obj in objects)


def _rule_matches(rule: JsonObject, request: Admitted) -> bool:
    kind = request.kind
    scope = rule.get("scope") or "*"
    if scope != "*" and (scope == "Namespaced") != kind.namespaced:
        return False
    return (
        _any(rule.get("operations"), request.operation)
        and _any(rule.get("apiGroups"), kind.group)
        and _any(rule.get("apiVersions"), kind.version)
        and any(_resource_matches(pattern, request) for pattern in rule.get("resources") or ())
    )


def _any(patterns: list[str] | None, value: str) -> bool:
    return any(pattern in ("*", value) for pattern in patterns or ())


def _resource_matches(pattern: str, request: Admitted) -> bool:
    resource, _, subresource = pattern.partition("/")
    if resource not in ("*", request.kind.plural):
        return False
    return subresource in ("*", request.subresource) if "/" in pattern else not request.subresource


def review(request: Admitted, uid: str) -> JsonObject:
    """The AdmissionReview to send."""
    kind = request.kind
    group, version, name = request.body_kind or (kind.group, kind.version, kind.kind)
    gvk = {"group": group, "version": version, "kind": name}
    gvr = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    body: JsonObject = {
        "uid": uid,
        "kind": gvk,
        "resource": gvr,
        "requestKind": gvk,
        "requestResource": gvr,
        "name": request.name,
        "operation": request.operation,
        "userInfo": request.context.user.info(),
        "object": request.obj,
        "oldObject": request.old,
        "dryRun": request.context.dry_run,
        "options": request.options,
    }
    if request.subresource:
        body["subResource"] = body["requestSubResource"] = request.subresource
    if request.namespace:
        body["namespace"] = request.namespace
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": body}


class BadAnswer(Exception):
    """The webhook answered something that is not an AdmissionReview."""


def answer(hook: Hook, request: Admitted, body: object, uid: str) -> JsonObject | None:
    """The object after the webhook: patched, or None when it was left as it is.

    Raises StatusError when the webhook denied the request, BadAnswer when the answer cannot be understood.
    """
    response = body.get("response") if isinstance(body, dict) else None
    if not isinstance(response, dict):
        raise BadAnswer("webhook response has no response field")
    if response.get("uid") != uid:
        raise BadAnswer(f'expected response.uid={uid}, got "{response.get("uid")}"')
    for warning in response.get("warnings") or ():
        request.context.warn(str(warning))
    if not response.get("allowed"):
        raise _denied(hook, response.get("status") or {})
    patch = response.get("patch")
    if not patch or request.obj is None:
        return None
    if response.get("patchType") != "JSONPatch":
        raise BadAnswer(f"unsupported patchType {response.get('patchType')!r}, only JSONPatch is known")
    try:
        operations = msgspec.json.decode(base64.b64decode(patch, validate=True))
    except (binascii.Error, TypeError, ValueError) as error:
        raise BadAnswer(f"the patch cannot be decoded: {error}") from error
    try:
        return apply_json_patch(request.obj, operations)
    except StatusError as error:
        raise internal(f'webhook "{hook.name}" sent a patch that cannot be applied: {error.message}') from error


def _denied(hook: Hook, status: JsonObject) -> StatusError:
    message = status.get("message") or status.get("reason")
    text = f'admission webhook "{hook.name}" denied the request'
    text += f": {message}" if message else " without explanation"
    code = int(status.get("code") or 403)
    reason = status.get("reason") or {400: "BadRequest", 403: "Forbidden", 429: "TooManyRequests"}.get(code, "")
    details = status.get("details")
    headers = {"Retry-After": "1"} if code == 429 else {}
    return StatusError(code, reason, text, details=details, headers=headers)


def check_dry_run(hook: Hook) -> None:
    """Raises StatusError 400: a webhook with side effects cannot be asked about a dry run."""
    if hook.side_effects not in ("None", "NoneOnDryRun"):
        raise bad_request(f'admission webhook "{hook.name}" does not support dry run')


def failed(hook: Hook, why: str) -> StatusError:
    """What the client sees when a webhook with failurePolicy Fail cannot be asked."""
    return internal(f'failed calling webhook "{hook.name}": {why}')
