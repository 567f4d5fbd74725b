"""Envoy's load reports to demand, and to what still runs on draining pods. Pure.

A report has one row per cluster, and in it one per endpoint: requests in progress at its end (a sample, held
requests included) and requests issued during it. A cluster or endpoint without a row had none.

A pod has drained when Envoy acknowledged that it gets nothing new, a report whose interval began after that
shows nothing on it, and nothing that the activator released to it is unfinished. The first report after the ACK
began before it, so it takes two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from serving.api.reports import Demand, PodDrain, RevisionDemand

_REPORTS_AFTER_ACK: Final = 2


class ClusterLoad(msgspec.Struct, frozen=True, kw_only=True):
    """`by_address`: requests in progress by `ip:port` of a pod, where any."""

    in_progress: int
    issued: int
    by_address: dict[str, int]


def read_report(message: Any) -> dict[str, ClusterLoad]:
    """A LoadStatsRequest, by cluster name; clusters without load are absent."""
    loads: dict[str, ClusterLoad] = {}
    for stats in message.cluster_stats:
        rows = stats.upstream_locality_stats
        if not rows:
            continue
        by_address: dict[str, int] = {}
        for row in rows:
            for endpoint in row.upstream_endpoint_stats:
                running = endpoint.total_requests_in_progress
                if running and endpoint.address.HasField("socket_address"):
                    socket = endpoint.address.socket_address
                    ip = f"[{socket.address}]" if ":" in socket.address else socket.address
                    by_address[f"{ip}:{socket.port_value}"] = running
        loads[stats.cluster_name] = ClusterLoad(
            in_progress=sum(row.total_requests_in_progress for row in rows),
            issued=sum(row.total_issued_requests for row in rows),
            by_address=by_address,
        )
    return loads


def demand(
    loads: Mapping[str, ClusterLoad],
    *,
    revisions: Iterable[str],
    held: Callable[[str], int],
    start: float,
    end: float,
) -> Demand:
    """What goes to the controller for one interval [start, end). `held(key)`: requests that wait in the
    activator now."""
    rows: dict[str, RevisionDemand] = {}
    for key in revisions:
        load = loads.get(key)
        waiting = held(key)
        if load is not None and (load.in_progress or load.issued or waiting):
            rows[key] = RevisionDemand(load.in_progress, load.issued, waiting)
        elif waiting:
            rows[key] = RevisionDemand(waiting, 0, waiting)
    return Demand(start=start, end=end, revisions=rows)


class DrainTracker:
    """Remembers since which load report a pod gets no new request."""

    def __init__(self) -> None:
        self._reports = 0
        self._off: dict[str, int] = {}

    def reported(self) -> None:
        """A load report came in."""
        self._reports += 1

    def acked(self, uid: str, *, healthy: bool) -> None:
        """Envoy acknowledged endpoints in which the pod may (`healthy`) or may not get new requests."""
        if healthy:
            self._off.pop(uid, None)
        else:
            self._off.setdefault(uid, self._reports)

    def keep(self, uids: Iterable[str]) -> None:
        """Forget all others."""
        kept = set(uids)
        for uid in [uid for uid in self._off if uid not in kept]:
            del self._off[uid]

    def reset(self) -> None:
        """Envoy, or our connection to it, started anew."""
        self._off.clear()

    def drain(self, uid: str, *, in_flight: int) -> PodDrain:
        off = self._off.get(uid)
        settled = off is not None and self._reports - off >= _REPORTS_AFTER_ACK
        return PodDrain(acked=settled, in_flight=in_flight)
