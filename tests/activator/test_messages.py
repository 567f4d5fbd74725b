"""Envoy's messages to our values and back."""

from __future__ import annotations

import pytest
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest

from serving.activator.accesslog import EXT_AUTHZ, Ended, read_entries
from serving.activator.check import denied, ok, read_check, refusal, stream_token
from serving.activator.holds import Refused, Release
from tests.activator.values import KEY, hold


def request() -> CheckRequest:
    made = CheckRequest()
    attributes = made.attributes
    attributes.destination.address.envoy_internal_address.endpoint_id = KEY
    attributes.request.time.FromNanoseconds(1_700_000_000_250_000_000)
    attributes.request.http.id = "7958106662252671576"
    attributes.request.http.headers["x-request-id"] = "r-1"
    return made


def test_read_check() -> None:
    ask = read_check(request(), 1_700_000_001.0)
    assert (ask.revision, ask.wants_timing, ask.traceparent) == (KEY, False, "")
    assert (ask.hold.id, ask.hold.request_id) == ("7958106662252671576", "r-1")
    assert (ask.hold.started, ask.hold.arrived) == (1_700_000_000.25, 1_700_000_001.0)
    assert ask.hold.token < 2**64


def test_a_start_in_the_future_is_now() -> None:
    assert read_check(request(), 1_700_000_000.0).hold.started == 1_700_000_000.0


def test_wishes_in_headers() -> None:
    made = request()
    made.attributes.request.http.headers["nodeless-server-timing"] = ""
    made.attributes.request.http.headers["traceparent"] = "00-1-2-01"
    ask = read_check(made, 1.0)
    assert (ask.wants_timing, ask.traceparent) == (True, "00-1-2-01")


def test_ok_names_pod_and_release() -> None:
    release = Release(id=0xABC, hold=hold("x"), pod="uid", address="10.0.0.1:8080", at=0.0)
    answer = ok(release, server_timing="total;dur=1.0")
    assert answer.status.code == 0
    assert {name: value.string_value for name, value in answer.dynamic_metadata.fields.items()} == {
        "pod": "10.0.0.1:8080",
        "release": "abc",
    }
    (header,) = answer.ok_response.response_headers_to_add
    assert (header.header.key, header.header.value) == ("server-timing", "total;dur=1.0")


@pytest.mark.parametrize(
    ("reason", "status", "text"),
    [
        (Refused.QUEUE_FULL, 503, "pending request queue full\n"),
        (Refused.TIMEOUT, 504, "activator request timeout\n"),
        (
            Refused.GONE,
            404,
            'Error getting active endpoint: revision.serving.knative.dev "hello-00001" not found\n',
        ),
    ],
)
def test_refusals_in_knatives_words(reason: Refused, status: int, text: str) -> None:
    answer = refusal(reason, KEY)
    assert answer.WhichOneof("http_response") == "denied_response"
    assert answer.status.code != 0
    assert (answer.denied_response.status.code, answer.denied_response.body) == (status, text)
    headers = {header.header.key: header.header.value for header in answer.denied_response.headers}
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert denied(503, "x").denied_response.body == "x\n"


def entry_message(**metadata: str) -> StreamAccessLogsMessage:
    message = StreamAccessLogsMessage()
    entry = message.http_logs.log_entry.add()
    entry.common_properties.start_time.FromNanoseconds(1_700_000_000_250_000_000)
    entry.request.request_id = "r-1"
    for name, value in metadata.items():
        entry.common_properties.metadata.filter_metadata[EXT_AUTHZ].fields[name].string_value = value
    return message


TOKEN = stream_token(1_700_000_000_250_000_000, "r-1")


def test_an_entry_names_its_release() -> None:
    assert list(read_entries(entry_message(release="abc"))) == [
        Ended(release=0xABC, token=TOKEN, connect_failed=False)
    ]


def test_an_entry_without_release_is_known_by_its_stream() -> None:
    (ended,) = read_entries(entry_message())
    assert ended == Ended(release=None, token=read_check(request(), 1e10).hold.token, connect_failed=False)


@pytest.mark.parametrize("value", ["", "not hex"])
def test_a_broken_release_id_is_none(value: str) -> None:
    assert next(read_entries(entry_message(release=value))).release is None


def test_connect_failure_and_intermediate_entries() -> None:
    message = entry_message(release="1")
    message.http_logs.log_entry[0].common_properties.response_flags.upstream_connection_failure = True
    assert next(read_entries(message)).connect_failed
    message.http_logs.log_entry[0].common_properties.intermediate_log_entry = True
    assert list(read_entries(message)) == []
