"""Where the API server is and how we authenticate: a Unix socket with a token, a kubeconfig, or a pod's own
service account.

The Unix socket and plain kubeconfigs need nothing but aiohttp. kubernetes-asyncio (64 MB, 0.6 s to import) is
loaded only for the rest: exec plug-ins, OIDC, cloud providers, in-cluster tokens that rotate.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from serving.kube.errors import Unreachable

_TOKEN_SECONDS = 300.0

TokenSource = Callable[[], Awaitable[str | None]]
"""Gives the current value of the `Authorization` header, or None."""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """How to open sessions to one API server."""

    base_url: str
    unix_socket: str | None = None
    ssl_context: ssl.SSLContext | None = None
    authorization: TokenSource

    def session(self) -> aiohttp.ClientSession:
        """A new session; the caller closes it. Must be called in a running loop."""
        connector: aiohttp.BaseConnector
        if self.unix_socket is not None:
            connector = aiohttp.UnixConnector(path=self.unix_socket, limit=0)
        else:
            connector = aiohttp.TCPConnector(limit=0, ssl=self.ssl_context if self.ssl_context else True)
        return aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None, sock_connect=5), auto_decompress=True
        )


def _static(value: str | None) -> TokenSource:
    async def source() -> str | None:
        return value

    return source


def over_unix_socket(path: Path, *, token: str) -> Connection:
    """The embedded API server's private socket."""
    return Connection(base_url="http://nodeless", unix_socket=str(path), authorization=_static(f"Bearer {token}"))


async def from_kubeconfig(path: Path | None, *, context: str | None = None) -> Connection:
    """Any kubeconfig that kubectl understands; None = $KUBECONFIG, ~/.kube/config, or the pod's own account.

    Raises kubernetes_asyncio's ConfigException on a file that is not one.
    """
    from kubernetes_asyncio import client, config

    in_cluster = path is None and config.incluster_config.SERVICE_HOST_ENV_NAME in os.environ

    async def load() -> Any:
        loaded: Any = client.Configuration()
        if in_cluster:
            config.load_incluster_config(client_configuration=loaded)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(
                config_file=str(path) if path else None, context=context, client_configuration=loaded
            )
        return loaded

    configuration = await load()
    context_ = None
    if str(configuration.host).startswith("https"):
        context_ = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context_.load_cert_chain(configuration.cert_file, configuration.key_file)
        if not configuration.verify_ssl:
            context_.check_hostname = False
            context_.verify_mode = ssl.CERT_NONE
    # In a pod the library reads the mounted token again by itself; else plug-ins give tokens that expire.
    source = _Tokens(configuration, None if in_cluster else load)
    return Connection(base_url=configuration.host, ssl_context=context_, authorization=source)


class _Tokens:
    """Token of a `kubernetes_asyncio` configuration, loaded anew by `load` when it is older than 5 minutes."""

    def __init__(self, configuration: Any, load: Callable[[], Coroutine[Any, Any, Any]] | None) -> None:
        self._configuration = configuration
        self._load = load
        self._loaded_at = asyncio.get_running_loop().time()
        self._loading = asyncio.Lock()

    async def __call__(self) -> str | None:
        """Raises Unreachable when the credentials cannot be renewed."""
        try:
            await self._renew()
            # A coroutine in newer versions of kubernetes-asyncio, a value in older ones.
            value = self._configuration.get_api_key_with_prefix("BearerToken")
            value = await value if inspect.isawaitable(value) else value
        except Exception as error:  # the library and its plug-ins raise whatever they like
            raise Unreachable(f"no credentials: {error}") from error
        return str(value) if value else None

    async def _renew(self) -> None:
        load = self._load
        if load is None or asyncio.get_running_loop().time() - self._loaded_at < _TOKEN_SECONDS:
            return
        async with self._loading:
            now = asyncio.get_running_loop().time()
            if now - self._loaded_at >= _TOKEN_SECONDS:
                # In a thread with a loop of its own: the library reads files and waits for plug-ins.
                self._configuration = await asyncio.to_thread(asyncio.run, load())
                self._loaded_at = now
