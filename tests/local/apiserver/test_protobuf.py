"""Protobuf bodies, written here by hand and by hypothesis."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.apiserver.errors import StatusError
from serving.local.apiserver.protobuf import MAGIC, decode
from serving.local.apiserver.wire.schema import builtin_schema, metadata_schema
from serving.local.apiserver.wire.table import message_of, messages
from tests.local.apiserver.objects import REGISTRY


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    meta = field(1, api_version) + field(2, kind)
    return MAGIC + field(1, meta) + field(2, raw) + field(3, "") + field(4, "")


def test_a_config_map() -> None:
    metadata = (
        field(1, "c")
        + field(2, "")
        + field(3, "default")
        + field(8, b"")
        + field(11, field(1, "l") + field(2, "v"))
    )
    raw = (
        field(1, metadata)
        + field(2, field(1, "k") + field(2, "v"))
        + field(3, field(1, "b") + field(2, b"\x00\xff"))
    )
    assert decode(body("v1", "ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default", "labels": {"l": "v"}},
        "data": {"k": "v"},
        "binaryData": {"b": base64.b64encode(b"\x00\xff").decode()},
    }


def test_inlined_messages_numbers_and_times() -> None:
    probe = field(1, field(2, field(2, field(1, 0) + field(2, 8080)))) + field(4, -3)
    container = field(1, "c") + field(10, probe) + field(8, field(1, field(1, "cpu") + field(2, field(1, "100m"))))
    metadata = field(1, "p") + field(8, field(1, 1_793_534_400))
    decoded = decode(body("v1", "Pod", field(1, metadata) + field(2, field(2, container))))
    assert decoded["metadata"]["creationTimestamp"] == "2026-11-01T12:00:00Z"
    assert decoded["spec"]["containers"] == [
        {
            "name": "c",
            "livenessProbe": {"httpGet": {"port": 8080}, "periodSeconds": -3},
            "resources": {"limits": {"cpu": "100m"}},
        }
    ]


def test_delete_options() -> None:
    raw = field(1, 0) + field(2, field(1, "uid")) + field(4, "Foreground")
    assert decode(body("v1", "DeleteOptions", raw)) == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "uid"},
        "propagationPolicy": "Foreground",
    }


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"{}", 400),
        (body("v1", "Nonsense", b""), 415),
        (body("v1", "ConfigMap", b"\x0a\xff"), 400),
        (body("v1", "ConfigMap", b"\x0b"), 400),
        (body("v1", "ConfigMap", field(1, 5)), 400),
    ],
)
def test_bad_bodies(data: bytes, code: int) -> None:
    with pytest.raises(StatusError) as caught:
        decode(data)
    assert caught.value.code == code


@given(st.binary(max_size=200), st.sampled_from(["ConfigMap", "Pod", "Secret", "Namespace", "DeleteOptions"]))
def test_any_bytes_are_an_object_or_a_bad_request(raw: bytes, kind: str) -> None:
    code = 200
    decoded: Any = {"kind": kind}
    try:
        decoded = decode(body("v1", kind, raw))
    except StatusError as error:
        code = error.code
    assert (decoded["kind"], code in (200, 400)) == (kind, True)


def test_the_table_knows_every_builtin_kind_but_definitions() -> None:
    missing = {kind.kind for kind in REGISTRY if message_of(kind.api_version, kind.kind) is None}
    assert missing == {"CustomResourceDefinition"}
    for fields in messages().values():
        for entry in fields.values():
            assert entry.name[:1].islower() or entry.name in ("Port", "Raw")  # NodeDaemonEndpoint, FieldsV1


def test_schemas_from_the_table() -> None:
    pod = builtin_schema("v1", "Pod")
    assert pod is not None
    container = pod["properties"]["spec"]["properties"]["containers"]["items"]["properties"]
    assert container["livenessProbe"]["properties"]["httpGet"]["properties"]["port"] == {
        "x-kubernetes-int-or-string": True
    }
    assert container["resources"]["properties"]["limits"]["additionalProperties"] == {
        "x-kubernetes-preserve-unknown-fields": True
    }
    assert metadata_schema()["properties"]["finalizers"] == {"type": "array", "items": {"type": "string"}}
    assert builtin_schema("v1", "Nonsense") is None
