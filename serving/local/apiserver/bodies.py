"""Reading request bodies: objects and patches."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import fieldvalidation, negotiate, protobuf, strategic
from serving.local.apiserver.errors import bad_request
from serving.local.apiserver.fieldvalidation import Decoded
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.patch import apply_json_patch, apply_merge_patch
from serving.local.apiserver.request import Context

Change = Callable[[JsonObject], JsonObject]


async def read_object(request: web.Request, context: Context, kind: str) -> JsonObject:
    """A JSON, YAML or protobuf body that is an object. Raises StatusError 400, 413 or 415."""
    decoded = await _read(request, find_duplicates=context.field_validation != "Ignore")
    context.duplicates = decoded.duplicates
    if not isinstance(decoded.value, dict):
        raise bad_request(f"the object provided is unrecognized (must be of type {kind}): expected a JSON object")
    return decoded.value


async def _read(request: web.Request, *, find_duplicates: bool) -> Decoded:
    media = negotiate.body_type(request.headers.get("Content-Type", ""))
    data = await request.read()
    if media == negotiate.YAML:
        return fieldvalidation.decode_yaml(data)
    if media == negotiate.PROTOBUF:
        return Decoded(protobuf.decode(data))
    return fieldvalidation.decode_json(data, find_duplicates=find_duplicates)


async def patch_change(request: web.Request, context: Context, form: str, kind: Kind) -> Change:
    """What a patch body of that form does to an object."""
    decoded = fieldvalidation.decode_json(
        await request.read(), find_duplicates=context.field_validation != "Ignore"
    )
    context.duplicates = decoded.duplicates
    change = decoded.value

    def apply(obj: JsonObject) -> JsonObject:
        if form == negotiate.JSON_PATCH:
            return apply_json_patch(obj, change)
        if form == negotiate.MERGE_PATCH:
            return apply_merge_patch(obj, change)
        return strategic.apply(obj, change, kind)

    return apply
