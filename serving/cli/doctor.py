"""`nodeless doctor`: what this machine can do, found by trying it, and how to enable the rest.

Sandboxes are booted in a temporary directory under an instance name of their own, so that a running stack is not
touched and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.text import Text

from serving.cli.machine import Check, tool_checks
from serving.cli.node_process import destroy_all, rungs
from serving.cli.terminal import console, print_json, table
from serving.cli.up import read_state
from serving.local.images.content import ContentStore
from serving.local.images.erofs import probe as probe_erofs
from serving.local.images.limits import Limits
from serving.local.layout import Layout, open_layout
from serving.local.network import rootless
from serving.local.sandbox.protocol import RungReport
from serving.local.sandbox.select import AUTO, NoSandbox, choose_runtime

if TYPE_CHECKING:
    from serving.cli.main import Globals

_INSIDE_SECONDS = 90.0


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What trying the sandboxes brought; `chosen` is empty when none works."""

    chosen: str
    rungs: tuple[RungReport, ...]
    erofs: Check


class Report(msgspec.Struct, frozen=True, kw_only=True):
    works: bool
    sandbox: str
    rungs: tuple[RungReport, ...]
    checks: tuple[Check, ...]


@click.command()
@click.option("--try-sandboxes", type=click.Path(path_type=Path), hidden=True)
@click.pass_obj
def doctor(options: Globals, try_sandboxes: Path | None) -> None:
    """Try every sandbox and look for every tool that nodeless can use; say what is missing and how to get it.

    Ends with 0 unless nothing can run here. A running stack is not disturbed.
    """
    if try_sandboxes is not None:  # this program again, inside the namespaces of an ordinary user
        click.echo(msgspec.json.encode(asyncio.run(_try_sandboxes(try_sandboxes))).decode())
        return
    with _temporary_directory() as directory:
        found = _inside(directory) or asyncio.run(_try_sandboxes(directory))
    checks = (
        *tool_checks(options.data_dir, own_ports=_own_ports(options)),
        found.erofs,
        *_from_rungs(found.rungs),
    )
    works = bool(found.chosen) and not any(check.needed and check.status == "missing" for check in checks)
    report = Report(works=works, sandbox=found.chosen, rungs=found.rungs, checks=checks)
    if options.output == "json":
        print_json(report)
    else:
        _show(report)
    if not works:
        sys.exit(1)


def _own_ports(options: Globals) -> set[int]:
    if not (options.data_dir / "instance").exists():
        return set()
    state = read_state(open_layout(options.data_dir))
    return (
        set()
        if state is None
        else {int(url.rpartition(":")[2]) for url in (state.url, state.local_url, state.api)}
    )


@contextlib.contextmanager
def _temporary_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="nodeless-doctor-"))
    try:
        yield directory
    finally:
        rootless.release(directory)
        shutil.rmtree(directory, ignore_errors=True)


def _inside(directory: Path) -> Found | None:
    """Without root: tried where the stack would run. None with root, or where that cannot be."""
    own = [sys.executable, "-m", "serving.cli.main", "doctor", "--try-sandboxes", str(directory)]
    command = rootless.rootless_reexec_command(own, published_ports=(), data_dir=directory)
    if command is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSIDE_SECONDS, check=False)
        return msgspec.json.decode(done.stdout, type=Found)
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        why = str(error) if not isinstance(error, msgspec.DecodeError) else done.stderr.strip()
        click.echo(f"cannot make the namespaces of an ordinary user: {why}", err=True)
        return None


async def _try_sandboxes(directory: Path) -> Found:
    layout = Layout(data_dir=directory, run_dir=directory, instance=secrets.token_hex(4))
    content = ContentStore(directory / "images", limits=Limits())
    await asyncio.to_thread(content.create)
    proved = await asyncio.to_thread(probe_erofs, content)
    erofs = Check(
        name="erofs",
        status="ok" if proved.works else "reduced",
        found=proved.why if proved.works else "images are unpacked into directories",
        fix="" if proved.works else proved.why,
    )
    try:
        runtime, reports = await choose_runtime(AUTO, rungs(layout), probe_all=True)
    except NoSandbox as error:
        return Found(chosen="", rungs=tuple(error.reports), erofs=erofs)
    await destroy_all(runtime)
    return Found(chosen=runtime.rung, rungs=tuple(reports), erofs=erofs)


def _from_rungs(reports: Sequence[RungReport]) -> Iterator[Check]:
    """Parts of the best rung that somebody may look for by name."""
    best = next((report for report in reports if report.works), None)
    if best is None:
        return
    if best.rung == "namespace":
        filters = [note for note in best.reduced if "nftables" in note]
        yield Check(
            name="nftables",
            status="reduced" if filters else "ok",
            found="; ".join(filters) or "pods cannot reach each other nor this machine's services",
            fix="a kernel with nf_tables" if filters else "",
        )
    limits = [note for note in best.reduced if "limits" in note or "freezing" in note]
    yield Check(
        name="cgroups",
        status="reduced" if limits else "ok",
        found="; ".join(limits) or "CPU, memory and process limits are enforced",
    )


def _show(report: Report) -> None:
    screen = console()
    screen.print("[bold]Sandboxes[/bold], best first; each was tried by booting one")
    for rung in report.rungs:
        mark = "[green]works[/green]" if rung.works else "[red]no[/red]"
        used = " [bold](used)[/bold]" if rung.rung == report.sandbox else ""
        screen.print(f"  {rung.rung:<10} {mark}{used}  ", Text(rung.why), sep="")
        if rung.works:
            screen.print(f"             isolates: {', '.join(rung.isolates) or 'nothing'}")
        for note in rung.reduced:
            screen.print(Text(f"             reduced: {note}"))
    screen.print()
    marks = {"ok": "[green]ok[/green]", "reduced": "[yellow]reduced[/yellow]", "missing": "[red]missing[/red]"}
    rows = [(check.name, marks[check.status], check.found) for check in report.checks]
    screen.print(table(("CHECK", "", "FOUND"), rows))
    fixes = [f"  {check.name}: {check.fix}" for check in report.checks if check.fix]
    if fixes:
        screen.print("\n[bold]To get the rest[/bold]")
        screen.print(Text("\n".join(fixes)))
    screen.print(f"\n{'nodeless can run here.' if report.works else 'nodeless cannot run here.'}")
