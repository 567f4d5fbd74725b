"""`nodeless demo`: the whole story on one machine, on real traffic: deploy, zero, wake, load, scale, zero."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import aiohttp
import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from serving.api.resources import KSERVICES, REVISIONS
from serving.api.v1 import Revision, Service
from serving.cli.connect import user_client
from serving.cli.deploy import create_or_update, follow, service_from_options
from serving.cli.up import StackState
from serving.kube.client import KubeClient
from serving.local.layout import default_data_dir, open_layout

if TYPE_CHECKING:
    from serving.cli.main import Globals

NAME = "hello"
NAMESPACE = "default"
WINDOW = "6s"
TARGET = 5
USERS = 40
LOAD_SECONDS = 15.0
UP_SECONDS = 120.0
ZERO_SECONDS = 90.0


class Failed(Exception):
    """A step did not do what the demo promises."""


class Screen:
    """Steps with their outcome, and the replicas as they are; live in a terminal, lines otherwise."""

    def __init__(self, *, plain: bool) -> None:
        self.console = Console(highlight=False)
        self._plain = plain
        self._steps: list[tuple[str, str]] = []
        self._replicas: list[tuple[float, int, int]] = []
        self._live = None if plain else Live(console=self.console, refresh_per_second=8, transient=False)

    def __enter__(self) -> Screen:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._render())
            self._live.stop()

    def step(self, text: str) -> Callable[[str], None]:
        """Begin a step; call the result with its outcome."""
        number = len(self._steps)
        self._steps.append((text, ""))
        self._refresh()

        def done(outcome: str) -> None:
            self._steps[number] = (text, outcome)
            if self._plain:
                self.console.print(f"{text} … {outcome}")
            self._refresh()

        return done

    def replicas(self, ready: int, wanted: int) -> None:
        self._replicas.append((time.monotonic(), ready, wanted))
        if self._plain:
            self.console.print(f"  replicas {ready} of {wanted}")
        self._refresh()

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._render())

    def _render(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        for text, outcome in self._steps:
            grid.add_row("[green]✓[/green]" if outcome else "[yellow]…[/yellow]", text, f"[bold]{outcome}[/bold]")
        if self._replicas:
            _, ready, wanted = self._replicas[-1]
            bar = "[green]" + "■" * ready + "[/green]" + "[yellow]" + "□" * max(0, wanted - ready) + "[/yellow]"
            history = " → ".join(str(count) for count in _changes(self._replicas))
            grid.add_row("", f"replicas {bar} {ready}", history)
        return grid


def _changes(samples: list[tuple[float, int, int]]) -> list[int]:
    counts: list[int] = []
    for _, ready, _ in samples:
        if not counts or counts[-1] != ready:
            counts.append(ready)
    return counts[-16:]


@click.command()
@click.option("--sandbox", type=click.Choice(["auto", "namespace", "process"]), envvar="SANDBOX", default="auto")
@click.option("--keep/--no-keep", default=None, help="Leave the stack running at the end; default: in a terminal.")
@click.pass_obj
def demo(options: Globals, sandbox: str, keep: bool | None) -> None:
    """Start a stack, deploy a hello service, and watch it wake from zero, scale and fall asleep.

    With CI=1, or without a terminal, it prints lines, stops the stack at the end, and exits with 1 if a step
    failed.
    """
    plain = bool(os.environ.get("CI")) or not sys.stdout.isatty()
    keep = (not plain) if keep is None else keep
    try:
        asyncio.run(_demo(options, sandbox=sandbox or "auto", plain=plain, keep=keep))
    except Failed as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("stopped")


async def _demo(options: Globals, *, sandbox: str, plain: bool, keep: bool) -> None:
    async with _stack(options, sandbox) as state:
        with Screen(plain=plain) as screen:
            notes = "".join(f" ({note})" for note in state.sandbox_notes)
            screen.step("stack: API server, controller, gateway with Envoy, node agent")(
                f"up, sandbox: {state.sandbox}{notes}"
            )
            async with user_client(options) as client:
                await _story(options, client, state, screen)
        port = state.url.rsplit(":", 1)[1]
        click.echo(f"\nThe service:   curl http://{NAME}.{NAMESPACE}.{state.domain}:{port}/")
        click.echo(f"Your own:      nodeless {_data_dir_option(options)}deploy NAME --image IMAGE")
        click.echo(f"kubectl:       eval $(nodeless {_data_dir_option(options)}env); kubectl get ksvc")
        if keep:
            click.echo("The stack runs until Ctrl-C.")
            await asyncio.get_running_loop().create_future()


def _data_dir_option(options: Globals) -> str:
    same = options.data_dir == default_data_dir().expanduser().absolute()
    return "" if same else f"--data-dir {options.data_dir} "


@contextlib.asynccontextmanager
async def _stack(options: Globals, sandbox: str) -> AsyncIterator[StackState]:
    command = [sys.executable, "-m", "serving.cli.main", "--data-dir", str(options.data_dir), "--output", "json"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "up",
        "--sandbox",
        sandbox,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    if process.stdout is None:
        raise Failed("no pipe to `nodeless up`")
    try:
        async with asyncio.timeout(UP_SECONDS):
            line = await process.stdout.readline()
        if not line:
            raise Failed("`nodeless up` did not start; its message is above")
        yield msgspec.json.decode(line, type=StackState)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _story(options: Globals, client: KubeClient, state: StackState, screen: Screen) -> None:
    image = await _image(options, screen)
    done = screen.step("deploy an ordinary Knative Service")
    began = time.monotonic()
    service = await _deploy(client, image)
    done(f"Ready in {(time.monotonic() - began) * 1000:.0f} ms")
    revision = service.status.latest_ready_revision_name
    host = f"{NAME}.{NAMESPACE}.{state.domain}"
    watcher = asyncio.ensure_future(_watch_replicas(client, revision, screen))
    try:
        async with aiohttp.ClientSession(headers={"Host": host}) as session:
            await _wait_for_zero(client, revision, screen, "no traffic: scale to zero")
            await _wake(session, state, screen)
            await _load(session, state, screen)
            await _wait_for_zero(client, revision, screen, "load over: back to zero")
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher


async def _image(options: Globals, screen: Screen) -> str:
    from serving.local.images.examples import build_example, default_name
    from serving.local.images.store import LocalImageStore

    done = screen.step("build a hello image, without Docker")
    layout = open_layout(options.data_dir)
    async with LocalImageStore(layout.images) as store:
        built = await build_example(store, "hello-static")
    name = default_name("hello-static")
    done(f"{name}{f' ({built.note})' if built.note else ''}")
    return name


async def _deploy(client: KubeClient, image: str) -> Service:
    body = service_from_options(
        NAME,
        NAMESPACE,
        image=image,
        environment=(),
        port=None,
        h2c=False,
        concurrency=None,
        concurrency_target=TARGET,
        min_scale=None,
        max_scale=None,
        window=WINDOW,
        request_timeout=None,
        cpu=None,
        memory=None,
        annotation=(),
        arguments=(),
        cluster_local=False,
    )
    try:
        async with asyncio.timeout(60):
            return await follow(client, await create_or_update(client, body), screen=None)
    except TimeoutError:
        found = msgspec.convert(await client.get(KSERVICES, NAME, NAMESPACE), Service)
        raise Failed(f"the Service is not Ready: {found.status.conditions}") from None
    except click.ClickException as error:
        raise Failed(error.message) from error


async def _revisions(client: KubeClient, name: str) -> AsyncIterator[Revision]:
    """The Revision now, and after each change."""
    stored = await client.get(REVISIONS, name, NAMESPACE)
    yield msgspec.convert(stored, Revision)
    version = stored["metadata"]["resourceVersion"]
    while True:
        events = client.watch(
            REVISIONS,
            NAMESPACE,
            resource_version=version,
            field_selector=f"metadata.name={name}",
            timeout_seconds=120,
        )
        async with aclosing(events):
            async for event in events:
                if event.type in ("ADDED", "MODIFIED"):
                    found = msgspec.json.decode(event.object, type=Revision)
                    version = found.metadata.resource_version
                    yield found


async def _watch_replicas(client: KubeClient, name: str, screen: Screen) -> None:
    last: tuple[int, int] | None = None
    async for revision in _revisions(client, name):
        counts = revision.status.actual_replicas or 0, revision.status.desired_replicas or 0
        if counts != last:
            screen.replicas(*counts)
            last = counts


async def _wait_for_zero(client: KubeClient, name: str, screen: Screen, text: str) -> None:
    done = screen.step(text)
    began = time.monotonic()
    try:
        async with asyncio.timeout(ZERO_SECONDS):
            async for revision in _revisions(client, name):
                if revision.status.actual_replicas == 0 and revision.status.desired_replicas == 0:
                    break
    except TimeoutError:
        raise Failed(f"{text}: still pods after {ZERO_SECONDS:.0f} s") from None
    done(f"after {time.monotonic() - began:.0f} s (window {WINDOW})")


async def _wake(session: aiohttp.ClientSession, state: StackState, screen: Screen) -> None:
    done = screen.step("first request wakes it")
    began = time.monotonic()
    async with session.get(state.url + "/", headers={"nodeless-server-timing": "1"}) as response:
        text = (await response.text()).strip()
        took = (time.monotonic() - began) * 1000
        if response.status != 200:
            raise Failed(f"the first request got {response.status}: {text}")
    done(f"{took:.0f} ms: {text!r}")
    budget = response.headers.get("server-timing", "")
    if budget:
        screen.step("its time budget")(_budget(budget))


def _budget(header: str) -> str:
    parts = []
    for entry in header.split(","):
        name, *parameters = entry.strip().split(";")
        for parameter in parameters:
            key, _, value = parameter.strip().partition("=")
            if key == "dur":
                parts.append(f"{name} {float(value):.1f}")
    return "  ".join(parts) + "  (ms)"


async def _load(session: aiohttp.ClientSession, state: StackState, screen: Screen) -> None:
    done = screen.step(f"load: {USERS} users for {LOAD_SECONDS:.0f} s, 100 ms of work a request")
    latencies: list[float] = []
    failures: list[str] = []
    ends = time.monotonic() + LOAD_SECONDS

    async def user() -> None:
        while time.monotonic() < ends:
            began = time.monotonic()
            try:
                async with session.get(state.url + "/sleep?ms=100") as response:
                    await response.read()
                    if response.status != 200:
                        failures.append(str(response.status))
            except aiohttp.ClientError as error:
                failures.append(str(error))
            latencies.append(time.monotonic() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(USERS):
            group.create_task(user())
    cuts = statistics.quantiles(latencies, n=100)
    done(
        f"{len(latencies)} requests, {len(failures)} failed, "
        f"p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms"
    )
    if failures:
        raise Failed(f"{len(failures)} requests failed: {', '.join(sorted(set(failures))[:3])}")
