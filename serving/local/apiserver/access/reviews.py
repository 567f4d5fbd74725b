"""Questions about users: who am I, what may I do, may somebody do this, whose token is it."""

from __future__ import annotations

from typing import Any

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.access.attributes import Attributes
from serving.local.apiserver.access.gate import Gate
from serving.local.apiserver.access.rules import to_json
from serving.local.apiserver.access.tokens import InvalidToken
from serving.local.apiserver.errors import Cause, bad_request
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.request import User


async def answer(kind: Kind, namespace: str, body: JsonObject, user: User, gate: Gate) -> JsonObject:
    """The review with its status. Raises StatusError 400 or 422."""
    spec: JsonObject = body.get("spec") or {}
    match kind.kind:
        case "SelfSubjectReview":
            status: JsonObject = {"userInfo": user.info()}
        case "TokenReview":
            status = await _token(spec, gate)
        case "SelfSubjectRulesReview":
            status = _rules(spec, user, gate)
        case _:
            _check_access(kind, namespace, spec)
            asked = _asked(spec, user if kind.kind == "SelfSubjectAccessReview" else _subject(spec))
            decision = gate.authorizer.decide(asked)
            status = {"allowed": decision.allowed}
            if decision.reason:
                status["reason"] = decision.reason
    metadata: JsonObject = {"namespace": namespace} if kind.namespaced else {}
    return {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": metadata,
        "spec": spec,
        "status": status,
    }


async def _token(spec: JsonObject, gate: Gate) -> JsonObject:
    token = str(spec.get("token") or "")
    if not token:
        raise bad_request("token is required for TokenReview in authentication")
    try:
        found = await gate.authenticator.identify(token, tuple(spec.get("audiences") or ()))
    except InvalidToken as error:
        why = f", {error}" if str(error) else ""
        return {"user": {}, "error": f"[invalid bearer token{why}]"}
    return {"authenticated": True, "user": found.user.info(), "audiences": list(found.audiences)}


def _rules(spec: JsonObject, user: User, gate: Gate) -> JsonObject:
    namespace = str(spec.get("namespace") or "")
    if not namespace:
        raise bad_request("no namespace on request")
    rules, problem = gate.authorizer.policy.rules_for(user, namespace)
    resources, urls = [], []
    for rule in map(to_json, rules):
        if rule.get("resources"):
            resources.append({"apiGroups": [], **{k: v for k, v in rule.items() if k != "nonResourceURLs"}})
        if rule.get("nonResourceURLs"):
            urls.append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
    status: JsonObject = {"resourceRules": resources, "nonResourceRules": urls, "incomplete": False}
    if problem:
        status["evaluationError"] = problem
    return status


def _check_access(kind: Kind, namespace: str, spec: JsonObject) -> None:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    causes: list[Cause] = []
    if resource is not None and path is not None:
        detail = "cannot be specified in combination with resourceAttributes"
        causes.append(errors.invalid_value("spec.nonResourceAttributes", _shown(path), detail))
    if resource is None and path is None:
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.append(errors.invalid_value("spec.resourceAttributes", None, detail))
    if kind.kind != "SelfSubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
        detail = "at least one of user or group must be specified"
        causes.append(errors.invalid_value("spec.user", "", detail))
    if kind.namespaced and resource is not None and (resource.get("namespace") or "") != namespace:
        field, found = "spec.resourceAttributes.namespace", resource.get("namespace") or ""
        causes.append(errors.invalid_value(field, found, "must match metadata.namespace"))
    if kind.namespaced and path is not None:
        detail = "disallowed on this kind of request"
        causes.append(errors.invalid_value("spec.nonResourceAttributes", _shown(path), detail))
    if causes:
        refused = errors.invalid("", kind.group, "", causes)  # kube-apiserver names no kind here
        refused.details = {"group": kind.group, "causes": (refused.details or {})["causes"]}
        raise refused


def _shown(path: JsonObject) -> JsonObject:
    """With the names of Go's fields."""
    return {"Path": path.get("path") or "", "Verb": path.get("verb") or ""}


def _subject(spec: JsonObject) -> User:
    return User(
        name=str(spec.get("user") or ""),
        groups=tuple(spec.get("groups") or ()),
        uid=str(spec.get("uid") or ""),
        extra={key: tuple(values) for key, values in (spec.get("extra") or {}).items()},
    )


def _asked(spec: JsonObject, user: User) -> Attributes:
    resource: dict[str, Any] | None = spec.get("resourceAttributes")
    if resource is None:
        path: dict[str, Any] = spec.get("nonResourceAttributes") or {}
        return Attributes(user=user, verb=str(path.get("verb") or ""), path=str(path.get("path") or ""))
    names = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    return Attributes(user=user, **{name: str(resource.get(name) or "") for name in names})
