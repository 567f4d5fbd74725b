"""ConfigMaps and Secrets: which keys they may have, how much they hold, and what cannot change."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from serving.api.meta import JsonObject
from serving.local.apiserver import errors
from serving.local.apiserver.errors import Cause

MAX_BYTES: Final = 1024 * 1024
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+")
_KEY_TEXT: Final = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
    "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_MAX_KEY: Final = 253
_REDACTED: Final = "<secret contents redacted>"
_NEEDED: Final = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def default_secret(obj: JsonObject, _old: JsonObject | None) -> None:
    """In place."""
    plain = obj.pop("stringData", None)
    if plain:
        data = obj["data"] = dict(obj.get("data") or {})
        for name, value in plain.items():
            data[name] = base64.b64encode(str(value).encode()).decode()
    obj.setdefault("type", "Opaque")


def config_map_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    found = _immutable_causes(obj, old, ("data", "binaryData"))
    size = 0
    for name, value in data.items():
        found += _key_causes(f"data[{name}]", name)
        if name in binary:
            found.append(errors.invalid_value(f"data[{name}]", name, "duplicate of key present in binaryData"))
        size += len(str(value).encode())
    for name, value in binary.items():
        found += _key_causes(f"binaryData[{name}]", name)
        size += _decoded_size(value)
    return found + _size_causes(size, "")


def secret_causes(obj: JsonObject, old: JsonObject | None) -> list[Cause]:
    data = obj.get("data") or {}
    found = _immutable_causes(obj, old, ("data",))
    size = 0
    for name, value in data.items():
        found += _key_causes(f"data[{name}]", name)
        try:
            size += len(base64.b64decode(value or "", validate=True))
        except (binascii.Error, TypeError, ValueError):
            found.append(errors.invalid_value(f"data[{name}]", _REDACTED, "illegal base64 data"))
    found += _size_causes(size, "data")
    for name in _NEEDED.get(obj.get("type") or "", ()):
        if name not in data:
            found.append(errors.required(f"data[{name}]"))
    if old is not None and obj.get("type") != old.get("type"):
        found.append(errors.invalid_value("type", obj.get("type"), "field is immutable"))
    return found


def _decoded_size(value: Any) -> int:
    return len(str(value)) * 3 // 4


def _size_causes(size: int, field: str) -> list[Cause]:
    return [errors.too_long(field or "[]", MAX_BYTES, "bytes")] if size > MAX_BYTES else []


def _key_causes(field: str, key: str) -> list[Cause]:
    found: list[Cause] = []
    if len(key) > _MAX_KEY:
        found.append(errors.invalid_value(field, key, f"must be no more than {_MAX_KEY} characters"))
    if not _KEY.fullmatch(key):
        found.append(errors.invalid_value(field, key, _KEY_TEXT))
    if key == ".":
        found.append(errors.invalid_value(field, key, "must not be '.'"))
    elif key == "..":
        found.append(errors.invalid_value(field, key, "must not be '..'"))
    elif key.startswith(".."):
        found.append(errors.invalid_value(field, key, "must not start with '..'"))
    return found


def _immutable_causes(obj: JsonObject, old: JsonObject | None, fields: tuple[str, ...]) -> list[Cause]:
    if old is None or not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    found = [] if obj.get("immutable") else [errors.forbidden_field("immutable", text)]
    return found + [
        errors.forbidden_field(name, text) for name in fields if (obj.get(name) or {}) != (old.get(name) or {})
    ]
