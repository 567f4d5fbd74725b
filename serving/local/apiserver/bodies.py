"""Reading request bodies: objects and patches."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import fieldvalidation, negotiate, protobuf, shapes, strategic, tracking
from serving.local.apiserver.errors import StatusError, bad_request
from serving.local.apiserver.fieldvalidation import Decoded
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.patch import apply_json_patch, apply_merge_patch
from serving.local.apiserver.paths import Target
from serving.local.apiserver.request import Context
from serving.local.apiserver.tracking import Applying

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


async def read_configuration(
    request: web.Request, target: Target, kind: Kind, context: Context, *, force: bool
) -> Applying:
    """The YAML (or JSON) body of a server-side apply. Raises StatusError 400, 413 or 500."""
    try:
        decoded = fieldvalidation.decode_yaml(await request.read())
    except StatusError as error:
        raise bad_request(error.message.replace("request body", "YAML", 1)) from error
    config = decoded.value
    if not isinstance(config, dict):
        raise bad_request("error decoding YAML: the configuration must be an object")
    context.duplicates = decoded.duplicates
    _check_type(config, kind)
    shapes.check_body(config, kind, namespace=target.namespace, name=target.name)
    unknown = tracking.unknown_fields(config, kind, shapes.own_schema(kind))
    if unknown:
        raise tracking.untyped(kind, target.namespace, target.name, unknown)
    shapes.prune(config, kind, context)
    return Applying(
        config,
        kind,
        manager=context.manager,
        subresource=target.subresource,
        force=force,
        namespace=target.namespace,
        name=target.name,
    )


def _check_type(config: JsonObject, kind: Kind) -> None:
    """Unlike other bodies, a configuration always says what it is."""
    for field in ("apiVersion", "kind"):
        if not config.get(field):
            text = "invalid object type: " if field == "apiVersion" else "Object 'Kind' is missing in "
            raise bad_request(text + msgspec.json.encode(config).decode())
    if (config["apiVersion"], config["kind"]) != (kind.api_version, kind.kind):
        shown = config["apiVersion"] if "/" in str(config["apiVersion"]) else f"/{config['apiVersion']}"
        raise bad_request(f"invalid object type: {shown}, Kind={config['kind']}")


async def patch_change(request: web.Request, context: Context, form: str, kind: Kind) -> Change:
    """What a patch body of that form does to an object."""
    data = await request.read()
    decoded = fieldvalidation.decode_json(data, find_duplicates=context.field_validation != "Ignore")
    context.duplicates = decoded.duplicates
    change = decoded.value

    about_owners = b"managedFields" in data

    def apply(obj: JsonObject) -> JsonObject:
        if about_owners and shapes.is_raw(owners := obj["metadata"].get("managedFields")):
            obj["metadata"]["managedFields"] = msgspec.json.decode(owners)
        if form == negotiate.JSON_PATCH:
            return apply_json_patch(obj, change)
        if form == negotiate.MERGE_PATCH:
            return apply_merge_patch(obj, change)
        return strategic.apply(obj, change, kind)

    return apply
