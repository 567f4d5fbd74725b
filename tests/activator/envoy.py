"""A real Envoy with the least configuration that the activator needs: one public listener, one revision.

public listener → revision cluster (the activator's internal listener) → ext_authz → ORIGINAL_DST. The gateway
translates its own, richer configuration; here only the contract of `serving.activator.service` is exercised.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NONCE = "3f1c5a0e"
BIG = {
    "max_connections": 100_000,
    "max_pending_requests": 100_000,
    "max_requests": 100_000,
    "max_retries": 100_000,
}
EXT = "type.googleapis.com/envoy.extensions"
HCM = f"{EXT}.filters.network.http_connection_manager.v3.HttpConnectionManager"
RETRY_ON_LOSS = {
    "num_retries": 1000,
    "retry_on": "unavailable,cancelled,reset,connect-failure,refused-stream,reset-before-request",
    # Envoy takes max_interval for the time-out of each try as well: below the hold it asks again and again.
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "3600s"},
}


def find_envoy() -> str | None:
    return shutil.which("envoy") or shutil.which("envoy", path=str(Path(os.sys.executable).parent))  # type: ignore[attr-defined]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _h2() -> dict[str, Any]:
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{EXT}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 100_000}},
        }
    }


def _router() -> dict[str, Any]:
    return {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{EXT}.filters.http.router.v3.Router"}}


def _grpc(timeout: str, **more: Any) -> dict[str, Any]:
    return {"envoy_grpc": {"cluster_name": "agent"}, "timeout": timeout, **more}


def _activator_filters() -> list[dict[str, Any]]:
    ext_authz = {
        "@type": f"{EXT}.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": _grpc("3600s", retry_policy=RETRY_ON_LOSS),
        "status_on_error": {"code": "ServiceUnavailable"},
        "allowed_headers": {
            "patterns": [{"exact": name} for name in ("x-request-id", "nodeless-server-timing", "traceparent")]
        },
    }
    return [{"name": "envoy.filters.http.ext_authz", "typed_config": ext_authz}, _router()]


def _activator_listener() -> dict[str, Any]:
    access_log = {
        "@type": f"{EXT}.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
        "common_config": {
            "log_name": "activator",
            "grpc_service": _grpc("5s"),
            "transport_api_version": "V3",
            "buffer_size_bytes": 1,
            "buffer_flush_interval": "0.01s",
        },
    }
    manager = {
        "@type": HCM,
        "stat_prefix": "activator",
        "stream_idle_timeout": "0s",
        "generate_request_id": False,
        "http_filters": _activator_filters(),
        "access_log": [{"name": "envoy.access_loggers.http_grpc", "typed_config": access_log}],
        "local_reply_config": {
            "mappers": [
                {
                    "filter": {"response_flag_filter": {"flags": ["UF"]}},
                    "headers_to_add": [{"header": {"key": "x-nodeless-hold-again", "value": NONCE}}],
                }
            ]
        },
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "pods", "timeout": "0s"}}],
                }
            ]
        },
    }
    return {
        "name": "act-h1",
        "internal_listener": {},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }


def _public_listener(port: int, *, retry: bool) -> dict[str, Any]:
    route: dict[str, Any] = {"cluster": "revision", "timeout": "0s"}
    if retry:
        route["retry_policy"] = {
            "retry_on": "retriable-headers",
            "num_retries": 100,
            "retriable_headers": [{"name": "x-nodeless-hold-again", "string_match": {"exact": NONCE}}],
        }
    manager = {
        "@type": HCM,
        "stat_prefix": "public",
        "stream_idle_timeout": "0s",
        "use_remote_address": True,
        "http_filters": [_router()],
        "delayed_close_timeout": "0.1s",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
            ]
        },
    }
    return {
        "name": "public",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }


def _agent_bridge() -> dict[str, Any]:
    """To the agent's socket, trying until the agent is there. Without it each held request backs off for
    itself, exponentially: some are asked again only as long after the agent's return as it was away."""
    proxy = {
        "@type": f"{EXT}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "agent",
        "cluster": "agent-socket",
        "idle_timeout": "0s",
        "max_connect_attempts": 4_000_000_000,
        "backoff_options": {"base_interval": "0.01s", "max_interval": "0.05s"},
    }
    return {
        "name": "agent-bridge",
        "internal_listener": {},
        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
    }


def _internal(name: str, listener: str, *, endpoint_id: str = "", h2: bool = False) -> dict[str, Any]:
    address = {"envoy_internal_address": {"server_listener_name": listener, "endpoint_id": endpoint_id}}
    raw = {"name": "raw", "typed_config": {"@type": f"{EXT}.transport_sockets.raw_buffer.v3.RawBuffer"}}
    internal = {
        "@type": f"{EXT}.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        "transport_socket": raw,
    }
    return {
        "name": name,
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [BIG]},
        "transport_socket": {"name": "internal", "typed_config": internal},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        **({"typed_extension_protocol_options": _h2()} if h2 else {}),
    }


def _clusters(agent_socket: Path, revision: str) -> list[dict[str, Any]]:
    return [
        _internal("revision", "act-h1", endpoint_id=revision),
        {
            "name": "pods",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "1s",
            "circuit_breakers": {"thresholds": [BIG]},
            "original_dst_lb_config": {
                "metadata_key": {"key": "envoy.filters.http.ext_authz", "path": [{"key": "pod"}]}
            },
        },
        _internal("agent", "agent-bridge", h2=True),
        {
            "name": "agent-socket",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "agent-socket",
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(agent_socket)}}}}]}
                ],
            },
        },
    ]


def bootstrap(*, port: int, agent_socket: Path, revision: str, admin: Path, retry: bool) -> dict[str, Any]:
    return {
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {"@type": f"{EXT}.bootstrap.internal_listener.v3.InternalListener"},
            }
        ],
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {
            "listeners": [_public_listener(port, retry=retry), _activator_listener(), _agent_bridge()],
            "clusters": _clusters(agent_socket, revision),
        },
    }


@asynccontextmanager
async def running_envoy(
    directory: Path, *, agent_socket: Path, revision: str, retry: bool = True, workers: int = 1
) -> AsyncIterator[str]:
    """Base URL of an Envoy that serves one revision. Its log is in the directory."""
    binary = find_envoy()
    assert binary is not None
    port = free_port()
    admin = directory / "admin.sock"
    config = bootstrap(port=port, agent_socket=agent_socket, revision=revision, admin=admin, retry=retry)
    (directory / "envoy.json").write_text(json.dumps(config))
    with (directory / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            binary,
            *("-c", str(directory / "envoy.json"), "--concurrency", str(workers), "-l", "warning"),
            *("--use-dynamic-base-id",),
            stdout=log,
            stderr=log,
        )
    try:
        await _live(admin, process, directory / "envoy.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def _live(admin: Path, process: asyncio.subprocess.Process, log: Path) -> None:
    connector = aiohttp.UnixConnector(str(admin))
    async with aiohttp.ClientSession(connector=connector) as session:
        while True:
            assert process.returncode is None, log.read_text()
            try:
                async with session.get("http://admin/ready") as response:
                    if (await response.text()).strip() == "LIVE":
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.02)
