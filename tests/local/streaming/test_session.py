"""Sizes of terminals, and statuses as clients understand them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.streaming.session import SizeParser, TerminalSize, exited, failed, succeeded


@given(
    sizes=st.lists(st.tuples(st.integers(1, 0xFFFF), st.integers(1, 0xFFFF)), max_size=5),
    cut=st.integers(1, 7),
)
def test_sizes_survive_any_cut(sizes: list[tuple[int, int]], cut: int) -> None:
    text = b"\n".join(b'{"Width":%d,"Height":%d}' % size for size in sizes) + b"\n"
    parser = SizeParser()
    found = [size for at in range(0, len(text), cut) for size in parser.feed(text[at : at + cut])]
    assert found == [TerminalSize(*size) for size in sizes]


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"nonsense",
        b'{"Width":0,"Height":5}',
        b'{"Width":-1,"Height":5}',
        b'{"Width":70000,"Height":5}',
        b"}",
    ],
)
def test_what_is_no_size_is_skipped(text: bytes) -> None:
    parser = SizeParser()
    assert parser.feed(text) == []
    assert parser.feed(b'}{"Width":80,"Height":25}') in ([TerminalSize(80, 25)], [])
    assert parser.feed(b'{"Width":81,"Height":25}')[-1] == TerminalSize(81, 25)


@given(st.binary(max_size=2000))
def test_any_bytes_are_taken_and_little_is_kept(data: bytes) -> None:
    parser = SizeParser()
    parser.feed(data)
    assert len(parser._text) <= 256


def test_statuses() -> None:
    assert succeeded()["status"] == exited(0)["status"] == "Success"
    status = exited(3)
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"] == {"causes": [{"reason": "ExitCode", "message": "3"}]}
    status = failed("no such thing")
    assert (status["reason"], status["message"]) == ("InternalError", "Internal error occurred: no such thing")
