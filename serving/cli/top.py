"""`nodeless top`: what each revision has, wants and holds; live in a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from serving.api import keys
from serving.api.meta import find_condition
from serving.api.resources import REVISIONS
from serving.api.v1 import Revision
from serving.cli.connect import require_running, user_client
from serving.cli.scrape import Samples, scrape
from serving.cli.terminal import console, print_json, run_command, table
from serving.kube.client import KubeClient

if TYPE_CHECKING:
    from serving.cli.main import Globals

_TITLE = (
    "NAMESPACE", "REVISION", "READY", "PODS", "METRIC", "STABLE", "PANIC", "TARGET", "MODE", "IN FLIGHT", "HELD",
    "REQ/S",
)  # fmt: skip


class Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One revision. None = not known: no data yet, or no metrics can be read."""

    namespace: str
    revision: str
    service: str
    ready: str
    """True, False or Unknown."""
    actual: int
    desired: int
    metric: str | None = None
    """What the revision is scaled on: concurrency or rps."""
    stable: float | None = None
    """Average over the stable window."""
    panic: float | None = None
    """Average over the panic window."""
    target: float | None = None
    """For one pod."""
    panicking: bool = False
    in_flight: int | None = None
    """Requests in progress at the gateway, held ones included."""
    held: int | None = None
    """Requests that wait for a pod."""
    requests_per_second: float | None = None
    """Since the sample before."""


@click.command()
@click.option("--namespace", "-n", help="Only this namespace; default: all.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two samples.",
)
@click.option("--once", is_flag=True, help="Print one table; the default without a terminal and with JSON.")
@click.pass_obj
def top(options: Globals, namespace: str | None, interval: float, once: bool) -> None:
    """Show revisions with replicas, load and held requests, busiest first, until Ctrl-C.

    Load needs the metrics of the local stack; with --kubeconfig only what the API tells is shown.
    """
    once = once or options.output == "json" or not sys.stdout.isatty()
    sources = () if options.kubeconfig is not None else _metric_sockets(options)
    try:
        run_command(options, _top(options, sources, namespace=namespace or "", interval=interval, once=once))
    except KeyboardInterrupt:
        return


def _metric_sockets(options: Globals) -> Sequence[Path]:
    layout = require_running(options)
    return layout.run_dir / "controller.metrics", layout.run_dir / "gateway.metrics"


async def _top(options: Globals, sources: Sequence[Path], *, namespace: str, interval: float, once: bool) -> None:
    async with user_client(options) as client:
        before, at = await _samples(sources), time.monotonic()
        if once:
            await asyncio.sleep(interval if sources else 0)  # a rate needs two samples
            rows = await _rows(client, namespace, before, await _samples(sources), time.monotonic() - at)
            if options.output == "json":
                print_json(rows)
            else:
                console().print(_table(rows))
            return
        with Live(console=Console(highlight=False), auto_refresh=False, screen=True) as live:
            while True:
                samples, now = await _samples(sources), time.monotonic()
                rows = await _rows(client, namespace, before, samples, now - at)
                live.update(_screen(options, rows, interval), refresh=True)
                before, at = samples, now
                await asyncio.sleep(interval)


async def _samples(sources: Sequence[Path]) -> Samples:
    merged: Samples = {}
    for found in await asyncio.gather(*(scrape(source) for source in sources)):
        merged |= found
    return merged


async def _rows(client: KubeClient, namespace: str, before: Samples, after: Samples, seconds: float) -> list[Row]:
    listing = await client.list(REVISIONS, namespace)
    revisions = [msgspec.convert(item, Revision) for item in listing["items"]]
    return build_rows(revisions, before, after, seconds)


def build_rows(revisions: Sequence[Revision], before: Samples, after: Samples, seconds: float) -> list[Row]:
    """Busiest first, then by name. `seconds` lie between the two samples."""
    rows = [_row(revision, before, after, seconds) for revision in revisions]
    return sorted(rows, key=lambda row: (-(row.in_flight or 0), -row.actual, row.namespace, row.revision))


def _row(revision: Revision, before: Samples, after: Samples, seconds: float) -> Row:
    meta = revision.metadata
    key = f"{meta.namespace}/{meta.name}"

    def value(name: str, samples: Samples = after) -> float | None:
        return samples.get(name, {}).get(key)

    metric = next(
        (name for name in ("concurrency", "rps") if value(f"kn_revision_{name}_target") is not None), None
    )
    ready = find_condition(revision.status.conditions, "Ready")
    held, in_flight = value("nodeless_revision_held_requests"), value("nodeless_revision_in_progress_requests")
    total, earlier = (value("nodeless_revision_requests_total", samples) for samples in (after, before))
    rate = None
    if total is not None and earlier is not None and seconds > 0:
        rate = max(0.0, total - earlier) / seconds
    return Row(
        namespace=meta.namespace,
        revision=meta.name,
        service=meta.labels.get(keys.SERVICE, ""),
        ready=ready.status if ready is not None else "Unknown",
        actual=revision.status.actual_replicas or 0,
        desired=revision.status.desired_replicas or 0,
        metric=metric,
        stable=value(f"kn_revision_{metric}_stable"),
        panic=value(f"kn_revision_{metric}_panic"),
        target=value(f"kn_revision_{metric}_target"),
        panicking=bool(value("kn_revision_panic_mode")),
        in_flight=None if in_flight is None else int(in_flight),
        held=None if held is None else int(held),
        requests_per_second=rate,
    )


def _table(rows: Sequence[Row]) -> Group | Text:
    if not rows:
        return Text("no revisions; make one with `nodeless deploy NAME --image IMAGE`")
    return Group(table(_TITLE, map(_cells, rows)))


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.namespace,
        row.revision,
        row.ready,
        f"{row.actual}/{row.desired}",
        row.metric or "-",
        _number(row.stable),
        _number(row.panic),
        _number(row.target),
        "[bold red]panic[/bold red]" if row.panicking else "stable",
        _number(row.in_flight),
        f"[yellow]{row.held}[/yellow]" if row.held else _number(row.held),
        _number(row.requests_per_second),
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.2f}"


def _screen(options: Globals, rows: Sequence[Row], interval: float) -> Group:
    pods, held = sum(row.actual for row in rows), sum(row.held or 0 for row in rows)
    rate = sum(row.requests_per_second or 0.0 for row in rows)
    where = options.kubeconfig or options.data_dir
    head = Text(
        f"nodeless top  {where}  {len(rows)} revisions, {pods} pods, {held} held, {rate:.1f} requests/s  "
        f"(every {interval:g} s, Ctrl-C ends)",
        style="bold",
    )
    return Group(head, Text(), _table(rows))
