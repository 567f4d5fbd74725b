"""Where the API server is and how we authenticate: a Unix socket with a token, a kubeconfig, or a pod's own
service account.

The Unix socket and plain kubeconfigs need nothing but aiohttp. kubernetes-asyncio (64 MB, 0.6 s to import) is
loaded only for the rest: exec plug-ins, OIDC, cloud providers, in-cluster tokens that rotate.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

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

    configuration: Any = client.Configuration()
    if path is None and config.incluster_config.SERVICE_HOST_ENV_NAME in os.environ:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(
            config_file=str(path) if path else None, context=context, client_configuration=configuration
        )

    async def authorization() -> str | None:
        if configuration.refresh_api_key_hook is not None:
            result = configuration.refresh_api_key_hook(configuration)
            if result is not None:
                await result
        value = configuration.get_api_key_with_prefix("BearerToken")
        return str(value) if value else None

    context_ = None
    if str(configuration.host).startswith("https"):
        context_ = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if configuration.cert_file:
            context_.load_cert_chain(configuration.cert_file, configuration.key_file)
        if not configuration.verify_ssl:
            context_.check_hostname = False
            context_.verify_mode = ssl.CERT_NONE
    return Connection(base_url=configuration.host, ssl_context=context_, authorization=authorization)
