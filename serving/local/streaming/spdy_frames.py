"""SPDY/3.1 framing, as far as Kubernetes speaks it. Pure: bytes in, frames out, and back.

Kubernetes uses SPDY as a bundle of two-way streams on one connection and ignores its flow control, as the library
that its clients and servers share (moby/spdystream) does. So SETTINGS and WINDOW_UPDATE are read and mean nothing.

Blocks of headers are compressed over all frames of a direction with one zlib context, which begins with a
dictionary that the protocol fixes. Frames must therefore be encoded in the order in which they are sent.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

VERSION: Final = 3
MAX_DATA: Final = 0xFFFFFF
"""Bytes in one frame."""
MAX_CONTROL: Final = 1 << 20
"""Bytes of a control frame's body that are accepted, compressed or not."""
PROTOCOL_ERROR, CANCEL, REFUSED_STREAM = 1, 5, 3
"""Status codes of RST_STREAM."""

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW = 1, 2, 3, 4, 6, 7, 8, 9
_FIN: Final = 0x01
_HEAD: Final = struct.Struct("!IB3s")
_WORD: Final = struct.Struct("!I")
_STREAM_BITS: Final = 0x7FFFFFFF

_NAMES: Final = (
    *("options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding"),
    *("accept-language", "accept-ranges", "age", "allow", "authorization", "cache-control", "connection"),
    *("content-base", "content-encoding", "content-language", "content-length", "content-location", "content-md5"),
    *("content-range", "content-type", "date", "etag", "expect", "expires", "from", "host", "if-match"),
    *("if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location"),
    *("max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "referer", "retry-after"),
    *("server", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "vary", "via", "warning"),
    *("www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public"),
    *("set-cookie", "keep-alive", "origin"),
)
_TAIL: Final = (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    b"403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    b"Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    b"chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    b"text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _word(text: str) -> bytes:
    return _WORD.pack(len(text)) + text.encode()


DICTIONARY: Final = b"".join(_word(name) for name in _NAMES) + _TAIL


class ProtocolError(Exception):
    """The peer does not speak SPDY/3.1. The connection cannot be used any more."""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """`stream` is 0 for frames that belong to the connection."""

    stream: int = 0


class Data(Frame, frozen=True, kw_only=True):
    payload: bytes
    last: bool = False


class SynStream(Frame, frozen=True, kw_only=True):
    headers: Mapping[str, str]
    last: bool = False


class SynReply(Frame, frozen=True, kw_only=True):
    headers: Mapping[str, str]
    last: bool = False


class RstStream(Frame, frozen=True, kw_only=True):
    status: int


class Ping(Frame, frozen=True, kw_only=True):
    identifier: int


class GoAway(Frame, frozen=True, kw_only=True):
    last_stream: int
    status: int = 0


class Headers(Frame, frozen=True, kw_only=True):
    headers: Mapping[str, str]
    last: bool = False


class Encoder:
    """Frames of one direction. `encode` must be called in the order of sending."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, frame: Frame) -> bytes:
        """Raises ValueError for data beyond `MAX_DATA`."""
        match frame:
            case Data(payload=payload):
                if len(payload) > MAX_DATA:
                    raise ValueError(f"a data frame of {len(payload)} bytes; at most {MAX_DATA} are allowed")
                flags = _FIN if frame.last else 0
                return _HEAD.pack(frame.stream & _STREAM_BITS, flags, len(payload).to_bytes(3)) + payload
            case SynStream():
                body = struct.pack("!IIH", frame.stream, 0, 0) + self._compress(frame.headers)
                return _control(_SYN_STREAM, body, last=frame.last)
            case SynReply():
                body = _WORD.pack(frame.stream) + self._compress(frame.headers)
                return _control(_SYN_REPLY, body, last=frame.last)
            case Headers():
                body = _WORD.pack(frame.stream) + self._compress(frame.headers)
                return _control(_HEADERS, body, last=frame.last)
            case RstStream():
                return _control(_RST_STREAM, struct.pack("!II", frame.stream, frame.status))
            case Ping():
                return _control(_PING, _WORD.pack(frame.identifier))
            case GoAway():
                return _control(_GOAWAY, struct.pack("!II", frame.last_stream, frame.status))
        raise ValueError(f"{type(frame).__name__} cannot be sent")

    def _compress(self, headers: Mapping[str, str]) -> bytes:
        block = bytearray(_WORD.pack(len(headers)))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                block += _WORD.pack(len(text)) + text
        return self._zlib.compress(bytes(block)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Decoder:
    """Splits bytes into frames. Large data frames come out in pieces, as they arrive."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)
        self._buffer = bytearray()
        self._stream = 0
        self._missing = 0
        """Bytes of the present data frame that have not come yet."""
        self._last = False

    def feed(self, data: bytes) -> list[Frame]:
        """Raises ProtocolError."""
        self._buffer += data
        return list(self._frames())

    def _frames(self) -> Iterator[Frame]:
        while self._buffer:
            if self._missing:
                piece = bytes(self._buffer[: self._missing])
                del self._buffer[: len(piece)]
                self._missing -= len(piece)
                yield Data(stream=self._stream, payload=piece, last=self._last and not self._missing)
                continue
            if len(self._buffer) < _HEAD.size:
                return
            first, flags, size = _HEAD.unpack_from(self._buffer)
            length = int.from_bytes(size)
            if not first >> 31:
                del self._buffer[: _HEAD.size]
                self._stream, self._missing, self._last = first, length, bool(flags & _FIN)
                if not length:
                    yield Data(stream=first, payload=b"", last=self._last)
                continue
            if length > MAX_CONTROL:
                raise ProtocolError(f"a control frame of {length} bytes; at most {MAX_CONTROL} are accepted")
            if len(self._buffer) < _HEAD.size + length:
                return
            body = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
            del self._buffer[: _HEAD.size + length]
            frame = self._control(first, flags, body)
            if frame is not None:
                yield frame

    def _control(self, first: int, flags: int, body: bytes) -> Frame | None:
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != VERSION:
            raise ProtocolError(f"SPDY version {version}; only {VERSION} is spoken")
        last = bool(flags & _FIN)
        try:
            if kind == _SYN_STREAM:
                return SynStream(stream=_stream(body), headers=self._headers(body[10:]), last=last)
            if kind == _SYN_REPLY:
                return SynReply(stream=_stream(body), headers=self._headers(body[4:]), last=last)
            if kind == _HEADERS:
                return Headers(stream=_stream(body), headers=self._headers(body[4:]), last=last)
            if kind == _RST_STREAM:
                return RstStream(stream=_stream(body), status=_WORD.unpack_from(body, 4)[0])
            if kind == _PING:
                return Ping(identifier=_WORD.unpack_from(body)[0])
            if kind == _GOAWAY:
                return GoAway(last_stream=_stream(body), status=_WORD.unpack_from(body, 4)[0])
        except struct.error:
            raise ProtocolError(f"a control frame of kind {kind} is too short: {len(body)} bytes") from None
        return None  # SETTINGS, WINDOW_UPDATE, and what the protocol may have besides

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            raw = self._zlib.decompress(block, MAX_CONTROL)
        except zlib.error as error:
            raise ProtocolError(f"a block of headers cannot be decompressed: {error}") from error
        if self._zlib.unconsumed_tail:
            raise ProtocolError(f"a block of headers is larger than {MAX_CONTROL} bytes")
        (count,) = _WORD.unpack_from(raw)
        texts, at = [], 4
        for _ in range(2 * min(count, MAX_CONTROL)):
            (length,) = _WORD.unpack_from(raw, at)
            at += 4
            if length > len(raw) - at:
                raise ProtocolError("a block of headers ends in the middle of a header")
            texts.append(raw[at : at + length].decode(errors="replace"))
            at += length
        return dict(zip(texts[::2], texts[1::2], strict=True))


def _stream(body: bytes) -> int:
    return int(_WORD.unpack_from(body)[0]) & _STREAM_BITS


def _control(kind: int, body: bytes, *, last: bool = False) -> bytes:
    return _HEAD.pack(1 << 31 | VERSION << 16 | kind, _FIN if last else 0, len(body).to_bytes(3)) + body
