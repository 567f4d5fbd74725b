"""`nodeless list`, `describe`, `logs` and `delete`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click
import msgspec

from serving.api import keys
from serving.api.meta import Condition, find_condition
from serving.api.pod import Pod
from serving.api.resources import KSERVICES, PODS, REVISIONS
from serving.api.v1 import Revision, Service
from serving.cli.connect import user_client
from serving.cli.deploy import public_url
from serving.cli.terminal import age, console, print_json, run_command, table
from serving.kube.client import KubeClient
from serving.kube.errors import NotFound

if TYPE_CHECKING:
    from serving.cli.main import Globals

NAMESPACE = click.option(
    "--namespace", "-n", default="default", show_default=True, help="Namespace of the Service."
)


@click.command("list")
@NAMESPACE
@click.option("--all-namespaces", "-A", is_flag=True, help="Services of every namespace.")
@click.pass_obj
def list_services(options: Globals, namespace: str, all_namespaces: bool) -> None:
    """List Services with their URL, latest revision and state."""

    async def fetch() -> list[Service]:
        async with user_client(options) as client:
            listing = await client.list(KSERVICES, "" if all_namespaces else namespace)
        return [msgspec.convert(item, Service) for item in listing["items"]]

    found = run_command(options, fetch())
    if options.output == "json":
        print_json(found)
        return
    if not found:
        click.echo("no Services; make one with `nodeless deploy NAME --image IMAGE`")
        return
    title = ["NAME", "URL", "REVISION", "READY", "REASON", "AGE"]
    rows = []
    for service in found:
        status, reason = _ready(service.status.conditions)
        row = [
            service.metadata.name,
            public_url(options, service.status.url),
            service.status.latest_ready_revision_name,
            status,
            reason,
            age(service.metadata.creation_timestamp),
        ]
        rows.append([service.metadata.namespace, *row] if all_namespaces else row)
    console().print(table(["NAMESPACE", *title] if all_namespaces else title, rows))


@click.command()
@click.argument("name")
@NAMESPACE
@click.pass_obj
def describe(options: Globals, name: str, namespace: str) -> None:
    """Show a Service with its traffic, revisions, pods and conditions."""

    async def fetch() -> tuple[Service, list[Revision], list[Pod]]:
        async with user_client(options) as client:
            service = msgspec.convert(await client.get(KSERVICES, name, namespace), Service)
            selector = f"{keys.SERVICE}={name}"
            revisions, pods = await asyncio.gather(
                client.list(REVISIONS, namespace, label_selector=selector),
                client.list(PODS, namespace, label_selector=selector),
            )
        return (
            service,
            [msgspec.convert(item, Revision) for item in revisions["items"]],
            [msgspec.convert(item, Pod) for item in pods["items"]],
        )

    service, revisions, pods = run_command(options, fetch())
    if options.output == "json":
        print_json({"service": service, "revisions": revisions, "pods": pods})
        return
    screen = console()
    screen.print(f"[bold]{service.metadata.namespace}/{name}[/bold]  {public_url(options, service.status.url)}")
    screen.print()
    traffic = {target.revision_name: target for target in service.status.traffic}
    rows = []
    for revision in sorted(revisions, key=lambda item: item.metadata.creation_timestamp or "", reverse=True):
        target = traffic.get(revision.metadata.name)
        status, reason = _ready(revision.status.conditions)
        rows.append(
            (
                revision.metadata.name,
                f"{target.percent}%" if target else "",
                target.tag if target else "",
                f"{revision.status.actual_replicas or 0}/{revision.status.desired_replicas or 0}",
                status,
                reason,
                age(revision.metadata.creation_timestamp),
            )
        )
    screen.print(table(("REVISION", "TRAFFIC", "TAG", "REPLICAS", "READY", "REASON", "AGE"), rows))
    if pods:
        screen.print()
        screen.print(table(("POD", "PHASE", "READY", "IP", "SANDBOX", "RESTARTS", "AGE"), map(_pod_row, pods)))
    screen.print()
    conditions = [
        (condition.type, condition.status, condition.reason, condition.message)
        for condition in service.status.conditions
    ]
    screen.print(table(("CONDITION", "STATUS", "REASON", "MESSAGE"), conditions))


def _pod_row(pod: Pod) -> tuple[str, ...]:
    phase = "Draining" if keys.DRAINING in pod.metadata.annotations else pod.status.phase
    return (
        pod.metadata.name,
        "Terminating" if pod.metadata.deletion_timestamp else phase,
        "True" if pod.ready else "False",
        pod.status.pod_ip,
        pod.metadata.annotations.get(keys.SANDBOX, ""),
        str(sum(container.restart_count for container in pod.status.container_statuses)),
        age(pod.metadata.creation_timestamp),
    )


def _ready(conditions: tuple[Condition, ...]) -> tuple[str, str]:
    ready = find_condition(conditions, "Ready")
    return ("Unknown", "") if ready is None else (ready.status, ready.reason)


@click.command()
@click.argument("name")
@NAMESPACE
@click.option("--follow", "-f", is_flag=True, help="Go on printing new lines.")
@click.option("--tail", type=click.IntRange(0), default=100, show_default=True, help="Last lines of each pod.")
@click.option("--container", "-c", help="Default: the container that serves.")
@click.pass_obj
def logs(options: Globals, name: str, namespace: str, follow: bool, tail: int, container: str | None) -> None:
    """Print the logs of all pods of the Service NAME."""

    async def one(client: KubeClient, pod: Pod, prefix: str) -> None:
        params = {"tailLines": str(tail)}
        if follow:
            params["follow"] = "true"
        if container:
            params["container"] = container
        pending = b""
        try:
            async for chunk in client.stream(PODS.path(namespace, pod.metadata.name, "log"), params=params):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    click.echo(prefix + line.decode(errors="replace"))
        except NotFound:
            click.echo(f"{pod.metadata.name} is gone", err=True)  # since it was listed: scaled down
        if pending:
            click.echo(prefix + pending.decode(errors="replace"))

    async def main() -> None:
        async with user_client(options) as client:
            listing = await client.list(PODS, namespace, label_selector=f"{keys.SERVICE}={name}")
            pods = [msgspec.convert(item, Pod) for item in listing["items"]]
            if not pods:
                await client.get(KSERVICES, name, namespace)
                click.echo(f"{name} has no pods now; it is scaled to zero", err=True)
                return
            async with asyncio.TaskGroup() as group:
                for pod in pods:
                    prefix = f"{pod.metadata.name}  " if len(pods) > 1 else ""
                    group.create_task(one(client, pod, prefix))

    run_command(options, main())


@click.command()
@click.argument("names", nargs=-1, required=True)
@NAMESPACE
@click.pass_obj
def delete(options: Globals, names: tuple[str, ...], namespace: str) -> None:
    """Delete Services with their revisions and pods; running requests end first."""

    async def main() -> None:
        async with user_client(options) as client:
            for name in names:
                await client.delete(KSERVICES, name, namespace)
                if options.output == "text":
                    click.echo(f"deleted {namespace}/{name}")

    run_command(options, main())
    if options.output == "json":
        print_json({"deleted": list(names), "namespace": namespace})
