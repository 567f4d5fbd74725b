"""Failures as the API reports them: a `Status` object with code, reason, message and details.

Error tree: `StatusError` is the only exception that the verbs raise on purpose. Messages are those of
kube-apiserver, because tools and people match on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from serving.api.meta import JsonObject


class StatusError(Exception):
    """A refused request. `headers` are extra response headers, e.g. Retry-After."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: JsonObject | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = dict(headers or {})

    def status(self) -> JsonObject:
        """The `Status` object of the response."""
        status: JsonObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


class Undecodable(StatusError):
    """A body, or what a patch made of an object, that Go could not decode; `why` in the words of its decoder."""

    def __init__(self, kind: str, version: str, why: str, *, found: str = "") -> None:
        text = f'{found or kind} in version "{version}" cannot be handled as a {kind}: {why}'
        super().__init__(400, "BadRequest", text)
        self.why = why


class Cause(msgspec.Struct, frozen=True):
    """One field that is wrong. `text` is what follows the field in the message."""

    field: str
    reason: str
    text: str

    @property
    def message(self) -> str:
        return f"{self.field}: {self.text}" if self.field else self.text


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def required(field: str, detail: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", f"Required value: {detail}" if detail else "Required value")


def invalid_value(field: str, value: object, detail: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f"Invalid value: {_show(value)}: {detail}")


def wrong_type(field: str, found: str, wanted: str) -> Cause:
    """`found` and `wanted` are JSON type names."""
    detail = f'{field} in body must be of type {wanted}: "{found}"'
    return Cause(field, "FieldValueTypeInvalid", f'Invalid value: "{found}": {detail}')


def not_supported(field: str, value: object, allowed: Iterable[object]) -> Cause:
    listed = ", ".join(_show(item) for item in allowed)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {_show(value)}: supported values: {listed}")


def forbidden_field(field: str, detail: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def duplicate_value(field: str, value: object) -> Cause:
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {_show(value)}")


def too_long(field: str, limit: int, unit: str) -> Cause:
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {limit} {unit}")


def qualified(plural: str, group: str) -> str:
    """`configmaps`, or `services.serving.knative.dev`."""
    return f"{plural}.{group}" if group else plural


def _details(plural: str, group: str, name: str = "") -> JsonObject:
    details: JsonObject = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    details["kind"] = plural
    return details


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def forbidden(plural: str, group: str, name: str, message: str, *, causes: list[Any] | None = None) -> StatusError:
    details = _details(plural, group, name)
    if causes:
        details["causes"] = causes
    text = f'{qualified(plural, group)} "{name}" is forbidden: {message}'
    return StatusError(403, "Forbidden", text, details=details)


def not_found(plural: str, group: str, name: str) -> StatusError:
    text = f'{qualified(plural, group)} "{name}" not found'
    return StatusError(404, "NotFound", text, details=_details(plural, group, name))


def unknown_resource() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource", details={})


def method_not_allowed() -> StatusError:
    return StatusError(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource", details={}
    )


def not_acceptable(available: Iterable[str], *, known: bool) -> StatusError:
    """`known`: a media type of these was asked for, in a form that it does not have."""
    listed = ", ".join(available)
    if known:
        return StatusError(406, "NotAcceptable", f"only the following media types are accepted: {listed}")
    return StatusError(
        406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {listed}", details={}
    )


def not_of_that_form(asked: str, found: str) -> StatusError:
    """A list asked for as one object, or the other way round."""
    return StatusError(406, "NotAcceptable", f"you requested {asked}, but the requested object is {found}")


def refused_patch(result: object, why: str) -> StatusError:
    """What a patch made cannot be decoded."""
    shown = msgspec.json.encode(result).decode()
    return invalid("", "", "", [Cause("patch", "FieldValueInvalid", f"Invalid value: {_show(shown)}: {why}")])


def already_exists(plural: str, group: str, name: str, *, leaving: bool = False) -> StatusError:
    """`leaving`: the one that exists is being deleted."""
    text = f'{qualified(plural, group)} "{name}" already exists'
    if leaving:
        text = f"object is being deleted: {text}"
    return StatusError(409, "AlreadyExists", text, details=_details(plural, group, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(plural: str, group: str, name: str, why: str = MODIFIED) -> StatusError:
    text = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return StatusError(409, "Conflict", text, details=_details(plural, group, name))


def too_large(limit: int) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unsupported_media_type(accepted: Iterable[str]) -> StatusError:
    text = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(
        accepted
    )
    return StatusError(415, "UnsupportedMediaType", text)


def invalid(kind: str, group: str, name: str, causes: Iterable[Cause]) -> StatusError:
    """422 with one cause per wrong field. `kind` is the Kind, not the plural."""
    listed = list(causes)
    messages = [cause.message for cause in listed]
    joined = messages[0] if len(messages) == 1 else "[" + ", ".join(messages) + "]"
    qualified_kind = f"{kind}.{group}" if group else kind
    details = _details(kind, group, name) if kind else {}
    details["causes"] = [
        {"reason": cause.reason, "message": cause.text, "field": cause.field or "<nil>"} for cause in listed
    ]
    return StatusError(422, "Invalid", f'{qualified_kind} "{name}" is invalid: {joined}', details=details)


def unprocessable(message: str, details: JsonObject | None = None) -> StatusError:
    return StatusError(422, "Invalid", message, details=details)


def expired(message: str) -> StatusError:
    return StatusError(410, "Expired", message)


def too_old(requested: int, oldest: int) -> StatusError:
    return expired(f"too old resource version: {requested} ({oldest})")


def from_the_future(requested: int, current: int) -> StatusError:
    """A resourceVersion that this server has not reached."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {requested}, current: {current}",
        details={"causes": [cause], "retryAfterSeconds": 1},
        headers={"Retry-After": "1"},
    )


def internal(message: str) -> StatusError:
    text = f"Internal error occurred: {message}"
    return StatusError(500, "InternalError", text, details={"causes": [{"message": message}]})


def not_implemented(what: str) -> StatusError:
    return StatusError(501, "NotImplemented", f"{what} is not implemented by the embedded API server")
