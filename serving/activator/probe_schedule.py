"""What to probe and when to try again. Pure.

The first probe goes out the moment an address is known. While a request waits, the period grows from 2 ms to
50 ms: a server that opens its port is found within a few percent of the time it took to start. Without
waiting requests, and for pods that take very long, it grows on to seconds, since a crash loop must not cost
CPU for ever. Many pods at once share a budget of probes per second.

Read time-outs grow with each unanswered try. Short fixed ones livelock a pod that is starved of CPU: every
retry adds load to what is already too slow.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from serving.activator.model import PodEndpoint, RevisionConfig
from serving.api.pod import Probe, TcpSocketAction

FIRST_DELAY_SECONDS = 0.002
MAX_DELAY_SECONDS = 0.05
GROWTH = 1.1
PATIENCE_SECONDS = 30.0
"""After this long, or when nobody waits, a pod is probed less and less often."""
IDLE_FRACTION = 0.05
IDLE_MAX_DELAY_SECONDS = 2.0
PROBES_PER_SECOND = 1000.0
"""Of all pods together, on one core about 15 % of it."""

FIRST_TIMEOUT_SECONDS = 0.1
DEFAULT_TIMEOUT_SECONDS = 1.0
"""Largest time-out of a probe that sets no timeoutSeconds; Kubernetes' default."""


class Kind(Enum):
    HTTP = "http"
    TCP = "tcp"
    GRPC = "grpc"


class ProbeTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A probe, ready to be sent to an address. It never goes anywhere but to the pod itself."""

    kind: Kind
    host: str
    port: int
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    tls: bool = False
    service: str = ""
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    success_threshold: int = 1


def split_address(address: str) -> tuple[str, int]:
    """`ip:port` or `[ipv6]:port` into its parts. Raises ValueError on anything else."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit():
        raise ValueError(f"address {address!r}: want ip:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def probe_target(config: RevisionConfig, endpoint: PodEndpoint) -> ProbeTarget:
    """The revision's readiness probe against one pod.

    `initialDelaySeconds` and `periodSeconds` are kubelet's business. An exec probe becomes a TCP connect: it
    only comes to this after a connection failed. Port 0, a name, or the revision's own port mean the port of
    the pod's address. Raises ValueError when the address is none.
    """
    host, serving_port = split_address(endpoint.address)
    probe = config.readiness or Probe(tcp_socket=TcpSocketAction())
    timeout = float(probe.timeout_seconds) or DEFAULT_TIMEOUT_SECONDS
    threshold = max(1, probe.success_threshold)

    def port(wanted: int | str) -> int:
        number = int(wanted) if isinstance(wanted, int) or wanted.isdigit() else 0
        return number if number not in (0, config.port) else serving_port

    if probe.http_get is not None:
        action = probe.http_get
        headers = [(header.name, header.value) for header in action.http_headers]
        if action.host and not any(name.lower() == "host" for name, _ in headers):
            headers.append(("Host", action.host))
        return ProbeTarget(
            kind=Kind.HTTP,
            host=host,
            port=port(action.port),
            path=action.path if action.path.startswith("/") else f"/{action.path}",
            headers=tuple(headers),
            tls=action.scheme.upper() == "HTTPS",
            timeout_seconds=timeout,
            success_threshold=threshold,
        )
    if probe.grpc is not None:
        return ProbeTarget(
            kind=Kind.GRPC,
            host=host,
            port=port(probe.grpc.port),
            service=probe.grpc.service or "",
            timeout_seconds=timeout,
            success_threshold=threshold,
        )
    wanted = probe.tcp_socket.port if probe.tcp_socket is not None else 0
    return ProbeTarget(
        kind=Kind.TCP, host=host, port=port(wanted), timeout_seconds=timeout, success_threshold=threshold
    )


def next_delay(*, attempt: int, elapsed: float, waited_for: bool, probing: int) -> float:
    """Seconds until the next try after `attempt` (1, 2, …) failed ones in `elapsed` seconds.

    `waited_for`: a request of the revision is held. `probing`: pods being probed at the moment, of all
    revisions.
    """
    delay = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * GROWTH ** min(attempt - 1, 40))
    if not waited_for or elapsed > PATIENCE_SECONDS:
        delay = max(delay, min(IDLE_MAX_DELAY_SECONDS, elapsed * IDLE_FRACTION))
    return max(delay, probing / PROBES_PER_SECOND)


def attempt_timeout(target: ProbeTarget, *, unanswered: int) -> float:
    """Seconds for one try after `unanswered` tries in a row that timed out; doubles up to the probe's own."""
    return min(target.timeout_seconds, FIRST_TIMEOUT_SECONDS * 2.0 ** min(unanswered, 20))
