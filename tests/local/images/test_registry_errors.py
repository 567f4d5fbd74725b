from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.local.images.registry_errors import Challenge, answer_error, parse_challenges, printable


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        ([], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="x"'], [("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"'],
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "registry",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (
            ['Basic realm="a, Bearer b=c", BEARER Realm=x'],
            [("basic", {"realm": "a, Bearer b=c"}), ("bearer", {"realm": "x"})],
        ),
        (
            ["Basic realm=a", 'Bearer realm="b \\"q\\""'],
            [("basic", {"realm": "a"}), ("bearer", {"realm": 'b "q"'})],
        ),
        (["=,=", ""], []),
    ],
    ids=range(7),
)
def test_challenges(headers: list[str], challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(headers) == [Challenge(scheme=name, parameters=found) for name, found in challenges]


@given(st.lists(st.text(max_size=60) | st.text('Basic ear="\\,= ', max_size=60), max_size=3))
def test_any_header_can_be_read(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (404, b"", "unexpected status code 404 Not Found"),
        (404, b"<html>", "unexpected status code 404 Not Found"),
        (799, b'{"errors": []}', "unexpected status code 799 unknown"),
        (404, b'{"errors": [{"code": "X"}]}', "X: no message"),
        (404, b'{"errors": [{"code": "X", "message": "a\\u001b[31m\\nb"}]}', "X: a [31m b"),
        (
            403,
            b'{"errors": [{"code": "DENIED", "message": "no", "detail": {"b": [1, {"c": null}], "a": "x"}}]}',
            "DENIED: no; map[a:x b:[1 map[c:None]]]",
        ),
        (
            400,
            b'{"errors": [{"code": "A", "message": "1"}, {"code": "B", "message": "2"}]}',
            "multiple errors returned: A: 1; B: 2",
        ),
    ],
)
def test_errors_read_like_knatives(status: int, body: bytes, text: str) -> None:
    error = answer_error("GET", "https://r/v2/x/manifests/y", status, body)
    assert error.message == f"GET https://r/v2/x/manifests/y: {text}"
    assert error.reason == "ErrImagePull"


@given(st.text(max_size=2000))
def test_foreign_text_is_one_bounded_line(text: str) -> None:
    line = printable(text)
    assert line.isprintable()
    assert len(line) <= 401
