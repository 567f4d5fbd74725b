"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386) on whole objects."""

from __future__ import annotations

from typing import Any

from serving.api.meta import JsonObject
from serving.local.apiserver import gojson, json_patch
from serving.local.apiserver.errors import StatusError, bad_request, unprocessable

MAX_OPERATIONS = 10_000


def merge(target: Any, change: Any) -> Any:
    """The result of a merge patch; `target` is left as it is."""
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def apply_json_patch(obj: JsonObject, operations: object) -> JsonObject:
    """Raises StatusError 400 for something that is no JSON patch, 422 when an operation cannot be applied."""
    if not isinstance(operations, list):
        raise bad_request(f"error decoding patch: {gojson.misfit(operations, '[]handlers.jsonPatchOp')}")
    if len(operations) > MAX_OPERATIONS:
        raise StatusError(
            413,
            "RequestEntityTooLarge",
            "Request entity too large: The allowed maximum operations in a JSON patch is "
            f"{MAX_OPERATIONS}, got {len(operations)}",
        )
    for operation in operations:
        if not isinstance(operation, dict):
            raise bad_request(f"error decoding patch: {gojson.misfit(operation, 'handlers.jsonPatchOp')}")
    try:
        result = json_patch.apply(obj, operations)
    except json_patch.CannotApply as error:
        raise unprocessable("the server rejected our request due to an error in our request", {}) from error
    if not isinstance(result, dict):
        raise bad_request("the patch replaces the object by something that is not an object")
    return result


def apply_merge_patch(obj: JsonObject, change: object) -> JsonObject:
    if not isinstance(change, dict):
        if change is None:
            raise bad_request("Invalid JSON Patch")
        raise bad_request(f"error decoding patch: {gojson.misfit(change, gojson.ANY_OBJECT)}")
    merged: JsonObject = merge(obj, change)
    return merged
