"""Templates of request logs: what can be had, and what is refused."""

from __future__ import annotations

import pytest

from serving.api.config.observability import DEFAULT_REQUEST_LOG_TEMPLATE
from serving.api.config.request_log import Bare, Field, TemplateError, parse_log


def test_the_default_is_one_json_object() -> None:
    tree = parse_log(DEFAULT_REQUEST_LOG_TEMPLATE).tree
    request = tree["httpRequest"]
    assert request["requestMethod"] == (Field("Request.Method"),)
    assert request["status"] == Bare(Field("Response.Code"))
    assert request["userAgent"] == (Field("Request.UserAgent"),)
    assert request["latency"] == (Field("Response.Latency"), "s")
    assert tree["traceId"] == (Field("TraceID"),)


def test_a_plain_text() -> None:
    log = parse_log('{{.Request.Method}} {{ index .Request.Header "X-A" }}/{{.Request.Header.Get `X-B`}} 100%')
    header = "Request.Header"
    assert log.tree is None
    assert log.text == (Field("Request.Method"), " ", Field(header, "X-A"), "/", Field(header, "X-B"), " 100%")


@pytest.mark.parametrize(
    "template",
    [
        '{"a": "{{.Request.UserAgent | js}}"}',
        '{"a": "{{js (index .Request.Header "X")}}", "b": [1, {"c": "\\"x"}]}',
    ],
)
def test_json(template: str) -> None:
    assert parse_log(template).tree is not None


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{if .Request.Method}}x{{end}}", r"action \"{{if \.Request\.Method}}\" cannot be logged by Envoy"),
        ("{{.Request.Body}}", r"possible are .*\.Request\.Method.* and index"),
        ("{{.Revision.PodName}}", "cannot be logged"),
        ("{{.Request.Method", "unclosed action"),
        ("agent={{js .Request.UserAgent}}", "js is only possible in a template that is one JSON object"),
        ('{{printf "%d" .Response.Code}}', "cannot be logged"),
    ],
)
def test_refused(template: str, words: str) -> None:
    with pytest.raises(TemplateError, match=words):
        parse_log(template)
