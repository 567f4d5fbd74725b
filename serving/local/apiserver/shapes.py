"""What an object of a kind may look like: body checks, pruning, defaulting and validation, custom or built-in."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver import errors, fieldvalidation, meta, schema, specifics, validation
from serving.local.apiserver.errors import Cause, Undecodable, bad_request
from serving.local.apiserver.kinds import Kind
from serving.local.apiserver.request import Context
from serving.local.apiserver.wire.schema import builtin_schema, metadata_schema


def is_raw(owners: object) -> bool:
    """Whether managedFields are in the form of stored objects: nobody touched them."""
    return isinstance(owners, msgspec.Raw)


def check_body(body: object, kind: Kind, *, namespace: str, name: str = "", may_be_unnamed: bool = False) -> None:
    """Raises StatusError 400 unless the body can be an object of that kind at that address. Fills in apiVersion
    and kind of built-in kinds, which may leave them out."""
    if not isinstance(body, dict):
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind.kind}): expected a JSON object"
        )
    if not kind.custom:
        for field, value in (("apiVersion", kind.api_version), ("kind", kind.kind)):
            if not body.get(field):
                body[field] = value
    if not body.get("kind"):
        text = msgspec.json.encode(body).decode()
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind.kind}): Object 'Kind' is missing in "
            f"'{text}' ({text[:30]} ...)"
        )
    if body.get("apiVersion") != kind.api_version and kind.custom:
        raise bad_request(
            f"the API version in the data ({body.get('apiVersion') or ''}) does not match the expected API "
            f"version ({kind.api_version})"
        )
    if (body["apiVersion"], body["kind"]) != (kind.api_version, kind.kind):
        if not kind.custom:
            raise _other_kind(str(body["apiVersion"]), str(body["kind"]), kind)
        cause = errors.invalid_value("kind", body["kind"], f"must be {kind.kind}")
        found_name = str((body.get("metadata") or {}).get("name") or name)
        raise errors.invalid(str(body["kind"]), kind.group, found_name, [cause])
    if problem := meta.type_problem(body, kind):
        raise Undecodable(kind.kind, kind.version, problem)
    meta.without_nulls(body)
    metadata = body.get("metadata") or {}
    found = metadata.get("namespace")
    if kind.namespaced and found and found != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if name and not metadata.get("name") and not may_be_unnamed:
        raise bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )
    if name and (metadata.get("name") or name) != name:
        raise bad_request(
            f"the name of the object ({metadata.get('name')}) does not match the name on the URL ({name})"
        )


def _other_kind(api_version: str, name: str, kind: Kind) -> Undecodable:
    _, _, version = api_version.rpartition("/")
    if builtin_schema(api_version, name) is None:
        why = f'no kind "{name}" is registered for version "{api_version}" in scheme "pkg/runtime/scheme.go:111"'
    else:
        wanted = (kind.group or "core").partition(".")[0]
        why = f"converting ({version}.{name}) to ({wanted}.{kind.kind}): unknown conversion"
    return Undecodable(kind.kind, version, why, found=name)


def prune(body: JsonObject, kind: Kind, context: Context | None, *, old: JsonObject | None = None) -> None:
    """Drop unknown fields, in place, and report them as the request asked. `context` None = silently. `old` is the
    stored object that the body was made from.

    Raises StatusError 400 in Strict mode, and for a built-in kind with a field of the wrong type.
    """
    unknown: list[str] = []
    own = own_schema(kind)
    typed = not kind.custom
    order = {name: index for index, name in enumerate(body)}
    metadata = body.get("metadata")
    # What a built-in kind's object has had all along was looked at when it was stored.
    before = old if typed and old is not None else _NOTHING
    fresh = {
        name: value
        for name, value in body.items()
        if name not in _META and (name not in before or before[name] != value)
    }
    if own is not None and not schema.is_clean(fresh, own, typed=typed):
        unknown = schema.prune(body, own)
        if context is not None or typed:  # a null of a webhook is judged, not dropped
            schema.drop_nulls(body, own)
        if typed:
            _check_types(body, own, kind, "")
    if isinstance(metadata, dict):
        unknown += _prune_metadata(metadata, kind)
    if context is not None and (unknown or context.duplicates):
        # A patched object is encoded before it is looked at: its fields are in order of their names.
        in_order = typed and old is None
        unknown.sort(key=(lambda path: order.get(re.split(r"[.\[]", path)[0], 0)) if in_order else None)
        warnings = fieldvalidation.report(
            kind, body, mode=context.field_validation, duplicates=context.duplicates, unknown=unknown
        )
        for warning in warnings:
            context.warn(warning)


_META: Final = frozenset({"apiVersion", "kind", "metadata"})
_NOTHING: Final[JsonObject] = {}


def _prune_metadata(metadata: JsonObject, kind: Kind) -> list[str]:
    own = metadata_schema()
    owners = metadata.pop("managedFields", None) if is_raw(metadata.get("managedFields")) else None
    unknown: list[str] = []
    if not schema.is_clean(metadata, own, typed=True):
        unknown = [f"metadata.{path}" for path in schema.prune_value(metadata, own)]
        schema.drop_nulls(metadata, own)
        _check_types(metadata, own, kind, "metadata")
    if owners is not None:
        metadata["managedFields"] = owners
    return unknown


def own_schema(kind: Kind) -> JsonObject | None:
    """What a kind's fields are; None = anything."""
    return kind.schema if kind.custom else builtin_schema(kind.api_version, kind.kind)


_GO_TYPES: Final = {
    "array": "slice",
    "boolean": "bool",
    "integer": "int64",
    "number": "float64",
    "object": "struct",
}


def _check_types(value: JsonObject, own: JsonObject, kind: Kind, path: str) -> None:
    """A typed server cannot even decode a field of the wrong type."""
    for found in validation.mismatches(value, own, path):
        shown = {"integer": "number", "boolean": "bool"}.get(found.found, found.found)
        wanted = _GO_TYPES.get(found.wanted, found.wanted)
        why = f"json: cannot unmarshal {shown} into Go struct field {kind.kind}.{found.place} of type {wanted}"
        raise Undecodable(kind.kind, kind.version, why)


def fill(obj: JsonObject, kind: Kind, old: JsonObject | None) -> None:
    """Apply the defaults, in place."""
    if kind.custom and kind.schema is not None:
        schema.default(obj, kind.schema)
    specifics.apply_defaults(obj, kind, old)


def causes(obj: JsonObject, kind: Kind, old: JsonObject | None, *, subresource: str = "") -> list[Cause]:
    """Everything that is wrong with an object that is about to be stored."""
    found = meta.metadata_causes(obj, kind)
    if kind.custom and kind.schema is not None:
        found += validation.validate(obj, kind.schema)
    return found + specifics.causes(obj, kind, old, subresource=subresource)
