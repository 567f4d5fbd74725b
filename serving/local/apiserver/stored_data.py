"""What a ConfigMap and a Secret may hold: keys, sizes, base64, the keys that a type of Secret needs."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.errors import Cause, Undecodable

_MAX_BYTES: Final = 1024 * 1024
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_TEXT: Final = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
    "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_NO_BASE64: Final = re.compile(r"[^A-Za-z0-9+/\r\n]")
_REDACTED: Final = "<secret contents redacted>"
_ACCOUNT: Final = "kubernetes.io/service-account.name"


def default_config_map(obj: JsonObject, _old: JsonObject | None) -> None:
    """Leaves out what is empty, in place. Raises StatusError 400 for what is no base64."""
    _decoded(obj, "binaryData")
    _without_empty(obj, "data", "binaryData")


def default_secret(obj: JsonObject, _old: JsonObject | None) -> None:
    """Merges stringData into data, in place. Raises StatusError 400 for what is no base64."""
    _decoded(obj, "data")
    plain = obj.pop("stringData", None)
    if plain:
        data = obj["data"] = dict(obj.get("data") or {})
        for name, value in plain.items():
            data[name] = base64.b64encode(str(value or "").encode()).decode()
    _without_empty(obj, "data")
    if not obj.get("type"):
        obj["type"] = "Opaque"


def config_map_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    found: list[Cause] = []
    for name in data:
        found += _key_causes("data", name)
        if name in binary:
            found.append(errors.invalid_value(f"data[{name}]", name, "duplicate of key present in binaryData"))
    for name in binary:
        found += _key_causes("binaryData", name)
    size = sum(len(value.encode()) for value in data.values()) + _size(binary)
    if size > _MAX_BYTES:
        found.append(errors.too_long("[]", _MAX_BYTES, "bytes"))
    return found + _immutable_causes(obj, old, "data", "binaryData")


def secret_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    data = obj.get("data") or {}
    found = [cause for name in data for cause in _key_causes("data", name)]
    if _size(data) > _MAX_BYTES:
        found.append(errors.too_long("data", _MAX_BYTES, "bytes"))
    found += _type_causes(obj, data)
    if old is not None and obj.get("type") != old.get("type"):
        found.append(errors.invalid_value("type", obj.get("type"), "field is immutable"))
    return found + _immutable_causes(obj, old, "data")


def _type_causes(obj: JsonObject, data: dict[str, str]) -> list[Cause]:
    kind = obj.get("type")
    needed = _NEEDED.get(str(kind), ())
    if kind in ("kubernetes.io/dockercfg", "kubernetes.io/dockerconfigjson"):
        (key,) = needed
        if key not in data:
            return [errors.required(f"data[{key}]")]
        try:
            json.loads(base64.b64decode(data[key]))
        except ValueError as error:
            return [errors.invalid_value(f"data[{key}]", _REDACTED, _json_problem(error))]
    elif kind == "kubernetes.io/basic-auth":
        if not any(key in data for key in needed):
            return [errors.required(f"data[{key}]") for key in needed]
    elif kind == "kubernetes.io/service-account-token":
        if not (obj["metadata"].get("annotations") or {}).get(_ACCOUNT):
            return [errors.required(f"metadata.annotations[{_ACCOUNT}]")]
    else:
        return [errors.required(f"data[{key}]") for key in needed if key not in data]
    return []


_NEEDED: Final = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/basic-auth": ("username", "password"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _json_problem(error: ValueError) -> str:
    """In the words of Go's decoder, as far as they are the same for what is no JSON at all."""
    if isinstance(error, json.JSONDecodeError) and error.pos < len(error.doc):
        return f"invalid character '{error.doc[error.pos]}' looking for beginning of value"
    return "unexpected end of JSON input"


def _key_causes(field: str, name: str) -> list[Cause]:
    where = f"{field}[{name}]"
    if len(name) > 253:
        return [errors.invalid_value(where, name, "must be no more than 253 characters")]
    if not _KEY.fullmatch(name):
        return [errors.invalid_value(where, name, _KEY_TEXT)]
    if name == "." or name.startswith(".."):
        text = f"must not be '{name}'" if name in (".", "..") else "must not start with '..'"
        return [errors.invalid_value(where, name, text)]
    return []


def _immutable_causes(obj: JsonObject, old: JsonObject | None, *fields: str) -> list[Cause]:
    if old is None or not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    changed = ["immutable"] if not obj.get("immutable") else []
    changed += [field for field in fields if obj.get(field) != old.get(field)]
    return [errors.forbidden_field(field, text) for field in changed]


def _decoded(obj: JsonObject, field: str) -> None:
    for name, value in (obj.get(field) or {}).items():
        if value is None:
            obj[field][name] = ""
            continue
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error:
            wrong = _NO_BASE64.search(value.rstrip("="))
            where = wrong.start() if wrong else len(value)
            raise Undecodable(obj["kind"], "v1", f"illegal base64 data at input byte {where}") from None


def _without_empty(obj: JsonObject, *fields: str) -> None:
    for field in fields:
        if field in obj and not obj[field]:
            del obj[field]


def _size(encoded: dict[str, str]) -> int:
    """Bytes, decoded."""
    return sum(len(value) * 3 // 4 - value[-2:].count("=") for value in encoded.values())
