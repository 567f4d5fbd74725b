"""gRPC shell of the control plane: delta ADS and load reports. One Envoy; the newest stream counts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from envoy.service.load_stats.v3 import lrs_pb2_grpc
from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest, LoadStatsResponse
from google.protobuf.duration_pb2 import Duration

from serving.gateway.xds.control import Answer, Control, Request, Response

log = logging.getLogger(__name__)


class XdsServer(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Feeds `control` from the stream and sends what it has pending. Call `wake` after changing what is wanted.

    `connected` is called in the loop for each new stream, `answered` after each message of Envoy. `sent` counts
    resources and removals since the start.
    """

    def __init__(
        self, control: Control, *, answered: Callable[[Answer], None], connected: Callable[[], None] = lambda: None
    ) -> None:
        self.control = control
        self.sent: dict[str, int] = {}
        self.connected = False
        self._answered = answered
        self._connected = connected
        self._wake = asyncio.Event()
        self._stream = 0

    def wake(self) -> None:
        self._wake.set()

    def add_to_server(self, server: grpc.aio.Server) -> None:
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, server)

    async def DeltaAggregatedResources(self, requests: AsyncIterator[Any], context: Any) -> None:
        """One stream. A newer one ends it."""
        self._stream += 1
        mine = self._stream
        self._wake.set()
        self.control.opened()
        self.connected = True
        self._connected()
        self._wake = asyncio.Event()
        log.info("Envoy connected")
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(requests, mine))
                sender = group.create_task(self._send(context, mine))
                await asyncio.wait((reader, sender), return_when=asyncio.FIRST_COMPLETED)
                reader.cancel()
                sender.cancel()
        finally:
            if self._stream == mine:
                self.connected = False
                log.info("Envoy disconnected")

    async def _read(self, requests: AsyncIterator[Any], mine: int) -> None:
        seen: set[str] = set()
        async for message in requests:
            if self._stream != mine:
                return
            request = read_request(message, first=message.type_url not in seen)
            seen.add(message.type_url)
            answer = self.control.receive(request)
            if answer.error:
                log.warning("Envoy refused %s %s: %s", answer.type_url, sorted(answer.names)[:5], answer.error)
            self._answered(answer)
            self._wake.set()

    async def _send(self, context: Any, mine: int) -> None:
        while self._stream == mine:
            for response in self.control.pending():
                count = len(response.resources) + len(response.removed)
                self.sent[response.type_url] = self.sent.get(response.type_url, 0) + count
                await context.write(write_response(response))
            await self._wake.wait()
            self._wake.clear()


class LoadServer(lrs_pb2_grpc.LoadReportingServiceServicer):  # type: ignore[misc]
    """Asks Envoy for load reports of all clusters, by endpoint, every `interval` seconds.

    `reported` is called in the loop with each report.
    """

    def __init__(self, *, interval: float, reported: Callable[[LoadStatsRequest], None]) -> None:
        self._interval = interval
        self._reported = reported
        self._changed = asyncio.Event()
        self._stream = 0

    @property
    def interval(self) -> float:
        return self._interval

    def set_interval(self, seconds: float) -> None:
        """Change the interval; Envoy is told at once."""
        if seconds != self._interval:
            self._interval = seconds
            self._changed.set()

    def add_to_server(self, server: grpc.aio.Server) -> None:
        lrs_pb2_grpc.add_LoadReportingServiceServicer_to_server(self, server)

    async def StreamLoadStats(self, requests: AsyncIterator[Any], context: Any) -> None:
        self._stream += 1
        mine = self._stream
        self._changed.set()
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(self._read(requests, mine))
            sender = group.create_task(self._send(context, mine))
            await asyncio.wait((reader, sender), return_when=asyncio.FIRST_COMPLETED)
            reader.cancel()
            sender.cancel()

    async def _read(self, requests: AsyncIterator[Any], mine: int) -> None:
        first = True
        async for message in requests:
            if self._stream != mine:
                return
            if not first:
                self._reported(message)
            first = False

    async def _send(self, context: Any, mine: int) -> None:
        while self._stream == mine:
            interval = Duration()
            interval.FromNanoseconds(round(self._interval * 1e9))
            await context.write(
                LoadStatsResponse(
                    send_all_clusters=True, load_reporting_interval=interval, report_endpoint_granularity=True
                )
            )
            self._changed = asyncio.Event()
            await self._changed.wait()


def read_request(message: DeltaDiscoveryRequest, *, first: bool) -> Request:
    return Request(
        type_url=message.type_url,
        first=first,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=dict(message.initial_resource_versions) if first else {},
        nonce=message.response_nonce,
        error=message.error_detail.message or "refused" if message.HasField("error_detail") else None,
    )


def write_response(response: Response) -> DeltaDiscoveryResponse:
    message = DeltaDiscoveryResponse(
        type_url=response.type_url, nonce=response.nonce, removed_resources=response.removed
    )
    for resource in response.resources:
        added = message.resources.add(name=resource.name, version=resource.version)
        added.resource.type_url = response.type_url
        added.resource.value = resource.data
    return message
