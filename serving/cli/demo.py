"""`nodeless demo`: the whole story on one machine, on real traffic: deploy, zero, wake, load, scale, zero."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import click
import msgspec

from serving.api.keys import REVISION
from serving.api.resources import KSERVICES, PODS, REVISIONS, Resource
from serving.api.v1 import Revision, Service
from serving.cli.connect import run_until_signal, user_client
from serving.cli.demo_screen import WAKE, Screen
from serving.cli.deploy import create_or_update, follow, service_from_options, stuck_on
from serving.cli.up import StackState, own_command, read_state
from serving.kube.client import KubeClient
from serving.kube.errors import KubeError
from serving.local.layout import open_layout

if TYPE_CHECKING:
    from serving.cli.main import Globals

NAME = "hello"
NAMESPACE = "default"
WINDOW = "6s"
TARGET = 5
USERS = 40
WORK_MS = 100
LOAD_SECONDS = 15.0
UP_SECONDS = 120.0
ZERO_SECONDS = 90.0


class Failed(Exception):
    """A step did not do what the demo promises."""


@click.command()
@click.option(
    "--sandbox",
    type=click.Choice(["auto", "namespace", "process"]),
    envvar="SANDBOX",
    default="auto",
    show_default=True,
    help="How pods are isolated; also $SANDBOX.",
)
@click.option("--keep/--no-keep", default=None, help="Leave the stack running at the end; default: in a terminal.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Save the last picture as SVG.")
@click.pass_obj
def demo(options: Globals, sandbox: str, keep: bool | None, picture: Path | None) -> None:
    """Start a stack, deploy a hello service, and watch it wake from zero, scale and fall asleep.

    With CI=1, or without a terminal, it prints lines, stops the stack at the end, and ends with 1 if a step
    failed.
    """
    plain = bool(os.environ.get("CI")) or not sys.stdout.isatty()
    keep = (not plain) if keep is None else keep
    _refuse_a_running_stack(options)
    try:
        run_until_signal(_demo(options, sandbox=sandbox, plain=plain, keep=keep, picture=picture))
    except* Failed as errors:
        raise click.ClickException(str(_first(errors))) from None
    except* KubeError as errors:
        raise click.ClickException(f"the API server: {_first(errors)}") from None
    click.echo(f"\nStopped. State is kept in {options.data_dir}")


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _refuse_a_running_stack(options: Globals) -> None:
    if not (options.data_dir / "instance").exists():
        return
    state = read_state(open_layout(options.data_dir))
    if state is not None:
        raise click.ClickException(
            f"a stack runs already on {options.data_dir} (pid {state.pid}), and the demo starts its own; stop it "
            f"with `{own_command(options)} down`, or set NODELESS_DATA_DIR to another directory"
        )


async def _demo(options: Globals, *, sandbox: str, plain: bool, keep: bool, picture: Path | None) -> None:
    with Screen(plain=plain) as screen:
        done = screen.step("start API server, controller, gateway with Envoy, node agent")
        async with _stack(options, sandbox) as (state, ended):
            done(f"sandbox: {state.sandbox}")
            for note in state.sandbox_notes:
                screen.note(note)
            async with user_client(options) as client:
                await _story(options, client, state, screen)
            after = _next_steps(options, state)
            if picture is not None:
                screen.save(picture, command="scripts/demo", after=after)
            screen.close()
            click.echo(after)
            if keep:
                click.echo("\nThe stack runs until Ctrl-C.")
                await ended.wait()


def _next_steps(options: Globals, state: StackState) -> str:
    port, command = state.url.rsplit(":", 1)[1], own_command(options)
    return "\n".join(
        (
            "",
            f"The service   curl http://{NAME}.{NAMESPACE}.{state.domain}:{port}/",
            f"Watch         {command} top",
            f"Your own      {command} deploy NAME --image IMAGE",
            f"kubectl       eval $({command} env); kubectl get ksvc",
        )
    )


@contextlib.asynccontextmanager
async def _stack(options: Globals, sandbox: str) -> AsyncIterator[tuple[StackState, asyncio.Event]]:
    """A stack of our own, stopped at the end; the event tells that somebody else stopped it."""
    command = [sys.executable, "-m", "serving.cli.main", "--data-dir", str(options.data_dir), "--output", "json"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "up",
        "--sandbox",
        sandbox,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    if process.stdout is None or process.stderr is None:
        raise Failed("no pipe to `nodeless up`")
    try:
        async with asyncio.TaskGroup() as group:
            said: list[str] = []
            ended = asyncio.Event()
            reading = group.create_task(_keep_lines(process.stderr, said, ended))
            try:
                async with asyncio.timeout(UP_SECONDS):
                    line = await process.stdout.readline()
            except TimeoutError:
                raise Failed(f"`nodeless up` was not ready after {UP_SECONDS:.0f} s") from None
            if not line:
                await reading
                raise Failed("\n".join(said).removeprefix("Error: ") or "`nodeless up` did not start")
            yield msgspec.json.decode(line, type=StackState), ended
            reading.cancel()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _keep_lines(stream: asyncio.StreamReader, lines: list[str], ended: asyncio.Event) -> None:
    while line := await stream.readline():
        lines.append(line.decode(errors="replace").rstrip())
    ended.set()


async def _story(options: Globals, client: KubeClient, state: StackState, screen: Screen) -> None:
    image = await _image(options, screen)
    done = screen.step("deploy an ordinary Knative Service")
    began = time.monotonic()
    service = await _deploy(client, image)
    done(f"Ready in {(time.monotonic() - began) * 1000:.0f} ms")
    revision = service.status.latest_ready_revision_name
    host = f"{NAME}.{NAMESPACE}.{state.domain}"
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(_watch_replicas(client, revision, screen))
        async with aiohttp.ClientSession(headers={"Host": host}) as session:
            await _wait_for_zero(client, revision, screen, "no traffic, so its pod goes")
            await _wake(session, state, screen)
            await _load(session, state, screen)
            await _wait_for_zero(client, revision, screen, "load over, so all pods go")
        watcher.cancel()


async def _image(options: Globals, screen: Screen) -> str:
    from serving.local.images.examples import build_example, default_name
    from serving.local.images.protocol import ImageError
    from serving.local.images.store import LocalImageStore

    done = screen.step("build a hello image, without Docker")
    layout = open_layout(options.data_dir)
    try:
        async with LocalImageStore(layout.images) as store:
            built = await build_example(store, "hello-static")
    except ImageError as error:
        raise Failed(f"no hello image: {error.message}") from error
    done(f"{built.image.name}, {built.image.size_bytes / 1e6:.1f} MB")
    if built.note:
        screen.note(built.note)
    return default_name("hello-static")


async def _deploy(client: KubeClient, image: str) -> Service:
    body = service_from_options(NAME, NAMESPACE, image=image, concurrency_target=TARGET, window=WINDOW)
    try:
        async with asyncio.timeout(60):
            return await follow(client, await create_or_update(client, body), screen=None)
    except TimeoutError:
        found = msgspec.convert(await client.get(KSERVICES, NAME, NAMESPACE), Service)
        raise Failed(f"the Service is not Ready after 60 s: {await stuck_on(client, found)}") from None
    except click.ClickException as error:
        raise Failed(error.message) from error


async def _watch_replicas(client: KubeClient, name: str, screen: Screen) -> None:
    """Show the Revision's replicas whenever they change, until cancelled."""
    async for found in _changes(client, REVISIONS, field_selector=f"metadata.name={name}"):
        for raw in found.values():
            status = msgspec.json.decode(raw, type=Revision).status
            screen.replicas(status.actual_replicas or 0, status.desired_replicas or 0)


async def _wait_for_zero(client: KubeClient, name: str, screen: Screen, text: str) -> None:
    done = screen.step(text)
    began = time.monotonic()
    try:
        async with asyncio.timeout(ZERO_SECONDS):
            async for pods in _changes(client, PODS, label_selector=f"{REVISION}={name}"):
                if not pods:
                    break
    except TimeoutError:
        raise Failed(f"{text}: still pods after {ZERO_SECONDS:.0f} s") from None
    done(f"zero after {time.monotonic() - began:.1f} s (window {WINDOW})")


async def _changes(
    client: KubeClient, resource: Resource, *, label_selector: str = "", field_selector: str = ""
) -> AsyncIterator[dict[str, bytes]]:
    """The selected objects by name, now and after each change. Lists again when a watch is refused."""
    while True:
        listing = await client.list(
            resource, NAMESPACE, label_selector=label_selector, field_selector=field_selector
        )
        objects = {item["metadata"]["name"]: msgspec.json.encode(item) for item in listing["items"]}
        yield dict(objects)
        events = client.watch(
            resource,
            NAMESPACE,
            resource_version=listing["metadata"]["resourceVersion"],
            label_selector=label_selector,
            field_selector=field_selector,
            timeout_seconds=120,
        )
        async with aclosing(events):
            async for event in events:
                if event.type == "ERROR":
                    break
                if event.type == "BOOKMARK":
                    continue
                name = msgspec.json.decode(event.object)["metadata"]["name"]
                if event.type == "DELETED":
                    objects.pop(name, None)
                else:
                    objects[name] = bytes(event.object)
                yield dict(objects)


async def _wake(session: aiohttp.ClientSession, state: StackState, screen: Screen) -> None:
    done = screen.step(WAKE)
    began = time.monotonic()
    async with session.get(state.url + "/", headers={"nodeless-server-timing": "1"}) as response:
        text = (await response.text()).strip()
        took = (time.monotonic() - began) * 1000
        if response.status != 200:
            raise Failed(f"the first request got {response.status}: {text}")
        stages = stages_of(response.headers.get("server-timing", ""))
    screen.budget(stages)
    done(f"{response.status} {text!r} after {took:.0f} ms")


def stages_of(header: str) -> list[tuple[str, float]]:
    """Names and milliseconds of a Server-Timing header, in its order."""
    stages = []
    for entry in header.split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "dur":
                stages.append((name, float(value)))
    return stages


async def _load(session: aiohttp.ClientSession, state: StackState, screen: Screen) -> None:
    done = screen.step(f"{USERS} users for {LOAD_SECONDS:.0f} s, {WORK_MS} ms of work a request")
    latencies: list[float] = []
    failures: list[str] = []
    ends = time.monotonic() + LOAD_SECONDS

    async def user() -> None:
        while time.monotonic() < ends:
            began = time.monotonic()
            try:
                async with session.get(f"{state.url}/sleep?ms={WORK_MS}") as response:
                    await response.read()
                    if response.status != 200:
                        failures.append(str(response.status))
            except aiohttp.ClientError as error:
                failures.append(str(error))
            latencies.append(time.monotonic() - began)
            screen.load(f"{len(latencies)} requests, {len(failures)} failed")

    async with asyncio.TaskGroup() as group:
        for _ in range(USERS):
            group.create_task(user())
    screen.load("")
    cuts = statistics.quantiles(latencies, n=100)
    done(
        f"{len(latencies)} requests, {len(failures)} failed, "
        f"p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms"
    )
    if failures:
        raise Failed(f"{len(failures)} requests failed: {', '.join(sorted(set(failures))[:3])}")
