"""The process: opens the state, serves HTTP on a Unix socket and on TLS, and writes a kubeconfig.

Two listeners: TLS on TCP, because kubectl sends tokens only over TLS, and a private Unix socket for our own
processes, which spares them the encryption. Both ask for a bearer token.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from serving.api.meta import JsonObject
from serving.local.apiserver import bootstrap, pki
from serving.local.apiserver.access import components, tokens, users
from serving.local.apiserver.access.authentication import Authenticator
from serving.local.apiserver.access.authorizer import Authorizer
from serving.local.apiserver.access.caretaker import Caretaker
from serving.local.apiserver.access.gate import Gate
from serving.local.apiserver.access.plugins import Plugins
from serving.local.apiserver.access.tokens import Signer
from serving.local.apiserver.admission import Admission
from serving.local.apiserver.auth import admin_token, write_private
from serving.local.apiserver.builtin import CRD_STORAGE
from serving.local.apiserver.collector import Collector
from serving.local.apiserver.documents import Documents
from serving.local.apiserver.quota_keeper import QuotaKeeper
from serving.local.apiserver.registry import Registry
from serving.local.apiserver.request import SYSTEM, Context, User
from serving.local.apiserver.resources import Resources
from serving.local.apiserver.schemas.definitions import definitions
from serving.local.apiserver.server import Server
from serving.local.apiserver.state import DELETED, Entry, Event
from serving.local.apiserver.storage import Storage
from serving.local.apiserver.streams import Streams
from serving.local.apiserver.subresources import Subresources
from serving.local.apiserver.verbs import Verbs
from serving.local.apiserver.watch import Watches
from serving.local.apiserver.wire.schema import builtin_schema

log = logging.getLogger(__name__)

_SHUTDOWN_SECONDS: Final = 2.0
_NAME: Final = "nodeless"
_SERVICE_NAMES: Final = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
"""What pods call the API server."""


class ApiServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`token_file` holds the administrator's token (default `<data_dir>/token`); `history` is how many events of
    each kind a watch can resume over."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    unix_socket: Path | None = None
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    manifests: tuple[Path, ...] = ()
    history: int = 1024


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A server that answers."""

    port: int
    socket: Path
    token: str
    kubeconfig: Path
    certificate_authority: Path | None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


async def run(settings: ApiServerSettings, *, ready: Callable[[int], None] | None = None) -> None:
    """Serve until cancelled; then watches end cleanly and everything is flushed. `ready` gets the bound TCP port.

    Raises StateError (unusable database), TokenError, ManifestError, OSError (a port or path that cannot be had).
    """
    async with _started(settings) as (running, collecting):
        if ready is not None:
            ready(running.port)
        await collecting


@asynccontextmanager
async def started(settings: ApiServerSettings) -> AsyncIterator[Running]:
    """A running server, stopped on exit. Raises what `run` raises."""
    async with _started(settings) as (running, _):
        yield running


@asynccontextmanager
async def _started(settings: ApiServerSettings) -> AsyncIterator[tuple[Running, asyncio.Task[None]]]:
    """The server and its background task, which ends only by failing."""
    files = await asyncio.to_thread(_read_files, settings)
    async with AsyncExitStack() as stack:
        storage = await Storage.open(settings.data_dir / "state.db", history=settings.history)
        stack.push_async_callback(storage.close)
        registry = Registry()
        _serve_definitions(registry, storage)
        admission = Admission(storage)
        stack.push_async_callback(admission.close)
        authorizer = Authorizer(storage)
        plugins = Plugins(storage, authorizer)
        resources = Resources(storage, registry, admission, lambda: datetime.now(UTC), plugins)
        await bootstrap.ensure(resources, files.manifests)
        caretaker = Caretaker(resources, authority=files.trusted)
        await caretaker.settle()
        tending = asyncio.create_task(_tend(resources, caretaker), name="background")
        stack.push_async_callback(_cancel, tending)
        authenticator = Authenticator(
            files.fixed, directory=settings.data_dir, signer=files.signer, state=storage.state
        )
        gate = Gate(authenticator, authorizer, files.signer)
        running = await _listen(settings, stack, resources, files, gate)
        log.info("API server listens on %s and %s", running.url, running.socket)
        yield running, tending


async def _tend(resources: Resources, caretaker: Caretaker) -> None:
    async def write_status(entry: Entry, status: JsonObject) -> None:
        kind = resources.registry.of_storage(entry.key.storage)
        if kind is not None:
            context = Context(user=SYSTEM)
            await resources.patch(
                kind, *entry.key[1:], lambda obj: {**obj, "status": status}, context, subresource="status"
            )

    async with asyncio.TaskGroup() as group:
        group.create_task(Collector(resources).run(), name="garbage-collector")
        group.create_task(caretaker.run(), name="caretaker")
        group.create_task(QuotaKeeper(resources.limits, resources.state, write_status).run(), name="quota-keeper")


async def _cancel(task: asyncio.Task[None]) -> None:
    # Not a TaskGroup: that would wrap every exception of the caller's block in a group.
    task.cancel()
    await asyncio.wait([task])


class _Files(msgspec.Struct, frozen=True):
    """Everything that is read from disk before the server starts."""

    token: str
    fixed: dict[str, User]
    """By token: the administrator and our own components."""
    signer: Signer
    trusted: str
    """The certificate, in PEM, by which this server is to be trusted."""
    manifests: list[tuple[Path, JsonObject]]
    tls: ssl.SSLContext
    authority: Path | None


def _read_files(settings: ApiServerSettings) -> _Files:
    data_dir = settings.data_dir
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    token = admin_token(settings.token_file or data_dir / "token")
    builtin_schema("v1", "Pod")  # loads the table of built-in kinds before the first request needs it
    definitions()
    tls, authority = _tls(settings)
    users.load(data_dir)  # a file that cannot be read is told of now
    return _Files(
        token=token,
        fixed={token: components.ADMIN, **components.tokens(data_dir)},
        signer=Signer.open(data_dir / tokens.KEY_FILE),
        trusted=(authority or settings.tls_cert or data_dir / "tls" / "ca.crt").read_text(),
        manifests=bootstrap.read_manifests(settings.manifests),
        tls=tls,
        authority=authority,
    )


def _serve_definitions(registry: Registry, storage: Storage) -> None:
    def observe(event: Event) -> None:
        if event.entry.key.storage != CRD_STORAGE:
            return
        if event.type == DELETED:
            registry.withdraw(event.entry.key.name)
        else:
            declare(event.entry)

    def declare(entry: Entry) -> None:
        conditions = (entry.obj.get("status") or {}).get("conditions") or ()
        if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
            registry.declare(entry.obj)

    for entry in storage.state.select(CRD_STORAGE):
        declare(entry)
    storage.listen(observe)


async def _listen(
    settings: ApiServerSettings,
    stack: AsyncExitStack,
    resources: Resources,
    files: _Files,
    gate: Gate,
) -> Running:
    streams = Streams(resources.state)
    stack.push_async_callback(streams.close)
    watches = Watches(resources.storage)
    documents = Documents(resources.registry)
    server = Server(
        gate=gate,
        verbs=Verbs(resources, watches, Subresources(resources, streams, gate)),
        discover=documents.discover,
        document=documents.openapi,
    )
    runner = web.AppRunner(
        server.application(),
        access_log=None,
        handle_signals=False,
        handler_cancellation=True,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    stack.callback(watches.stop)
    path = settings.unix_socket or settings.data_dir / "api.sock"
    await web.SockSite(runner, await asyncio.to_thread(_unix_socket, path)).start()
    stack.push_async_callback(asyncio.to_thread, path.unlink, missing_ok=True)
    tcp = web.TCPSite(runner, settings.host, settings.port, ssl_context=files.tls)
    await tcp.start()
    port = _bound_port(runner)
    kubeconfig = settings.data_dir / "kubeconfig"
    await asyncio.to_thread(_write_kubeconfig, kubeconfig, port=port, files=files)
    return Running(
        port=port, socket=path, token=files.token, kubeconfig=kubeconfig, certificate_authority=files.authority
    )


def _bound_port(runner: web.AppRunner) -> int:
    return next(int(address[1]) for address in runner.addresses if isinstance(address, tuple))


def _unix_socket(path: Path) -> socket.socket:
    """Listen on a path, replacing what a dead server left there. Raises OSError when somebody answers on it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_socket():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                path.unlink()
            else:
                raise OSError(f"another server listens on {path}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.fchmod(listener.fileno(), 0o600)  # before bind, so that the path never has wider permissions
    listener.bind(str(path))
    path.chmod(0o600)
    listener.setblocking(False)
    return listener


def _tls(settings: ApiServerSettings) -> tuple[ssl.SSLContext, Path | None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.tls_cert is not None:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
        return context, None
    hosts = tuple(dict.fromkeys(("127.0.0.1", "::1", "localhost", settings.host, *_SERVICE_NAMES)))
    files = pki.ensure(settings.data_dir / "tls", hosts=hosts, now=datetime.now(UTC))
    context.load_cert_chain(files.certificate, files.key)
    return context, files.authority


def _write_kubeconfig(path: Path, *, port: int, files: _Files) -> None:
    cluster: dict[str, str] = {"server": f"https://127.0.0.1:{port}"}
    if files.authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode(files.authority.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _NAME, "cluster": cluster}],
        "users": [{"name": _NAME, "user": {"token": files.token}}],
        "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": _NAME, "namespace": "default"}}],
        "current-context": _NAME,
    }
    data = msgspec.json.format(msgspec.json.encode(config)) + b"\n"
    if not path.exists() or path.read_bytes() != data:
        write_private(path, data)
