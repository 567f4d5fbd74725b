"""Content negotiation: what form of answer a client accepts, and how its body is written."""

from __future__ import annotations

from typing import Final

import msgspec

from serving.local.apiserver.errors import StatusError, not_acceptable, unsupported_media_type

JSON: Final = "application/json"
YAML: Final = "application/yaml"
PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
BODY_TYPES: Final = (JSON, YAML, PROTOBUF)
DISCOVERY_TYPE: Final = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"


class Form(msgspec.Struct, frozen=True):
    """`name` is one of object, table, partial, partial-list, discovery."""

    name: str = "object"
    content_type: str = JSON


_OBJECT: Final = Form()
_AS: Final = {
    "Table": "table",
    "PartialObjectMetadata": "partial",
    "PartialObjectMetadataList": "partial-list",
    "APIGroupDiscoveryList": "discovery",
}


def accepted(header: str) -> Form:
    """The first form of an Accept header that can be served. Raises StatusError 406 when none can."""
    if not header or header == JSON:
        return _OBJECT
    refused = False
    for item in header.split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        values = dict(part.split("=", 1) for part in parameters if "=" in part)
        if media == YAML and not parameters:
            return _OBJECT
        if media not in (JSON, "*/*"):
            continue
        wanted = values.get("as")
        if wanted is None:
            return _OBJECT
        name = _AS.get(wanted)
        if name == "discovery" and values.get("v") == "v2":
            return Form("discovery", DISCOVERY_TYPE)
        if name in ("table", "partial", "partial-list") and values.get("v") == "v1":
            return Form(name, JSON)
        refused = True
    raise not_acceptable(BODY_TYPES, known=refused)


def wants_yaml(header: str) -> bool:
    """Whether YAML is the first form of an Accept header that can be served. Tables and the like are JSON."""
    if YAML not in header:
        return False
    asked = [item.strip() for item in header.split(",")]
    return next((item for item in asked if item == YAML or item.startswith((JSON, "*/*"))), "") == YAML


def body_type(header: str) -> str:
    """The media type of a body; none means JSON. Raises StatusError 415."""
    media = header.split(";", 1)[0].strip().lower()
    if media in ("", JSON):
        return JSON
    if media in BODY_TYPES:
        return media
    raise unsupported_media_type(BODY_TYPES)


def is_apply(header: str) -> bool:
    """Whether a patch is a server-side apply."""
    return header.split(";", 1)[0].strip().lower() == APPLY_PATCH


def patch_type(header: str, *, custom: bool) -> str:
    """Raises StatusError 415 for a form of patch that this kind does not take."""
    media = header.split(";", 1)[0].strip().lower()
    if media not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH):
        raise StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", details={})
    if custom and media == STRATEGIC_PATCH:
        raise unsupported_media_type((JSON_PATCH, MERGE_PATCH, APPLY_PATCH))
    return media
