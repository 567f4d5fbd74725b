"""A fake Envoy: Checks and an access-log stream over a Unix socket."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage, StreamAccessLogsResponse
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

from serving.activator.accesslog import EXT_AUTHZ
from tests.activator.values import KEY

_numbers = itertools.count(1)


def check_request(
    *, key: str = KEY, stream: str = "", request_id: str = "", started: float | None = None, **headers: str
) -> CheckRequest:
    number = next(_numbers)
    made = CheckRequest()
    attributes = made.attributes
    attributes.destination.address.envoy_internal_address.endpoint_id = key
    attributes.request.time.FromNanoseconds(int((time.time() if started is None else started) * 1e9))
    attributes.request.http.id = stream or f"{number}"
    attributes.request.http.headers["x-request-id"] = request_id or f"request-{number}"
    for name, value in headers.items():
        attributes.request.http.headers[name.replace("_", "-")] = value
    return made


def metadata(answer: CheckResponse) -> dict[str, str]:
    return {name: value.string_value for name, value in answer.dynamic_metadata.fields.items()}


def log_message(
    request: CheckRequest, answer: CheckResponse | None, *, connect_failed: bool = False
) -> StreamAccessLogsMessage:
    """The request is over. `answer` None: Envoy never got one."""
    message = StreamAccessLogsMessage()
    entry = message.http_logs.log_entry.add()
    entry.common_properties.start_time.CopyFrom(request.attributes.request.time)
    entry.request.request_id = request.attributes.request.http.headers["x-request-id"]
    entry.common_properties.response_flags.upstream_connection_failure = connect_failed
    if answer is not None:
        entry.common_properties.metadata.filter_metadata[EXT_AUTHZ].CopyFrom(answer.dynamic_metadata)
    return message


class FakeEnvoy:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._check = channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )
        self._logs = channel.stream_unary(
            "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
            request_serializer=StreamAccessLogsMessage.SerializeToString,
            response_deserializer=StreamAccessLogsResponse.FromString,
        )
        self._stream = self._logs()

    def check(self, request: CheckRequest) -> grpc.aio.UnaryUnaryCall[CheckRequest, CheckResponse]:
        return self._check(request)

    async def log(
        self, request: CheckRequest, answer: CheckResponse | None, *, connect_failed: bool = False
    ) -> None:
        await self._stream.write(log_message(request, answer, connect_failed=connect_failed))

    def break_log(self) -> None:
        self._stream.cancel()
        self._stream = self._logs()


@asynccontextmanager
async def fake_envoy(socket: Path) -> AsyncIterator[FakeEnvoy]:
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        envoy = FakeEnvoy(channel)
        yield envoy
        envoy.break_log()


async def until(condition: object, *, within: float = 5.0) -> None:
    """Wait until the callable is true, which a peer's next message will make it."""
    assert callable(condition)
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.002)
