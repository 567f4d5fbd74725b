"""`nodeless up` and `nodeless down`: the whole system on one machine, as supervised child processes."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import select
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
import msgspec
import psutil

from serving.cli import unprivileged
from serving.cli.connect import run_until_signal
from serving.gateway.envoy import adopted_ports, last_ports
from serving.local.layout import Layout, default_data_dir, open_layout
from serving.local.supervisor import ChildError, ChildSpec, Supervisor, kill_leftovers
from serving.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from serving.cli.main import Globals

_STOP_SECONDS = 60.0


class StackState(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` wrote down about itself (`up.json`)."""

    pid: int
    created: float
    url: str
    """Public listener, e.g. `http://127.0.0.1:8080`."""
    local_url: str
    api: str
    domain: str
    sandbox: str
    sandbox_notes: tuple[str, ...] = ()


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Public HTTP port.")
@click.option(
    "--local-port",
    type=click.IntRange(0, 65535),
    default=8081,
    show_default=True,
    help="Port of cluster-local hosts.",
)
@click.option(
    "--api-port", type=click.IntRange(0, 65535), default=16443, show_default=True, help="API server (TLS)."
)
@click.option("--domain", default="localhost", show_default=True, help="Domain of services, at the first start.")
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "namespace", "process"]),
    default="auto",
    show_default=True,
    help="How pods are isolated; auto takes the best that boots.",
)
@click.option(
    "--envoy-concurrency", type=click.IntRange(1), default=1, show_default=True, help="Envoy's worker threads."
)
@click.option(
    "--pod-egress",
    type=click.Choice(["auto", "pasta", "off"]),
    default="auto",
    show_default=True,
    help="How pods reach other machines; auto: by the host, else by pasta.",
)
@click.pass_obj
def up(
    options: Globals,
    port: int,
    local_port: int,
    api_port: int,
    domain: str,
    sandbox: str,
    envoy_concurrency: int,
    pod_egress: str,
) -> None:
    """Run API server, webhook, controller, gateway and node agent until Ctrl-C.

    State is kept in the data directory; pods and Envoy survive a crash of any Python process. Ports that are
    taken are replaced by free ones; 0 takes any free one.
    """
    configure_logging("up")
    logging.getLogger().setLevel(logging.WARNING)
    try:
        layout = open_layout(options.data_dir)
    except OSError as error:
        raise click.ClickException(f"cannot use {options.data_dir}: {error}; give --data-dir") from error
    with _exclusive(layout):
        kill_leftovers(layout.data_dir / "children.json")  # they hold the ports that we want
        ports = _free_ports(layout, api_port, port, local_port)
        if sandbox != "process" or unprivileged.exists(layout):
            inside = ["--output", options.output, "up", "--domain", domain, "--sandbox", sandbox]
            inside += ["--envoy-concurrency", str(envoy_concurrency), "--pod-egress", pod_egress]
            for option, number in zip(("--api-port", "--port", "--local-port"), ports, strict=True):
                inside += [option, str(number)]
            unprivileged.enter(layout, inside, ports=ports)
        specs = _children(
            layout,
            ports=ports,
            domain=domain,
            sandbox=sandbox,
            concurrency=envoy_concurrency,
            egress=pod_egress,
        )
        supervisor = Supervisor(specs, logs=layout.logs, records=layout.data_dir / "children.json")

        def started() -> None:
            state = _state(supervisor.facts, api_port=ports[0], domain=domain)
            layout.state.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
            _announce(options, layout, state)

        try:
            run_until_signal(_supervise(supervisor, started))
        except* ChildError as errors:
            raise click.ClickException(str(errors.exceptions[0])) from None
        finally:
            layout.state.unlink(missing_ok=True)
            unprivileged.leave(layout)
            shutil.rmtree(layout.run_dir, ignore_errors=True)


async def _supervise(supervisor: Supervisor, started: Any) -> None:
    try:
        await supervisor.run(started=started)
    except ChildError as error:
        raise ExceptionGroup("start", [error]) from None


@contextlib.contextmanager
def _exclusive(layout: Layout) -> Iterator[None]:
    lock: TextIO
    with layout.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise click.ClickException(
                f"`nodeless up` (pid {lock.read().strip() or 'unknown'}) already runs on {layout.data_dir}; "
                "stop it with `nodeless down`, or give another --data-dir"
            ) from None
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _free_ports(layout: Layout, api: int, public: int, local: int) -> list[int]:
    """The wanted ports, or free ones where somebody else listens. An adopted Envoy keeps its own; 0 means those
    of the last run, if they are free, else any."""
    gateway = layout.data_dir / "gateway"
    ours = adopted_ports(gateway) | set(unprivileged.forwarded_ports(layout))
    former = (0, *last_ports(gateway))
    chosen: list[int] = []
    for port, last in zip((api, public, local), former, strict=True):
        wanted = port or last
        if wanted in ours or (wanted and _is_free(wanted) and wanted not in chosen):
            chosen.append(wanted)
            continue
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        if port:
            click.echo(f"port {port} is taken, using {free}", err=True)
        chosen.append(free)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _children(
    layout: Layout, *, ports: Sequence[int], domain: str, sandbox: str, concurrency: int, egress: str
) -> list[ChildSpec]:
    api_port, port, local_port = ports
    base = [sys.executable, "-m", "serving.cli.main", "--data-dir", str(layout.data_dir)]
    api = ["--api-socket", str(layout.api_socket)]
    reports = ["--reports-token-file", str(layout.token)]

    def command(name: str, *arguments: str) -> ChildSpec:
        argv = [*base, name, *arguments]
        if name != "apiserver":
            argv += ["--token-file", str(layout.component_token(name))]

        def build(_: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
            return argv

        return ChildSpec(name=name, argv=build)

    def metrics(name: str) -> tuple[str, str]:
        return "--metrics", f"unix:{layout.run_dir / (name + '.metrics')}"

    return [
        command("apiserver", "--port", str(api_port), "--domain", domain),
        command("webhook", *api, "--port", "0", "--register"),
        command(
            "controller",
            *api,
            *metrics("controller"),
            *reports,
            "--identity",
            "local",
            "--listen",
            f"unix:{layout.reports_socket}",
            "--images",
            str(layout.images),
        ),
        command(
            "gateway",
            *api,
            *metrics("gateway"),
            *reports,
            "--name",
            "local",
            "--port",
            str(port),
            "--local-port",
            str(local_port),
            "--concurrency",
            str(concurrency),
            "--node",
            "local",
            "--pod-api",
            f"127.0.0.1:{api_port}",
            "--request-log",
            str(layout.logs / "requests.log"),
        ),
        command("node", *api, *metrics("node"), "--sandbox", sandbox, "--stop-pods", "--pod-egress", egress),
    ]


def _state(facts: Mapping[str, Mapping[str, Any]], *, api_port: int, domain: str) -> StackState:
    gateway, node = facts["gateway"], facts["node"]
    return StackState(
        pid=os.getpid(),
        created=psutil.Process().create_time(),
        url=f"http://127.0.0.1:{gateway['port']}",
        local_url=f"http://127.0.0.1:{gateway['local_port']}",
        api=f"https://127.0.0.1:{facts['apiserver'].get('port', api_port)}",
        domain=domain,
        sandbox=node["rung"],
        sandbox_notes=tuple(node.get("notes", ())),
    )


def _announce(options: Globals, layout: Layout, state: StackState) -> None:
    if options.output == "json":
        click.echo(msgspec.json.encode(state).decode())
        return
    port = state.url.rsplit(":", 1)[1]
    click.echo(f"nodeless is up on {layout.data_dir}")
    click.echo(f"  services   http://<service>.<namespace>.{state.domain}:{port}")
    click.echo(f"  API        {state.api}   (eval $({own_command(options)} env) points kubectl at it)")
    click.echo(f"  sandbox    {state.sandbox}")
    for note in state.sandbox_notes:
        click.echo(f"             {note}")
    click.echo(f"  logs       {layout.logs}")
    click.echo("Ctrl-C stops everything.")


def own_command(options: Globals) -> str:
    """How a user calls `nodeless` for this data directory: by its path where it is not on PATH."""
    program = "nodeless"
    if shutil.which(program) is None:
        path = Path(sys.executable).with_name(program)
        program = shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))
    same = options.data_dir == default_data_dir().expanduser().absolute()
    return program if same else f"{program} --data-dir {shlex.quote(str(options.data_dir))}"


def read_state(layout: Layout) -> StackState | None:
    """The running stack's state, None when no supervisor runs."""
    try:
        state = msgspec.json.decode(layout.state.read_bytes(), type=StackState)
        created = psutil.Process(state.pid).create_time()
    except (FileNotFoundError, psutil.NoSuchProcess, msgspec.DecodeError):
        return None
    return state if abs(created - state.created) < 0.05 else None


@click.command()
@click.pass_obj
def down(options: Globals) -> None:
    """Stop the stack in order; after a crash, remove what it left behind."""
    if not Path(options.data_dir).exists():
        raise click.ClickException(f"nothing is known about {options.data_dir}")
    layout = open_layout(options.data_dir)
    pid = _holder(layout)
    if pid is not None:
        if not _terminate(pid):
            raise click.ClickException(f"pid {pid} did not stop in {_STOP_SECONDS:.0f} s; see {layout.logs}")
        click.echo("stopped")
        return
    if unprivileged.exists(layout):
        unprivileged.enter(layout, ["down"], ports=unprivileged.forwarded_ports(layout))
    from serving.cli.node_process import remove_leftovers

    with _exclusive(layout):
        removed = asyncio.run(remove_leftovers(layout))
        unprivileged.leave(layout)
        shutil.rmtree(layout.run_dir, ignore_errors=True)
    click.echo(f"removed what was left: {', '.join(removed)}" if removed else "nothing runs here")


def _terminate(pid: int) -> bool:
    """SIGTERM, and wait for the end. A process has ended also while its parent has not noticed."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        return bool(select.select([handle], [], [], _STOP_SECONDS)[0])
    finally:
        os.close(handle)


def _holder(layout: Layout) -> int | None:
    """Pid of the process that holds the lock."""
    try:
        with _exclusive(layout):
            return None
    except click.ClickException:
        text = layout.lock.read_text().strip()
        return int(text) if text.isdecimal() else None
