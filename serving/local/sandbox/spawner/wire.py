"""Messages between the node agent and a shim: 4 bytes of length (big endian), then JSON.

File descriptors travel as SCM_RIGHTS with the first byte of a message. Both sides use `Decoder`; it holds at most
one unfinished message.
"""

from __future__ import annotations

import json
import struct
from typing import Any

MAX_MESSAGE = 8 << 20
"""Bytes. The kernel refuses arguments and environment above a quarter of the stack (2 MiB) anyway."""
MAX_FDS = 4

Message = dict[str, Any]


def encode(message: Message) -> bytes:
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MAX_MESSAGE:
        raise ValueError(f"message of {len(body)} bytes; at most {MAX_MESSAGE} are allowed")
    return struct.pack("!I", len(body)) + body


class Decoder:
    """Splits a byte stream into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Raises ValueError when the peer does not speak this protocol."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= 4:
            (length,) = struct.unpack_from("!I", self._buffer)
            if length > MAX_MESSAGE:
                raise ValueError(f"message of {length} bytes; at most {MAX_MESSAGE} are allowed")
            if len(self._buffer) < 4 + length:
                break
            message = json.loads(bytes(self._buffer[4 : 4 + length]))
            del self._buffer[: 4 + length]
            messages.append(message)
        return messages
