"""Terminal output of user commands: rich tables for people, one JSON document for programs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table

from serving.api.timestamps import parse
from serving.kube.errors import ApiError, KubeError, NotFound

if TYPE_CHECKING:
    from serving.cli.main import Globals

T = TypeVar("T")


_WIDTH = 500
"""Wider than any line: a terminal wraps what is too long, as with kubectl, instead of names being cut."""


def console() -> Console:
    return Console(highlight=False, soft_wrap=True, width=_WIDTH)


def table(title: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A borderless table as kubectl prints them."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in title:
        made.add_column(column, no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def run_command(options: Globals, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a user command; what the API server refuses becomes one line."""
    try:
        return asyncio.run(coroutine)
    except NotFound as error:
        raise click.ClickException(f"{error.message}; `nodeless list -A` shows what there is") from error
    except ApiError as error:
        raise click.ClickException(error.message) from error
    except KubeError as error:
        raise click.ClickException(
            f"the API server does not answer ({error}); is `nodeless up` running?"
        ) from error


def age(timestamp: str | None) -> str:
    """`12s`, `5m`, `3h`, `2d` since an RFC 3339 time; `-` when there is none."""
    if not timestamp:
        return "-"
    seconds = max(0, int(datetime.now(UTC).timestamp() - parse(timestamp)))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
