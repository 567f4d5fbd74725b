"""Entries of the activator listener's access log to our own values. Pure.

An entry names the release it ends in the dynamic metadata that ext_authz stored, which no client can write.
An entry without one is of a request that was refused or went away while held; when its OK was already under
way, `token` finds the release that it never learnt of.

Connection failure is response flag UF and nothing after it: no byte of the request reached the pod.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage

from serving.activator.check import RELEASE_METADATA, stream_token

EXT_AUTHZ = "envoy.filters.http.ext_authz"
"""Name of the filter in the listener; Envoy stores its dynamic metadata under it."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """One request through the activator listener is over. `release` None: it never learnt of one."""

    release: int | None
    token: int
    connect_failed: bool


def read_entries(message: StreamAccessLogsMessage) -> Iterator[Ended]:
    for entry in message.http_logs.log_entry:
        common = entry.common_properties
        if common.intermediate_log_entry:
            continue
        yield Ended(
            release=_release_id(common.metadata.filter_metadata),
            token=stream_token(common.start_time.ToNanoseconds(), entry.request.request_id),
            connect_failed=common.response_flags.upstream_connection_failure,
        )


def _release_id(metadata: object) -> int | None:
    # A message map creates what it is asked for by [], hence the test first.
    if EXT_AUTHZ not in metadata:  # type: ignore[operator]
        return None
    fields = metadata[EXT_AUTHZ].fields  # type: ignore[index]
    if RELEASE_METADATA not in fields:
        return None
    try:
        return int(fields[RELEASE_METADATA].string_value, 16)
    except ValueError:
        return None
