"""`nodeless status` and `nodeless env`: what runs on this machine and how to reach it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click
import psutil

from serving.cli.connect import require_running
from serving.cli.terminal import console, print_json, table
from serving.cli.up import read_state
from serving.cli.user import refreshed_kubeconfig
from serving.gateway.envoy import alive, read_boot
from serving.local.supervisor import living_children

if TYPE_CHECKING:
    from serving.cli.main import Globals


@click.command()
@click.pass_obj
def status(options: Globals) -> None:
    """Show the processes, addresses and sandbox of this machine's stack."""
    layout = require_running(options)
    state = read_state(layout)
    rows: list[dict[str, Any]] = []
    for record, process in living_children(layout.data_dir / "children.json"):
        tree = [process, *process.children(recursive=record.name != "node")]
        memory = sum(_pss(member) for member in tree)
        rows.append({"name": record.name, "pid": record.pid, "memoryBytes": memory, "started": record.created})
    boot = read_boot(layout.data_dir / "gateway")
    if boot is not None and alive(boot):
        process = psutil.Process(boot.pid)
        rows.append(
            {"name": "envoy", "pid": boot.pid, "memoryBytes": _pss(process), "started": process.create_time()}
        )
    if options.output == "json":
        print_json({"running": state is not None, "state": state, "processes": rows})
        return
    screen = console()
    if state is None:
        screen.print(f"The supervisor of {layout.data_dir} is gone; `nodeless up` takes its stack over.")
    else:
        screen.print(f"services  http://<service>.<namespace>.{state.domain}:{state.url.rsplit(':', 1)[1]}")
        screen.print(f"API       {state.api}")
        screen.print(f"sandbox   {state.sandbox}")
        for note in state.sandbox_notes:
            screen.print(f"          {note}")
    screen.print(
        table(
            ("PROCESS", "PID", "MEMORY (PSS)"),
            [(row["name"], str(row["pid"]), f"{row['memoryBytes'] / 2**20:.0f} MiB") for row in rows],
        )
    )


def _pss(process: psutil.Process) -> int:
    """Proportional set size in bytes: memory that the process has for itself, plus its part of what is shared."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


@click.command()
@click.option("--user", "name", help="As a user that `nodeless user add` made; default: the administrator.")
@click.pass_obj
def env(options: Globals, name: str | None) -> None:
    """Print shell lines that point kubectl at the stack: eval $(nodeless env)."""
    layout = require_running(options)
    state = read_state(layout)
    kubeconfig = layout.kubeconfig if name is None else refreshed_kubeconfig(layout, name)
    values = {"KUBECONFIG": str(kubeconfig)}
    if state is not None:
        values |= {"NODELESS_URL": state.url, "NODELESS_DOMAIN": state.domain}
    if options.output == "json":
        print_json(values)
        return
    for name, value in values.items():
        click.echo(f"export {name}={shlex.quote(value)};")
