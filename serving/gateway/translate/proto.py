"""Small helpers for protobuf messages."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

UNLIMITED: Final = 1_000_000_000
"""For limits that Envoy must not enforce: above any number of requests that a machine can hold."""

TRUE: Final = BoolValue(value=True)


def pack(message: Message) -> AnyMessage:
    """In an Any, byte for byte the same for the same content."""
    packed = AnyMessage()
    packed.Pack(message, deterministic=True)
    return packed


def duration(seconds: float) -> Duration:
    """Nanosecond precision."""
    return Duration(seconds=int(seconds), nanos=round(seconds % 1 * 1e9))


def uint32(value: int) -> UInt32Value:
    return UInt32Value(value=value)


def serialize(message: Any) -> bytes:
    """Deterministic bytes of a message."""
    data: bytes = message.SerializeToString(deterministic=True)
    return data
