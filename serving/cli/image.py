"""`nodeless image`: import, build, list and remove images of the local store.

The store is shared with a running `nodeless up`: what is built here can be deployed at once, and nothing needs a
daemon.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from serving.local.images.build import BuildSpec
from serving.local.images.examples import TOOLCHAINS, Toolchain, build_example, example_names
from serving.local.images.protocol import Credentials, ImageError
from serving.local.images.reference import InvalidReferenceError, parse_reference
from serving.local.images.store import LocalImageStore
from serving.local.images.summary import ImageSummary

if TYPE_CHECKING:
    from serving.cli.main import Globals

T = TypeVar("T")

_FORMS = "a reference is like hello, dev.local/hello:v1, oci:DIR[:TAG], docker-archive:FILE, dir:PATH"


@click.group("image")
def image_group() -> None:
    """Import, build, list and remove images of the local store."""


@image_group.command("import")
@click.argument("source")
@click.option("-t", "--name", default="", help="Name to deploy it by; default: the registry reference itself.")
@click.option("--username", default="", help="User of the registry.")
@click.option("--password-stdin", is_flag=True, help="Read the registry's password from standard input.")
@click.pass_obj
def import_command(options: Globals, source: str, name: str, username: str, password_stdin: bool) -> None:
    """Copy an image into the store.

    SOURCE is oci:DIR[:TAG], docker-archive:FILE[:REF], dir:PATH, a path to one of these, or a registry reference.
    """
    credentials = None
    if username or password_stdin:
        if not (username and password_stdin):
            raise click.UsageError("--username and --password-stdin go together")
        credentials = Credentials(username, sys.stdin.readline().rstrip("\r\n"))
    reference = _absolute_source(source)
    imported = _run(options, lambda store: store.import_image(reference, name=name, credentials=credentials))
    _print_one(options, imported)


@image_group.command("build")
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-t", "--name", default="", help="Name to deploy it by, e.g. hello or dev.local/hello:v1.")
@click.option("--example", type=click.Choice(example_names()), help="Build a hello image instead of DIRECTORY.")
@click.option("--base", default="", help="Any image reference to build on; default: nothing.")
@click.option("--target", default="/", show_default=True, help="Where DIRECTORY's contents go in the image.")
@click.option("--entrypoint", help="Program and arguments, quoted as in a shell.")
@click.option("--cmd", help="Default arguments, quoted as in a shell.")
@click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="May be repeated.")
@click.option("--workdir", help="Working directory.")
@click.option("--user", help="uid, uid:gid or a name in the image's /etc/passwd.")
@click.option("--port", "ports", multiple=True, type=click.IntRange(1, 65535), help="May be repeated.")
@click.option(
    "--toolchain", type=click.Choice(TOOLCHAINS), help="For --example hello-static; default: what works."
)
@click.pass_obj
def build_command(
    options: Globals,
    directory: Path | None,
    name: str,
    example: str | None,
    base: str,
    target: str,
    entrypoint: str | None,
    cmd: str | None,
    environment: tuple[str, ...],
    workdir: str | None,
    user: str | None,
    ports: tuple[int, ...],
    toolchain: Toolchain | None,
) -> None:
    """Make an OCI image of DIRECTORY, without Docker. The same files give the same digest."""
    if (directory is None) == (example is None):
        raise click.UsageError("give either DIRECTORY or --example")
    if example is not None:
        chosen = example
        built = _run(options, lambda store: build_example(store, chosen, name=name, toolchain=toolchain))
        if built.note:
            click.echo(f"note: {built.note}", err=True)
        _print_one(options, built.image)
        return
    if directory is None or not name:
        raise click.UsageError("the image needs a name: -t NAME")
    spec = BuildSpec(
        directory=directory.absolute(),
        target=target,
        entrypoint=_words(entrypoint, "--entrypoint"),
        cmd=_words(cmd, "--cmd"),
        env=tuple(_pair(item) for item in environment),
        working_dir=workdir,
        user=user,
        exposed_ports=ports or None,
    )
    found_base = _absolute_source(base) if base else ""
    _print_one(options, _run(options, lambda store: store.build(spec, name=name, base=found_base)))


@image_group.command("list")
@click.pass_obj
def list_command(options: Globals) -> None:
    """List the images of the store."""
    images = _run(options, lambda store: store.list_images())
    if options.output == "json":
        _print_json(images)
        return
    if not images:
        click.echo("no images; make one with `nodeless image build --example hello-static`")
        return
    from rich.console import Console

    from serving.cli.terminal import table

    rows = [
        (
            _familiar(image.name) or "<none>",
            image.digest.removeprefix("sha256:")[:12],
            image.origin or "-",
            _size(image.size_bytes),
            _size(image.rootfs_bytes) if image.rootfs_bytes else "-",
            datetime.fromtimestamp(image.created_at, UTC).strftime("%Y-%m-%d"),
        )
        for image in images
    ]
    # A pipe has no width to fit into, and cut names are of no use to a program.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 400)
    console.print(table(("NAME", "DIGEST", "ORIGIN", "SIZE", "UNPACKED", "SINCE"), rows))


@image_group.command("rm")
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def remove_command(options: Globals, names: tuple[str, ...]) -> None:
    """Remove images by name. What pods use stays until they are gone."""

    async def remove(store: LocalImageStore) -> None:
        for name in names:
            await store.remove(_absolute_source(name))

    _run(options, remove)
    if options.output == "json":
        _print_json({"removed": list(names)})
    else:
        click.echo("".join(f"removed {name}\n" for name in names), nl=False)


def _run(options: Globals, action: Callable[[LocalImageStore], Awaitable[T]]) -> T:
    async def main() -> T:
        async with LocalImageStore(options.data_dir / "images") as store:
            return await action(store)

    try:
        return asyncio.run(main())
    except ImageError as error:
        hint = f"; {_FORMS}" if error.reason == "InvalidImageName" else ""
        raise click.ClickException(error.message + hint) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or options.data_dir}: {error.strerror or error}") from error


def _absolute_source(text: str) -> str:
    """With absolute paths, and with the transport where only a path was given."""
    if text.startswith(("/", "./", "../")) or text in (".", ".."):
        path = Path(text).resolve()
        if path.is_file():
            return f"docker-archive:{path}"
        return f"oci:{path}" if (path / "oci-layout").is_file() else f"dir:{path}"
    try:
        parsed = parse_reference(text)
    except InvalidReferenceError as error:
        raise click.ClickException(f"{error}; {_FORMS}") from error
    if parsed.transport == "registry" or parsed.path.startswith("/"):
        return text
    return text.replace(f":{parsed.path}", f":{Path(parsed.path).absolute()}", 1)


def _words(text: str | None, option: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}", param_hint=option) from error


def _pair(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--env")
    return text


def _familiar(name: str) -> str:
    """Without what Docker Hub implies."""
    return name.removeprefix("index.docker.io/library/").removeprefix("index.docker.io/")


def _size(size: int) -> str:
    for unit, width in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= width:
            return f"{size / width:.1f} {unit}"
    return f"{size} B"


def _print_one(options: Globals, image: ImageSummary) -> None:
    if options.output == "json":
        _print_json(image)
    else:
        click.echo(f"{image.name}  {image.digest}  {_size(image.size_bytes)}")


def _print_json(value: object) -> None:
    from serving.cli.terminal import print_json

    print_json(value)
