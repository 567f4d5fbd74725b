"""Envoy's ext_authz messages to and from our own values. Pure.

Read from a `CheckRequest`:

| what | where | can a client forge it |
|---|---|---|
| revision key | `destination.address.envoy_internal_address.endpoint_id`, up to a `#` | no, it comes from EDS |
| hold id | `request.http.id`, Envoy's stream id; the same when Envoy asks again | no |
| start | `request.time` | no |
| request id, timing, trace | headers `x-request-id`, `nodeless-server-timing`, `traceparent` | yes |

An OK carries dynamic metadata `{pod: "ip:port", release: "<id>"}`: Envoy's ORIGINAL_DST cluster connects to
`pod`, and the access log gives `release` back. A refusal is always a `denied_response`: a gRPC error would be
asked again.
"""

from __future__ import annotations

from zlib import crc32

import msgspec
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

from serving.activator.holds import Hold, Refused, Release
from serving.api import keys

POD_METADATA = "pod"
RELEASE_METADATA = "release"

_PERMISSION_DENIED = 7


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One Check: the hold it asks for and what else its headers wish."""

    revision: str
    hold: Hold
    wants_timing: bool
    traceparent: str


def stream_token(start_ns: int, request_id: str) -> int:
    """Identity of a stream, 64 bits, that both the Check and the access log know."""
    return start_ns ^ crc32(request_id.encode()) << 32


def read_check(request: CheckRequest, now: float) -> Ask:
    """`now` is the time of arrival. Without a start or an id (no Envoy sends such), arrival and token serve."""
    attributes = request.attributes
    http = attributes.request.http
    headers = http.headers
    time = attributes.request.time
    request_id = headers.get("x-request-id", "")
    start_ns = time.seconds * 1_000_000_000 + time.nanos
    token = stream_token(start_ns, request_id)
    hold = Hold(
        id=http.id or str(token),
        token=token,
        request_id=request_id,
        started=min(time.seconds + time.nanos / 1e9, now) if start_ns else now,
        arrived=now,
    )
    return Ask(
        revision=attributes.destination.address.envoy_internal_address.endpoint_id.partition("#")[0],
        hold=hold,
        wants_timing=keys.HEADER_BUDGET in headers,
        traceparent=headers.get("traceparent", ""),
    )


def ok(release: Release, *, server_timing: str = "") -> CheckResponse:
    """Let the request through, to exactly one pod."""
    response = CheckResponse()
    response.ok_response.SetInParent()
    fields = response.dynamic_metadata.fields
    fields[POD_METADATA].string_value = release.address
    fields[RELEASE_METADATA].string_value = f"{release.id:x}"
    if server_timing:
        header = response.ok_response.response_headers_to_add.add().header
        header.key = "server-timing"
        header.value = server_timing
    return response


def denied(status: int, text: str) -> CheckResponse:
    """Answer the client ourselves, as Knative's components do: text/plain with a line end."""
    response = CheckResponse()
    response.status.code = _PERMISSION_DENIED
    response.denied_response.status.code = status
    response.denied_response.body = f"{text}\n"
    for key, value in (("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")):
        header = response.denied_response.headers.add().header
        header.key = key
        header.value = value
    return response


def unknown_revision(revision: str) -> CheckResponse:
    name = revision.rpartition("/")[2]
    return denied(404, f'Error getting active endpoint: revision.serving.knative.dev "{name}" not found')


def refusal(reason: Refused, revision: str) -> CheckResponse:
    """Knative's status and text for each reason."""
    match reason:
        case Refused.QUEUE_FULL:
            return denied(503, "pending request queue full")
        case Refused.TIMEOUT:
            return denied(504, "activator request timeout")
        case Refused.GONE:
            return unknown_revision(revision)
