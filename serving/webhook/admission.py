"""What the webhook answers to an AdmissionReview: pure functions of the request and the configuration.

Denials carry upstream's texts, so that the API server's final message equals upstream's: `admission webhook "…"
denied the request: validation failed: …`. A wrong type is a denial (400) with the words of Go's decoder, never a
failure of the webhook.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from serving.api.config.store import ApiConfig, config_map_problem
from serving.api.defaulting import default
from serving.api.errors import ERROR, WARNING, merged, only, render
from serving.api.keys import SERVICE, SYSTEM_NAMESPACE
from serving.api.meta import JsonObject
from serving.api.schema.decode import DecodeError, check_types
from serving.api.schema.kinds import KINDS
from serving.api.validation.kinds import validate_object

GROUP: Final = "serving.knative.dev"
_CHANGES: Final = ("CREATE", "UPDATE")
_VERSIONS: Final = {
    "Service": "v1",
    "Configuration": "v1",
    "Revision": "v1",
    "Route": "v1",
    "DomainMapping": "v1beta1",
}


_MAX_DEPTH: Final = 100
"""Levels of nesting; the deepest field of the kinds is at 14. Keeps a hostile object from the stack's end."""


class GroupVersionKind(msgspec.Struct, frozen=True):
    group: str = ""
    version: str = ""
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.group}/{self.version}, Kind={self.kind}"


class UserInfo(msgspec.Struct, frozen=True):
    username: str = ""


class AdmissionRequest(msgspec.Struct, frozen=True, rename="camel"):
    """The part of an AdmissionReview's request that decides the answer."""

    uid: str
    operation: str = ""
    kind: GroupVersionKind = GroupVersionKind()
    sub_resource: str = ""
    name: str = ""
    namespace: str = ""
    user_info: UserInfo = UserInfo()
    object: Any = None
    old_object: Any = None
    dry_run: bool | None = None


class AdmissionReview(msgspec.Struct, frozen=True, rename="camel"):
    request: AdmissionRequest
    api_version: str = "admission.k8s.io/v1"


class Denied(Exception):
    """The request is refused; the text goes to the user."""


def defaulting_response(request: AdmissionRequest, config: ApiConfig) -> JsonObject:
    """Allowed with a JSON patch that adds the defaults; `mutation failed: …` for what cannot be decoded."""
    if request.operation not in _CHANGES or request.sub_resource:
        return _allowed(request)
    try:
        new, old = _decoded(request)
        if new is None:
            raise Denied("the new object may not be nil")
    except Denied as error:
        return _denied(request, f"mutation failed: {error}")
    patch = json_patch(request.object, default(new, old=old, config=config, user=request.user_info.username))
    response = _allowed(request)
    if patch:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(patch)).decode()
    return response


def validation_response(request: AdmissionRequest, config: ApiConfig) -> JsonObject:
    """Allowed with warnings, or `validation failed: …`."""
    if request.operation not in _CHANGES or request.sub_resource:
        return _allowed(request)
    try:
        new, old = _decoded(request)
    except Denied as error:
        return _denied(request, f"decoding request failed: {error}")
    if new is None:
        return _denied(request, "validation failed: the new object may not be nil")
    found = validate_object(new, old=old, config=config)
    errors, warnings = only(found, ERROR), only(found, WARNING)
    response = _denied(request, f"validation failed: {render(errors)}") if errors else _allowed(request)
    if warnings:
        # A warning is one header line: a line break would make the API server drop it.
        response["warnings"] = [line for warning in merged(warnings) for line in str(warning).split("\n")]
    return response


def config_response(request: AdmissionRequest) -> JsonObject:
    """Whether a ConfigMap of the system namespace can be read; others are none of our business."""
    if request.operation not in _CHANGES or request.namespace != SYSTEM_NAMESPACE:
        return _allowed(request)
    try:
        config_map = msgspec.convert(request.object, _ConfigMap)
    except msgspec.ValidationError as error:
        return _denied(request, f"validation failed: cannot decode incoming new object: {error}")
    metadata = config_map.metadata
    problem = config_map_problem(metadata.name, config_map.data or {}, metadata.annotations or {})
    return _allowed(request) if problem is None else _denied(request, f"validation failed: {problem}")


def pod_to_try(request: AdmissionRequest, config: ApiConfig) -> JsonObject | None:
    """The Pod that a dry-run request asks the API server about: what the template would become; else None."""
    wanted = request.operation in _CHANGES and request.dry_run and not request.sub_resource
    if not wanted or request.kind.kind not in ("Service", "Configuration"):
        return None
    metadata = request.object.get("metadata") or {}
    if request.kind.kind == "Configuration" and (metadata.get("labels") or {}).get(SERVICE):
        return None
    template = (request.object.get("spec") or {}).get("template")
    if template is None:
        return None
    meta = {"generateName": "dry-run-validation", "namespace": request.namespace}
    revision = {"kind": "Revision", "metadata": meta, "spec": template.get("spec") or {}}
    spec = default(revision, old=None, config=config, user="")["spec"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": _pod_spec(spec)}


def dry_run_denial(request: AdmissionRequest, why: str) -> JsonObject:
    """The denial when the API server refused that Pod."""
    return _denied(request, f"validation callback failed: dry run failed with {why}: spec.template")


def review(response: JsonObject, *, api_version: str = "admission.k8s.io/v1") -> JsonObject:
    return {"apiVersion": api_version, "kind": "AdmissionReview", "response": response}


def json_patch(old: Any, new: Any, path: str = "") -> list[JsonObject]:
    """RFC 6902 operations that turn one JSON value into the other; a list of another length is replaced whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        gone = sorted(old.keys() - new.keys())
        patch: list[JsonObject] = [{"op": "remove", "path": f"{path}/{_escaped(key)}"} for key in gone]
        for key, value in new.items():
            if key in old:
                patch += json_patch(old[key], value, f"{path}/{_escaped(key)}")
            else:
                patch.append({"op": "add", "path": f"{path}/{_escaped(key)}", "value": value})
        return patch
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [step for index, (left, right) in pairs for step in json_patch(left, right, f"{path}/{index}")]
    if type(old) is type(new) and old == new:
        return []
    return [{"op": "replace", "path": path, "value": new}]


class _Metadata(msgspec.Struct):
    name: str = ""
    annotations: dict[str, str] | None = None


class _ConfigMap(msgspec.Struct):
    metadata: _Metadata
    data: dict[str, str] | None = None


def _decoded(request: AdmissionRequest) -> tuple[JsonObject | None, JsonObject | None]:
    kind = request.kind
    if kind.group != GROUP or _VERSIONS.get(kind.kind) != kind.version:
        raise Denied(f"unhandled kind: {kind}")
    for name, value in (("new", request.object), ("old", request.old_object)):
        if _deeper_than(_MAX_DEPTH, value):
            raise Denied(f"cannot decode incoming {name} object: json: exceeded max depth of {_MAX_DEPTH}")
        try:
            check_types(KINDS[kind.kind], value)
        except DecodeError as error:
            raise Denied(f"cannot decode incoming {name} object: {error}") from error
    return _with_kind(request.object, kind), _with_kind(request.old_object, kind)


def _deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _with_kind(obj: Any, kind: GroupVersionKind) -> JsonObject | None:
    # The request's kind decides, whatever the object says of itself.
    return None if obj is None else {**obj, "kind": kind.kind, "apiVersion": f"{kind.group}/{kind.version}"}


def _pod_spec(spec: JsonObject) -> JsonObject:
    pod = {key: value for key, value in spec.items() if key not in _KNATIVE_FIELDS}
    pod["containers"] = [_pod_container(container) for container in spec.get("containers") or []]
    return pod


_KNATIVE_FIELDS: Final = (
    "containerConcurrency",
    "timeoutSeconds",
    "responseStartTimeoutSeconds",
    "idleTimeoutSeconds",
)


def _pod_container(container: JsonObject) -> JsonObject:
    out = dict(container)
    out.pop("readinessProbe", None)  # ours to run; periodSeconds 0 would be refused
    out["ports"] = [{**port, "containerPort": port.get("containerPort") or 8080} for port in out.get("ports", [])]
    for port in out["ports"]:
        port["name"] = "user-port"
    return out


def _allowed(request: AdmissionRequest) -> JsonObject:
    return {"uid": request.uid, "allowed": True}


def _denied(request: AdmissionRequest, message: str) -> JsonObject:
    status = {"metadata": {}, "status": "Failure", "message": message, "reason": "BadRequest", "code": 400}
    return {"uid": request.uid, "allowed": False, "status": status}


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
