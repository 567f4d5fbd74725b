"""The server processes. Each parses its options, connects, and runs one `service.run` until a signal."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
import yaml

from serving.cli.connect import connection, run_until_signal
from serving.kube.client import KubeClient
from serving.kube.shared_token import shared_token
from serving.local.layout import Layout, open_layout
from serving.local.supervisor import notify_ready
from serving.telemetry.logs import configure_logging
from serving.telemetry.metrics import serve_metrics
from serving.telemetry.tracing import tracing

if TYPE_CHECKING:
    from serving.cli.main import Globals
    from serving.local.network.egress import Wanted

PATH = click.Path(path_type=Path)


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every process that talks to an API server."""
    for option in reversed(
        [
            click.option("--api-socket", type=PATH, help="Unix socket of the embedded API server."),
            click.option("--token-file", type=PATH, help="Bearer token for --api-socket."),
            click.option("--metrics", metavar="ADDR", help="Serve /metrics on host:port or unix:/path."),
        ]
    ):
        command = option(command)
    return command


async def _client(
    options: Globals, component: str, api_socket: Path | None, token_file: Path | None
) -> KubeClient:
    return KubeClient(
        await connection(kubeconfig=options.kubeconfig, api_socket=api_socket, token_file=token_file),
        agent=f"nodeless-{component}",
    )


async def _with_metrics(address: str | None, serve: Coroutine[Any, Any, None]) -> None:
    """Run a process's service, and its metrics endpoint beside it."""
    async with asyncio.TaskGroup() as group:
        side = group.create_task(serve_metrics(address), name="metrics") if address else None
        await serve
        if side is not None:
            side.cancel()


REPORTS_TOKEN = click.option(
    "--reports-token-file", type=PATH, help="Bearer token between gateways and controller; default: a Secret."
)


async def _token(client: KubeClient, token_file: Path | None) -> str:
    """Token between gateways and controller: the file's, else $NODELESS_TOKEN, else that of a Secret."""
    if token_file is not None:
        return (await asyncio.to_thread(token_file.read_text)).strip()
    return os.environ.get("NODELESS_TOKEN") or await shared_token(client)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=6443, show_default=True, help="TLS; 0 = free.")
@click.option("--domain", help="Domain of public hosts, as `config-domain` says at the first start.")
@click.pass_obj
def apiserver(options: Globals, port: int, domain: str | None) -> None:
    """Run the embedded Kubernetes-style API server on the data directory."""
    from serving.local.apiserver.service import ApiServerSettings
    from serving.local.apiserver.service import run as serve

    configure_logging("apiserver")
    layout = open_layout(options.data_dir)
    settings = ApiServerSettings(
        data_dir=layout.data_dir,
        port=port,
        unix_socket=layout.api_socket,
        token_file=layout.token,
        manifests=tuple(_manifests(layout, domain)),
    )
    with tracing("apiserver"):
        run_until_signal(serve(settings, ready=lambda bound: notify_ready(port=bound)))


def _manifests(layout: Layout, domain: str | None) -> list[Path]:
    """CRDs, default ConfigMaps, rights of our processes and of users of Knative's kinds, from the wheel or from a
    checkout; with `domain` as the default domain."""
    here = Path(__file__).resolve().parents[1]
    root = here / "_manifests" if (here / "_manifests").is_dir() else here.parent / "manifests"
    paths = sorted(path for part in ("crds", "config", "rbac", "local") for path in (root / part).glob("*.yaml"))
    if domain is None:
        return paths
    shipped = root / "config" / "domain.yaml"
    body = yaml.safe_load(shipped.read_text())
    body["data"][domain] = ""
    own = layout.data_dir / "config-domain.yaml"
    own.write_text(yaml.safe_dump(body))
    return [own if path == shipped else path for path in paths]


@click.command()
@connected
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8443, show_default=True, help="0 = free.")
@click.option("--tls-cert", type=PATH, help="Certificate, PEM; default: one of its own, renewed in time.")
@click.option("--tls-key", type=PATH, help="Key of --tls-cert, PEM.")
@click.option("--register", is_flag=True, help="Write the webhook configurations that point here.")
@click.option("--url", help="How the API server reaches --register's webhooks; default: where this listens.")
@click.pass_obj
def webhook(
    options: Globals,
    api_socket: Path | None,
    token_file: Path | None,
    metrics: str | None,
    host: str,
    port: int,
    tls_cert: Path | None,
    tls_key: Path | None,
    register: bool,
    url: str | None,
) -> None:
    """Run the admission webhooks: defaulting and validation."""
    from serving.webhook.certificate_keeper import CertificateKeeper
    from serving.webhook.registration import register as write_configurations
    from serving.webhook.service import WebhookSettings
    from serving.webhook.service import run as serve

    configure_logging("webhook")
    settings = WebhookSettings(host=host, port=port, certificate=tls_cert, key=tls_key)
    reached_as = urlsplit(url).hostname if url else host
    # The embedded API server calls over plain HTTP on loopback; a real one demands TLS.
    own_certificate = tls_cert is None and api_socket is None

    async def main() -> None:
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        async with (
            await _client(options, "webhook", api_socket, token_file) as client,
            asyncio.TaskGroup() as group,
        ):
            if metrics:
                group.create_task(serve_metrics(metrics), name="metrics")
            keeper = None
            if own_certificate:
                hosts = [reached_as] if register and reached_as else []
                keeper = CertificateKeeper(client, hosts=hosts, now=time.time)
                group.create_task(keeper.run(), name="certificates")
                await keeper.ready.wait()
            tls = keeper.context if keeper else None
            group.create_task(
                serve(settings, client=client, tls=tls, on_started=listening.set_result), name="webhook"
            )
            address = await listening
            if register:
                await write_configurations(client, url=url or address, ca_bundle=keeper.bundle if keeper else None)
            notify_ready(url=address)

    with tracing("webhook"):
        run_until_signal(main())


@click.command()
@connected
@click.option(
    "--listen", default="127.0.0.1:8070", show_default=True, help="host:port or unix:/path for gateways."
)
@click.option("--advertise", help="Address that gateways use; default: --listen.")
@click.option("--identity", default=socket.gethostname, help="Name of this replica in the Lease.")
@click.option("--images", type=PATH, help="Local image store that may resolve references too.")
@REPORTS_TOKEN
@click.pass_obj
def controller(
    options: Globals,
    api_socket: Path | None,
    token_file: Path | None,
    metrics: str | None,
    listen: str,
    advertise: str | None,
    identity: str,
    images: Path | None,
    reports_token_file: Path | None,
) -> None:
    """Run the reconcilers, the autoscaler and the pool."""
    from serving.controller.service import ControllerSettings
    from serving.controller.service import run as serve
    from serving.local.images.resolver import StoreResolver

    configure_logging("controller")

    async def main() -> None:
        async with await _client(options, "controller", api_socket, token_file) as client:
            token = await _token(client, reports_token_file)
            settings = ControllerSettings(
                identity=identity, listen=listen, advertise=advertise or listen, token=token
            )
            resolver = StoreResolver(images or options.data_dir / "images")
            await _with_metrics(
                metrics,
                serve(settings, client=client, resolver=resolver, now=time.time, started=notify_ready),
            )

    with tracing("controller"):
        run_until_signal(main())


def _host_port(text: str | None) -> tuple[str, int] | None:
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{text!r}: want HOST:PORT, port 1–65535")
    return host.strip("[]"), int(port)


@click.command()
@connected
@click.option("--name", default=socket.gethostname, help="Name of this gateway, unique in the cluster.")
@click.option("--address", default="127.0.0.1", show_default=True, help="Where the public listener binds.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Public; 0 = free.")
@click.option(
    "--local-port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="Of cluster-local hosts."
)
@REPORTS_TOKEN
@click.option("--concurrency", type=click.IntRange(1), default=1, show_default=True, help="Envoy's workers.")
@click.option("--node", default="", help="Node on this machine, whose pods reach cluster-local hosts.")
@click.option("--pod-api", metavar="HOST:PORT", help="The API server for those pods.")
@click.option("--request-log", type=PATH, help="Where requests are logged if config-observability wants it.")
@click.pass_obj
def gateway(
    options: Globals,
    api_socket: Path | None,
    token_file: Path | None,
    metrics: str | None,
    name: str,
    address: str,
    port: int,
    local_port: int,
    reports_token_file: Path | None,
    concurrency: int,
    node: str,
    pod_api: str | None,
    request_log: Path | None,
) -> None:
    """Run a gateway agent and its Envoy."""
    from serving.gateway.service import GatewaySettings
    from serving.gateway.service import run as serve

    configure_logging("gateway")
    layout = open_layout(options.data_dir)

    async def main() -> None:
        async with await _client(options, "gateway", api_socket, token_file) as client:
            settings = GatewaySettings(
                name=name,
                data_dir=layout.data_dir / "gateway",
                run_dir=layout.run_dir,
                address=address,
                port=port,
                local_port=local_port,
                concurrency=concurrency,
                node=node,
                api=_host_port(pod_api),
                request_log=request_log,
                token=await _token(client, reports_token_file),
            )
            await _with_metrics(metrics, serve(settings, client=client, ready=notify_ready))

    with tracing("gateway"):
        run_until_signal(main())


@click.command()
@connected
@click.option("--name", "--node-name", default="local", show_default=True, help="Name of the Node.")
@click.option(
    "--address", default="127.0.0.1", show_default=True, help="The node's own; API servers reach it there."
)
@click.option(
    "--kubelet-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Of the kubelet API, with a kubeconfig; default: any free one, which the Node tells.",
)
@click.option("--kubelet-cert", type=PATH, help="Certificate of the kubelet API; default: one of its own.")
@click.option("--kubelet-key", type=PATH, help="Key of --kubelet-cert.")
@click.option(
    "--kubelet-client-ca",
    type=PATH,
    help="Authority of the kubelet API's client certificates; default: the cluster's.",
)
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "namespace", "process"]),
    default="auto",
    show_default=True,
    help="How pods are isolated; auto takes the best that boots.",
)
@click.option("--max-pods", type=click.IntRange(1), default=1000, show_default=True, help="Capacity of the Node.")
@click.option("--keep-pods/--stop-pods", default=True, help="Whether pods outlive an orderly stop.")
@click.option(
    "--pod-egress",
    type=click.Choice(["auto", "pasta", "off"]),
    default="auto",
    show_default=True,
    help="How pods reach other machines; auto: by the host, else by pasta.",
)
@click.pass_obj
def node(
    options: Globals,
    api_socket: Path | None,
    token_file: Path | None,
    metrics: str | None,
    name: str,
    address: str,
    kubelet_port: int,
    kubelet_cert: Path | None,
    kubelet_key: Path | None,
    kubelet_client_ca: Path | None,
    sandbox: str,
    max_pods: int,
    keep_pods: bool,
    pod_egress: Wanted,
) -> None:
    """Run the node agent of the local pool."""
    from serving.cli.node_process import serve_node
    from serving.local.node.kubelet_tls import KubeletTls
    from serving.local.node.settings import KubeletServer

    if (kubelet_cert is None) != (kubelet_key is None):
        raise click.UsageError("--kubelet-cert and --kubelet-key belong together")
    tls = KubeletTls(certificate=kubelet_cert, key=kubelet_key, client_ca=kubelet_client_ca)
    # The embedded API server uses the socket.
    kubelet = KubeletServer(port=kubelet_port, tls=tls) if api_socket is None else None

    configure_logging("node")
    layout: Layout = open_layout(options.data_dir)

    async def main() -> None:
        async with await _client(options, "node", api_socket, token_file) as client:
            await _with_metrics(
                metrics,
                serve_node(
                    layout,
                    client=client,
                    name=name,
                    sandbox=sandbox,
                    max_pods=max_pods,
                    keep_pods=keep_pods,
                    egress=pod_egress,
                    address=address,
                    kubelet=kubelet,
                ),
            )

    with tracing("node"):
        run_until_signal(main())
