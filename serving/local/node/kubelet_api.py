"""The node's own API, a subset of the kubelet's: logs, pods, stats, programs in containers, health, metrics.

It listens on a Unix socket that only this user may open, and for a real API server on TCP with TLS, where each
request is checked as the kubelet does (`kubelet_auth`).
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import psutil
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving.api.timestamps import parse_nanos
from serving.local.node.agent import NodeAgent
from serving.local.node.kubelet_auth import KubeletAuth
from serving.local.node.kubelet_tls import KubeletTls, client_authority, server_context
from serving.local.node.log_files import read_log
from serving.local.node.logs import LogOptions
from serving.local.node.pod_runner import PodRunner
from serving.local.node.resource_metrics import NodeUse, PodUse, exposition, summary
from serving.local.node.settings import NodeContext
from serving.local.node.state import Phase
from serving.local.node.streaming_api import StreamingApi
from serving.local.sandbox.protocol import SandboxError

_EXEC_SECONDS: Final = 60.0
_SAFE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)


def log_options(query: dict[str, str], *, now: float) -> LogOptions:
    """Raises ValueError naming the parameter."""
    since = None
    if "sinceTime" in query:
        since = parse_nanos(query["sinceTime"])
    elif "sinceSeconds" in query:
        since = int((now - _positive(query, "sinceSeconds")) * 1e9)
    return LogOptions(
        follow=_flag(query, "follow"),
        timestamps=_flag(query, "timestamps"),
        tail_lines=_positive(query, "tailLines") if "tailLines" in query else None,
        limit_bytes=_positive(query, "limitBytes") if "limitBytes" in query else None,
        since_nanos=since,
    )


class KubeletApi:
    def __init__(self, agent: NodeAgent, context: NodeContext) -> None:
        self._agent = agent
        self._context = context
        self._streaming = StreamingApi(agent)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int | None]:
        """Listen; gives the TCP port if there is one. Raises OSError, ssl.SSLError for unusable certificates."""
        settings = self._context.settings
        runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await asyncio.to_thread(_bind, listener, settings.socket)
            await _start(web.SockSite(runner, listener))
            port = None
            if settings.kubelet is not None:
                tls = await self._tls(settings.kubelet.tls)
                await _start(web.TCPSite(runner, settings.address, settings.kubelet.port, ssl_context=tls))
                port = next(int(address[1]) for address in runner.addresses if isinstance(address, tuple))
            yield port
        finally:
            await runner.cleanup()
            listener.close()
            await asyncio.to_thread(settings.socket.unlink, missing_ok=True)

    async def _tls(self, tls: KubeletTls) -> ssl.SSLContext:
        context, settings = self._context, self._context.settings
        authority = await client_authority(context.client) if tls.client_ca is None else ""
        return await asyncio.to_thread(
            server_context,
            tls,
            directory=settings.data_dir / "kubelet",
            hosts=(settings.address, settings.name),
            client_authority=authority,
            now=datetime.fromtimestamp(context.now(), UTC),
        )

    def _application(self) -> web.Application:
        auth = KubeletAuth(self._context.client, node=self._context.settings.name, now=self._context.now)
        application = web.Application(middlewares=[auth.middleware])
        application.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/metrics", self._metrics),
                web.get("/metrics/resource", self._resource_metrics),
                web.get("/pods", self._pods),
                web.get("/stats/summary", self._stats),
                web.get("/containerLogs/{namespace}/{pod}/{container}", self._logs),
                web.post("/run/{namespace}/{pod}/{container}", self._run),
                *self._streaming.routes(),
            ]
        )
        return application

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _metrics(self, request: web.Request) -> web.Response:
        body = generate_latest(self._context.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _pods(self, request: web.Request) -> web.Response:
        items = [msgspec.to_builtins(runner.pod) for runner in self._agent.runners()]
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _stats(self, request: web.Request) -> web.Response:
        node, pods = await self._use()
        return web.json_response(summary(self._context.settings.name, node, pods, now=self._context.now()))

    async def _resource_metrics(self, request: web.Request) -> web.Response:
        node, pods = await self._use()
        body = exposition(node, pods, now=self._context.now()).encode()
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _use(self) -> tuple[NodeUse, list[PodUse]]:
        found = await asyncio.gather(*(_pod_use(runner) for runner in self._agent.runners()))
        return await asyncio.to_thread(_node_use), [use for use in found if use is not None]

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        namespace, name, container = (request.match_info[key] for key in ("namespace", "pod", "container"))
        try:
            options = log_options(dict(request.query), now=self._context.now())
            previous = _flag(dict(request.query), "previous")
        except ValueError as error:
            return web.Response(status=400, text=str(error))
        runner = self._agent.find(namespace, name)
        if runner is None:
            return await self._dead_logs(request, namespace, name, container, options, previous)
        record = runner.record.containers.get(container)
        if record is None:
            return web.Response(status=400, text=f"container {container} is not valid for pod {name}")
        attempt = record.attempt - 1 if previous else record.attempt
        if attempt < 0 and previous:
            return web.Response(status=400, text=_no_previous(container, name))
        if attempt < 0:
            waiting = _waiting_reason(runner, container)
            text = f'container "{container}" in pod "{name}" is waiting to start: {waiting}'
            return web.Response(status=400, text=text)
        path = self._context.paths.log(namespace, name, runner.pod.metadata.uid, container, attempt)

        def running() -> bool:
            now = runner.record.containers[container]
            return now.attempt == attempt and now.phase is Phase.RUNNING and not runner.record.vanished

        if not await asyncio.to_thread(path.parent.is_dir):
            return web.Response(status=400, text=_no_previous(container, name))
        response = await _begin(request)
        async with aclosing(read_log(path, options, running=running, listen=runner.listen)) as chunks:
            async for chunk in chunks:
                await response.write(chunk)
        await response.write_eof()
        return response

    async def _dead_logs(
        self, request: web.Request, namespace: str, name: str, container: str, options: LogOptions, previous: bool
    ) -> web.StreamResponse:
        """Logs that were kept of a pod that is gone: the newest of that name."""
        path = None
        if all(_SAFE_NAME.fullmatch(part) for part in (namespace, name, container)):
            path = await asyncio.to_thread(
                _newest_log, self._context.paths.logs, f"{namespace}_{name}", container, previous
            )
        if path is None:
            return web.Response(status=404, text=f'pod "{name}" not found')
        response = await _begin(request)
        ended = msgspec.structs.replace(options, follow=False)
        chunks = read_log(path, ended, running=lambda: False, listen=lambda callback: lambda: None)
        async with aclosing(chunks):
            async for chunk in chunks:
                await response.write(chunk)
        await response.write_eof()
        return response

    async def _run(self, request: web.Request) -> web.Response:
        """Run `?cmd=` (split at spaces, as the kubelet does) in a container; its output is the answer."""
        runner = self._agent.find(request.match_info["namespace"], request.match_info["pod"])
        container = request.match_info["container"]
        words = request.query.get("cmd", "").split()
        if runner is None or runner.sandbox is None or container not in runner.record.containers:
            return web.Response(status=404, text=f"container {container} not found")
        if not words:
            return web.Response(status=400, text="cmd: a command is required")
        try:
            done = await runner.sandbox.exec(container, words, timeout_seconds=_EXEC_SECONDS)
        except (SandboxError, TimeoutError) as error:
            return web.Response(status=500, text=str(error) or type(error).__name__)
        headers = {"X-Exit-Code": str(done.exit_code)}
        return web.Response(body=done.stdout + done.stderr, headers=headers)


async def _pod_use(runner: PodRunner) -> PodUse | None:
    sandbox, meta = runner.sandbox, runner.pod.metadata
    if sandbox is None:
        return None
    try:
        stats = await sandbox.stats()
    except (SandboxError, OSError):  # it went away meanwhile
        return None
    running = [
        (name, record) for name, record in runner.record.containers.items() if record.phase is Phase.RUNNING
    ]
    return PodUse(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        containers=tuple((name, record.started_at) for name, record in running),
        cpu_seconds=stats.cpu_seconds,
        memory_bytes=stats.memory_bytes,
        pids=stats.pids,
    )


def _node_use() -> NodeUse:
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    busy = sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
    return NodeUse(cpu_seconds=busy, memory_bytes=memory.total - memory.available, started_at=psutil.boot_time())


def _bind(listener: socket.socket, path: Path) -> None:
    """At a path that only this user may open. Blocking; raises OSError, e.g. for a path beyond 107 bytes."""
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    path.chmod(0o600)


async def _start(site: web.BaseSite) -> None:
    """Start listening; a cancellation waits for it, since a server that is half started cannot be closed."""
    starting = asyncio.create_task(site.start())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await starting
        raise


async def _begin(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(request)
    return response


def _newest_log(logs: Path, prefix: str, container: str, previous: bool) -> Path | None:
    attempts = [
        (path.stat().st_mtime, path)
        for path in logs.glob(f"{prefix}_*/{container}/*.log")
        if path.stem.isdecimal() and path.parent.parent.name.rpartition("_")[0] == prefix
    ]
    ordered = [path for _, path in sorted(attempts)]
    wanted = 2 if previous else 1
    return ordered[-wanted] if len(ordered) >= wanted else None


def _waiting_reason(runner: PodRunner, container: str) -> str:
    status = runner.pod.status
    for known in (*status.init_container_statuses, *status.container_statuses):
        if known.name == container and known.state.waiting is not None:
            return known.state.waiting.reason
    return "ContainerCreating"


def _no_previous(container: str, pod: str) -> str:
    return f'previous terminated container "{container}" in pod "{pod}" not found'


def _flag(query: dict[str, str], name: str) -> bool:
    text = query.get(name, "false").lower()
    if text not in ("true", "false", "1", "0", ""):
        raise ValueError(f"{name}: {query[name]!r} must be true or false")
    return text in ("true", "1")


def _positive(query: dict[str, str], name: str) -> int:
    if not query[name].isdecimal():
        raise ValueError(f"{name}: {query[name]!r} must be a whole number, 0 or more")
    return int(query[name])
