"""SPDY framing: what one side writes the other reads, however the bytes are cut, and nonsense is refused."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.streaming.spdy_frames import (
    DICTIONARY,
    MAX_CONTROL,
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Headers,
    Ping,
    ProtocolError,
    RstStream,
    SynReply,
    SynStream,
)

_streams = st.integers(1, 0x7FFFFFFF)
_words = st.integers(0, 0xFFFFFFFF)
_headers = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=("Ll", "Nd"), include_characters="-"), min_size=1),
    st.text(st.characters(codec="utf-8")),
    max_size=8,
)
_last = st.booleans()
_frames = st.one_of(
    st.builds(Data, stream=_streams, payload=st.binary(max_size=300), last=_last),
    st.builds(SynStream, stream=_streams, headers=_headers, last=_last),
    st.builds(SynReply, stream=_streams, headers=_headers, last=_last),
    st.builds(Headers, stream=_streams, headers=_headers, last=_last),
    st.builds(RstStream, stream=_streams, status=_words),
    st.builds(Ping, identifier=_words),
    st.builds(GoAway, last_stream=_streams, status=_words),
)


def _joined(frames: list[Frame]) -> list[Frame]:
    """Pieces of one data frame put together. Two data frames of a stream in a row mean the same as one."""
    out: list[Frame] = []
    for frame in frames:
        before = out[-1] if out else None
        if (
            isinstance(frame, Data)
            and isinstance(before, Data)
            and before.stream == frame.stream
            and not before.last
        ):
            out[-1] = Data(stream=frame.stream, payload=before.payload + frame.payload, last=frame.last)
        else:
            out.append(frame)
    return out


@given(frames=st.lists(_frames, max_size=12), data=st.data())
def test_frames_survive_any_cut(frames: list[Frame], data: st.DataObject) -> None:
    encoder, decoder = Encoder(), Decoder()
    raw = b"".join(encoder.encode(frame) for frame in frames)
    received: list[Frame] = []
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        received += decoder.feed(raw[:size])
        raw = raw[size:]
    kept = [_by_stream_bits(frame) for frame in frames]
    assert _joined(received) == _joined(kept)


def _by_stream_bits(frame: Frame) -> Frame:
    if isinstance(frame, GoAway):
        return GoAway(last_stream=frame.last_stream & 0x7FFFFFFF, status=frame.status)
    return frame


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_nonsense_is_refused_and_never_breaks_the_decoder(pieces: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for piece in pieces:
            decoder.feed(piece)
    except ProtocolError:
        pass


@given(frames=st.lists(_frames, min_size=1, max_size=4), at=st.integers(0), value=st.integers(0, 255))
def test_one_wrong_byte_does_not_break_the_decoder(frames: list[Frame], at: int, value: int) -> None:
    encoder = Encoder()
    raw = bytearray(b"".join(encoder.encode(frame) for frame in frames))
    raw[at % len(raw)] = value
    try:
        Decoder().feed(bytes(raw))
    except ProtocolError:
        pass


def test_the_dictionary_is_the_protocol_s() -> None:
    assert len(DICTIONARY) == 1423
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2, "as every peer's zlib names it"


def test_a_frame_of_another_implementation() -> None:
    """As moby/spdystream writes a new stream, with another level of compression."""
    block = b"\0\0\0\2\0\0\0\x0astreamtype\0\0\0\5error\0\0\0\4port\0\0\0\x048080"
    compressor = zlib.compressobj(9, zdict=DICTIONARY)
    packed = compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
    body = b"\0\0\0\1" + b"\0\0\0\0" + b"\0\0" + packed
    frame = b"\x80\x03\x00\x01" + b"\x01" + len(body).to_bytes(3, "big") + body
    expected = SynStream(stream=1, headers={"streamtype": "error", "port": "8080"}, last=True)
    assert Decoder().feed(frame) == [expected]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"\x80\x02\x00\x06\0\0\0\4\0\0\0\1", "SPDY version 2", id="version"),
        pytest.param(b"\x80\x03\x00\x06\0\0\0\1\0", "too short", id="short ping"),
        pytest.param(b"\x80\x03\x00\x01\0\0\0\2\0\0", "too short", id="short stream"),
        pytest.param(b"\x80\x03\x00\x06\0\xff\xff\xff", "at most", id="huge control frame"),
        pytest.param(b"\x80\x03\x00\x02\0\0\0\x08\0\0\0\1abcd", "cannot be decompressed", id="no zlib"),
        pytest.param(b"GET / HTTP/1.1\r\n" * 4, None, id="HTTP is data of some stream"),
    ],
)
def test_refusals(raw: bytes, message: str | None) -> None:
    if message is None:
        assert all(isinstance(frame, Data) for frame in Decoder().feed(raw))
        return
    with pytest.raises(ProtocolError, match=message):
        Decoder().feed(raw)


def test_a_block_that_grows_without_end_is_refused() -> None:
    compressor = zlib.compressobj(9, zdict=DICTIONARY)
    packed = compressor.compress(bytes(8 * MAX_CONTROL)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    body = b"\0\0\0\1" + packed
    with pytest.raises(ProtocolError, match="larger than"):
        Decoder().feed(b"\x80\x03\x00\x02\0" + len(body).to_bytes(3, "big") + body)


def test_settings_and_windows_mean_nothing() -> None:
    settings = b"\x80\x03\x00\x04\0\0\0\x0c\0\0\0\1\0\0\0\7\0\1\0\0"
    window = b"\x80\x03\x00\x09\0\0\0\x08\0\0\0\1\0\1\0\0"
    assert Decoder().feed(settings + window) == []


def test_data_is_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        Encoder().encode(Data(stream=1, payload=bytes(0x1000000)))
