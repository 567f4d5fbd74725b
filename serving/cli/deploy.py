"""`nodeless deploy`: a Service from options, followed until it is Ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Required, TypedDict, Unpack

import click
import msgspec

from serving.api import keys
from serving.api.meta import JsonObject, find_condition
from serving.api.pod import Pod
from serving.api.resources import KSERVICES, PODS
from serving.api.v1 import Service
from serving.cli.connect import user_client
from serving.cli.terminal import console, print_json, run_command
from serving.cli.up import read_state
from serving.kube.client import KubeClient
from serving.kube.errors import Gone, NotFound
from serving.local.layout import open_layout

if TYPE_CHECKING:
    from serving.cli.main import Globals

AUTOSCALING = "autoscaling.knative.dev"
_FAILING_SECONDS = 2.0
"""How long a Service may say that it failed before we believe it: no room for its pod is soon over."""


@click.command()
@click.argument("name")
@click.option("--image", required=True, help="Image reference, or a name of the local store.")
@click.option("--namespace", "-n", default="default", show_default=True, help="Namespace of the Service.")
@click.option("--env", "-e", "environment", multiple=True, metavar="NAME=VALUE", help="May be given again.")
@click.option("--port", type=click.IntRange(1, 65535), help="Container port; default 8080.")
@click.option("--h2c", is_flag=True, help="The container speaks HTTP/2 without TLS (gRPC).")
@click.option("--concurrency", type=click.IntRange(0), help="Hard limit of requests in a container; 0 = none.")
@click.option("--concurrency-target", type=click.FloatRange(0.01), help="Requests that one pod should have.")
@click.option("--min-scale", type=click.IntRange(0), help="Pods that always run; default 0.")
@click.option("--max-scale", type=click.IntRange(0), help="Most pods; 0 = any number.")
@click.option("--window", metavar="DURATION", help="Stable window of the autoscaler, e.g. 10s.")
@click.option("--timeout", "request_timeout", type=click.IntRange(1, 600), help="Seconds a request may take.")
@click.option("--cpu", metavar="QUANTITY", help="CPU limit, e.g. 500m.")
@click.option("--memory", metavar="QUANTITY", help="Memory limit, e.g. 128Mi.")
@click.option("--annotation", multiple=True, metavar="KEY=VALUE", help="Of the template; may be given again.")
@click.option("--arg", "arguments", multiple=True, help="Argument of the container; may be given again.")
@click.option("--cluster-local", is_flag=True, help="No public host.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until Ready.")
@click.option(
    "--wait-timeout",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up waiting, and end with 1, after this time.",
)
@click.pass_obj
def deploy(options: Globals, /, name: str, namespace: str, wait: bool, wait_timeout: float, **given: Any) -> None:
    """Create or update the Service NAME and wait until it is Ready."""
    body = service_from_options(name, namespace, **given)
    ready = run_command(options, _deploy(options, body, wait=wait, timeout=wait_timeout))
    url = public_url(options, ready.status.url) if ready.status.url else ""
    if options.output == "json":
        print_json({"name": name, "namespace": namespace, "url": url, "status": ready.status})
    elif wait:
        click.echo(url)


class DeployOptions(TypedDict, total=False):
    """Options of `nodeless deploy` that shape the manifest; a missing one is as one not given."""

    image: Required[str]
    environment: tuple[str, ...]
    port: int | None
    h2c: bool
    concurrency: int | None
    concurrency_target: float | None
    min_scale: int | None
    max_scale: int | None
    window: str | None
    request_timeout: int | None
    cpu: str | None
    memory: str | None
    annotation: tuple[str, ...]
    arguments: tuple[str, ...]
    cluster_local: bool


def service_from_options(name: str, namespace: str, **given: Unpack[DeployOptions]) -> JsonObject:
    """A Service manifest. Raises click.BadParameter for a pair that is not NAME=VALUE."""
    labels = {"networking.knative.dev/visibility": "cluster-local"} if given.get("cluster_local") else {}
    template = {"metadata": {"annotations": _annotations(given)}, "spec": _revision_spec(given)}
    return {
        "apiVersion": KSERVICES.api_version,
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"template": template},
    }


def _annotations(given: DeployOptions) -> dict[str, str]:
    annotations = dict(_pair(item, "--annotation") for item in given.get("annotation", ()))
    scaling = {
        "min-scale": given.get("min_scale"),
        "max-scale": given.get("max_scale"),
        "window": given.get("window"),
        "target": given.get("concurrency_target"),
    }
    for key, value in scaling.items():
        if value is not None:
            annotations[f"{AUTOSCALING}/{key}"] = f"{value:g}" if isinstance(value, float) else str(value)
    return annotations


def _revision_spec(given: DeployOptions) -> JsonObject:
    container: JsonObject = {"image": given["image"]}
    if pairs := [_pair(item, "--env") for item in given.get("environment", ())]:
        container["env"] = [{"name": key, "value": value} for key, value in pairs]
    if arguments := given.get("arguments"):
        container["args"] = list(arguments)
    port, h2c = given.get("port"), given.get("h2c")
    if port or h2c:
        container["ports"] = [{"containerPort": port or 8080} | ({"name": "h2c"} if h2c else {})]
    limits = {"cpu": given.get("cpu"), "memory": given.get("memory")}
    if any(limits.values()):
        container["resources"] = {"limits": {key: value for key, value in limits.items() if value}}
    spec: JsonObject = {"containers": [container]}
    if (concurrency := given.get("concurrency")) is not None:
        spec["containerConcurrency"] = concurrency
    if (timeout := given.get("request_timeout")) is not None:
        spec["timeoutSeconds"] = timeout
    return spec


def _pair(text: str, option: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.BadParameter(f"{text!r}: must be NAME=VALUE", param_hint=option)
    return key, value


async def _deploy(options: Globals, body: JsonObject, *, wait: bool, timeout: float) -> Service:
    async with user_client(options) as client:
        stored = await create_or_update(client, body)
        if not wait:
            return msgspec.convert(stored, Service)
        screen = console() if options.output == "text" else None
        try:
            async with asyncio.timeout(timeout):
                return await follow(client, stored, screen=screen)
        except TimeoutError:
            name = body["metadata"]["name"]
            latest = msgspec.convert(await client.get(KSERVICES, name, body["metadata"]["namespace"]), Service)
            reason = await stuck_on(client, latest)
            raise click.ClickException(f"not Ready after {timeout:g} s: {reason}") from None


async def create_or_update(client: KubeClient, body: JsonObject) -> JsonObject:
    """The stored Service. An update replaces the template, keeps traffic and everything else."""
    meta = body["metadata"]
    try:
        current = await client.get(KSERVICES, meta["name"], meta["namespace"])
    except NotFound:
        return await client.create(KSERVICES, body)
    current["spec"]["template"] = body["spec"]["template"]
    current["metadata"].setdefault("labels", {}).update(meta["labels"])
    return await client.update(KSERVICES, current)


async def follow(client: KubeClient, stored: JsonObject, *, screen: Any) -> Service:
    """Watch until Ready is True for this generation. Raises ClickException when it is False and stays so."""
    loop = asyncio.get_running_loop()
    service, shown = msgspec.convert(stored, Service), ""
    try:
        async with asyncio.timeout(None) as patience, aclosing(_versions(client, service)) as versions:
            async for service in versions:
                if is_ready(service):
                    return service
                if not failure(service):
                    patience.reschedule(None)
                elif patience.when() is None:
                    patience.reschedule(loop.time() + _FAILING_SECONDS)
                line = why(service)
                if screen is not None and line != shown:
                    screen.print(f"  {line}", markup=False)
                    shown = line
    except TimeoutError:
        if not patience.expired():
            raise
    raise click.ClickException(failure(service))


async def _versions(client: KubeClient, service: Service) -> AsyncGenerator[Service, None]:
    """This version of a Service and all later ones."""
    meta = service.metadata
    version = meta.resource_version
    yield service
    while True:
        events = client.watch(
            KSERVICES,
            meta.namespace,
            resource_version=version,
            field_selector=f"metadata.name={meta.name}",
            timeout_seconds=60,
        )
        async with aclosing(events):
            async for event in events:
                if event.type == "ERROR":
                    raise Gone(410, msgspec.json.decode(event.object))
                if event.type == "DELETED":
                    raise click.ClickException(f"the Service {meta.name} was deleted meanwhile")
                found = msgspec.json.decode(event.object, type=Service)
                version = found.metadata.resource_version
                if event.type != "BOOKMARK":
                    yield found


async def stuck_on(client: KubeClient, service: Service) -> str:
    """What keeps a Service from being Ready, with what its pods wait for."""
    meta = service.metadata
    listing = await client.list(PODS, meta.namespace, label_selector=f"{keys.SERVICE}={meta.name}")
    for item in listing["items"]:
        pod = msgspec.convert(item, Pod)
        for container in pod.status.container_statuses:
            waiting = container.state.waiting
            if waiting is not None and waiting.message:
                return f"{why(service)}; pod {pod.metadata.name}: {waiting.reason}: {waiting.message}"
    return why(service)


def is_ready(service: Service) -> bool:
    """Whether the stored generation is Ready."""
    return _ready_status(service) == "True"


def failure(service: Service) -> str:
    """Reason and message when the stored generation is not Ready for a known reason; else nothing."""
    ready = find_condition(service.status.conditions, "Ready")
    return f"{ready.reason}: {ready.message}" if ready and _ready_status(service) == "False" else ""


def _ready_status(service: Service) -> str:
    ready = find_condition(service.status.conditions, "Ready")
    current = service.status.observed_generation == service.metadata.generation
    return ready.status if ready is not None and current else "Unknown"


def why(service: Service) -> str:
    """One line on what a Service waits for."""
    for kind in ("ConfigurationsReady", "RoutesReady"):
        condition = find_condition(service.status.conditions, kind)
        if condition is None or condition.status != "True":
            text = (condition.message or condition.reason) if condition else ""
            return f"{kind}: {text or 'in progress'}"
    return "Ready"


def public_url(options: Globals, url: str) -> str:
    """A Service's URL with the local gateway's port, which Knative's URLs do not carry."""
    if options.kubeconfig is not None or not url:
        return url
    state = read_state(open_layout(options.data_dir))
    return url if state is None else f"{url}:{state.url.rsplit(':', 1)[1]}"
