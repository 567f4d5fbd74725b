"""Bodies in Kubernetes' protobuf form (`k8s\\0` + Unknown) as JSON objects, by a table of the built-in messages.

Only reading is needed: every answer is JSON. The table (`wire/builtin.json`) holds field numbers, names and types
of the public `generated.proto` files; `wire.generate` makes it.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from serving.api.meta import JsonObject
from serving.local.apiserver.errors import StatusError, bad_request
from serving.local.apiserver.wire.table import Field, message_of, messages

MAGIC: Final = b"k8s\x00"
_MAX_DEPTH: Final = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def decode(body: bytes) -> JsonObject:
    """Raises StatusError 400 for bytes that are not such a body, 415 for a kind that the table does not know."""
    if not body.startswith(MAGIC):
        raise bad_request("error decoding request body: a protobuf body must start with k8s\\x00")
    try:
        api_version, kind, raw = _unknown(body[len(MAGIC) :])
        message = message_of(api_version, kind)
        if message is None:
            raise StatusError(
                415,
                "UnsupportedMediaType",
                f"{kind} in {api_version} cannot be read as protobuf; send application/json",
            )
        return {"apiVersion": api_version, "kind": kind, **_message(raw, message, 0)}
    except (ValueError, IndexError, struct.error) as error:
        raise bad_request(f"error decoding request body: protobuf: {error}") from error


def _unknown(body: bytes) -> tuple[str, str, bytes]:
    """apiVersion, kind and raw bytes of a runtime.Unknown."""
    api_version = kind = ""
    raw = b""
    for number, _wire, value in _fields(body):
        if number == 1 and isinstance(value, bytes):
            for inner, _, text in _fields(value):
                if isinstance(text, bytes):
                    if inner == 1:
                        api_version = text.decode()
                    elif inner == 2:
                        kind = text.decode()
        elif number == 2 and isinstance(value, bytes):
            raw = value
        elif number == 3 and value:
            raise ValueError("an encoded content is not supported")
    return api_version, kind, raw


def _fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif wire == _FIXED64:
            value, at = data[at : at + 8], at + 8
        elif wire == _FIXED32:
            value, at = data[at : at + 4], at + 4
        else:
            raise ValueError(f"wire type {wire} is not used")
        if at > len(data):
            raise ValueError("the body ends in the middle of a field")
        yield number, wire, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _message(data: bytes, message: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    special = _SPECIAL.get(message)
    if special is not None:
        return special(data)
    table = messages()[message]
    result: JsonObject = {}
    for number, wire, value in _fields(data):
        field = table.get(number)
        if field is None:
            continue
        if field.map_value:
            entry = _map_entry(value, field, depth)
            result.setdefault(field.name, {}).update(entry)
        elif field.repeated:
            result.setdefault(field.name, []).extend(_repeated(value, wire, field, depth))
        else:
            decoded = _value(value, field.type, depth)
            # Go writes empty strings and zero times for fields that JSON leaves out.
            if decoded not in ("", None):
                result[field.name] = decoded
    return _inlined(result, table)


def _inlined(result: JsonObject, table: dict[int, Field]) -> JsonObject:
    """Messages that JSON writes without their own name."""
    for field in table.values():
        if field.inline and isinstance(result.get(field.name), dict):
            result |= result.pop(field.name)
    return result


def _repeated(value: int | bytes, wire: int, field: Field, depth: int) -> list[Any]:
    if wire == _BYTES and field.type in _SCALARS and isinstance(value, bytes):
        found: list[Any] = []
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(_SCALARS[field.type](number))
        return found
    return [_value(value, field.type, depth)]


def _map_entry(value: int | bytes, field: Field, depth: int) -> JsonObject:
    if not isinstance(value, bytes):
        raise ValueError(f"{field.name} is not a map")
    key, item = "", _empty(field.map_value)
    for number, _, part in _fields(value):
        if number == 1 and isinstance(part, bytes):
            key = part.decode()
        elif number == 2:
            item = _value(part, field.map_value, depth)
    return {key: item}


def _empty(type_: str) -> Any:
    if type_ in ("string", "bytes"):
        return ""
    return 0 if type_ in _SCALARS else {}


def _signed(bits: int) -> Callable[[int], int]:
    def convert(value: int) -> int:
        value &= (1 << 64) - 1
        return value - (1 << 64) if value >> 63 else value if bits == 64 else _narrow(value)

    return convert


def _narrow(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


_SCALARS: Final[dict[str, Callable[[int], Any]]] = {
    "bool": bool,
    "int32": _signed(32),
    "int64": _signed(64),
    "uint32": int,
    "uint64": int,
}


def _value(value: int | bytes, type_: str, depth: int) -> Any:
    if isinstance(value, int):
        if type_ not in _SCALARS:
            raise ValueError(f"a number where {type_} is expected")
        return _SCALARS[type_](value)
    if type_ == "string":
        return value.decode()
    if type_ == "bytes":
        return base64.b64encode(value).decode()
    if type_ == "double":
        return struct.unpack("<d", value)[0]
    if type_ in _SCALARS:
        raise ValueError(f"bytes where {type_} is expected")
    return _message(value, type_, depth + 1)


def _numbers(data: bytes) -> dict[int, int | bytes]:
    return {number: value for number, _, value in _fields(data)}


def _time(data: bytes) -> str | None:
    found = _numbers(data)
    seconds = found.get(1, 0)
    if not isinstance(seconds, int):
        raise ValueError("a time without seconds")
    return datetime.fromtimestamp(_signed(64)(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None


def _micro_time(data: bytes) -> str | None:
    found = _numbers(data)
    seconds, nanos = found.get(1, 0), found.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int):
        raise ValueError("a time without seconds")
    if not seconds and not nanos:
        return None
    moment = datetime.fromtimestamp(_signed(64)(seconds), UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos // 1000:06d}Z"


def _text(data: bytes) -> str:
    value = _numbers(data).get(1, b"")
    return value.decode() if isinstance(value, bytes) else ""


def _int_or_string(data: bytes) -> int | str:
    found = _numbers(data)
    if found.get(1, 0) == 1:
        text = found.get(3, b"")
        return text.decode() if isinstance(text, bytes) else ""
    number = found.get(2, 0)
    return _signed(32)(number) if isinstance(number, int) else 0


def _fields_v1(data: bytes) -> Any:
    return _raw_json(data)


def _raw_json(data: bytes) -> Any:
    """A message whose only field holds JSON."""
    value = _numbers(data).get(1, b"")
    return msgspec.json.decode(value) if isinstance(value, bytes) and value else None


def _verbs(data: bytes) -> list[str]:
    return [value.decode() for number, _, value in _fields(data) if number == 1 and isinstance(value, bytes)]


_SPECIAL: Final[dict[str, Callable[[bytes], Any]]] = {
    "k8s.io.apimachinery.pkg.apis.meta.v1.Time": _time,
    "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime": _micro_time,
    "k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1": _fields_v1,
    "k8s.io.apimachinery.pkg.apis.meta.v1.Verbs": _verbs,
    "k8s.io.apimachinery.pkg.api.resource.Quantity": _text,
    "k8s.io.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    "k8s.io.apimachinery.pkg.runtime.RawExtension": _raw_json,
    "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON": _raw_json,
}
