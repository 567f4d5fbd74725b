"""Reading request bodies: objects and patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import fieldvalidation, gojson, negotiate, protobuf, shapes, strategic, tracking
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
    media = negotiate.body_type(request.headers.get("Content-Type", ""))
    data = await request.read()
    try:
        decoded = _decode(media, data, find_duplicates=context.field_validation != "Ignore")
    except StatusError as error:
        why = gojson.problem(data) if media == negotiate.JSON else ""
        raise _unrecognized(kind, f"{_NO_KIND}{why}" if why else error.message, data) from error
    context.duplicates = decoded.duplicates
    value = {} if decoded.value is None else decoded.value
    if not isinstance(value, dict):
        raise _unrecognized(kind, f"{_NO_KIND}{gojson.misfit(value)}", data)
    version = value.get("apiVersion")
    if isinstance(version, str) and version.count("/") > 1:
        raise _unrecognized(kind, f"unexpected GroupVersion string: {version}", data)
    return value


_NO_KIND: Final = "couldn't get version/kind; json parse error: "


def _unrecognized(kind: str, why: str, data: bytes) -> StatusError:
    if kind == "DeleteOptions":
        return bad_request(why)
    text = f"the object provided is unrecognized (must be of type {kind}): {why} ({gojson.summary(data)})"
    return bad_request(text)


def _decode(media: str, data: bytes, *, find_duplicates: bool) -> Decoded:
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
        raise bad_request(f"error decoding YAML: {error.message}") from error
    config = decoded.value
    if config is None:
        config = {}
    if not isinstance(config, dict):
        form = "array" if isinstance(config, list) else "string"
        raise bad_request(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{form} into Go value of type map[string]interface {{}}"
        )
    context.duplicates = decoded.duplicates
    _check_type(config, kind)
    shapes.check_body(config, kind, namespace=target.namespace, name=target.name, may_be_unnamed=True)
    if found := tracking.misfits(config, kind, shapes.own_schema(kind)):
        raise tracking.untyped(kind, config, found)
    shapes.prune(config, kind, context)
    return Applying(
        config,
        kind,
        manager=context.manager,
        subresource=target.subresource,
        force=force,
    )


def _unknown_members(form: str, change: object) -> tuple[str, ...]:
    """Of the operations of a JSON patch."""
    if form != negotiate.JSON_PATCH or not isinstance(change, list):
        return ()
    return tuple(
        f'json patch unknown field "[{index}].{name}"'
        for index, operation in enumerate(change)
        if isinstance(operation, dict)
        for name in operation
        if name not in ("op", "path", "from", "value")
    )


def _check_type(config: JsonObject, kind: Kind) -> None:
    """Unlike other bodies, a configuration always says what it is."""
    version, name = str(config.get("apiVersion") or ""), str(config.get("kind") or "")
    if (version, name) != (kind.api_version, kind.kind):
        shown = version if "/" in version else f"/{version}"
        raise bad_request(f"invalid object type: {shown}, Kind={name}")


async def patch_change(request: web.Request, context: Context, form: str, kind: Kind) -> Change:
    """What a patch body of that form does to an object."""
    data = await request.read()
    try:
        decoded = fieldvalidation.decode_json(data, find_duplicates=context.field_validation != "Ignore")
    except StatusError as error:
        prefix = "" if form == negotiate.STRATEGIC_PATCH else "error decoding patch: "
        raise bad_request(f"{prefix}{gojson.problem(data) or error.message}") from error
    change = decoded.value
    context.duplicates = decoded.duplicates + _unknown_members(form, change)

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
