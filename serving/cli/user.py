"""`nodeless user`: people who share one machine's stack, each with a token and a kubeconfig of their own."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from serving.local.layout import Layout, open_layout

if TYPE_CHECKING:
    from serving.cli.main import Globals


@click.group()
def user_group() -> None:
    """Add, list and remove users of the embedded API server.

    A new user may do nothing but ask what they may do; RoleBindings give them more, e.g. `kubectl create
    rolebinding alice --clusterrole=edit --user=alice -n team-a`.
    """


@user_group.command("add")
@click.argument("name")
@click.option("--group", "groups", multiple=True, help="Group that the user belongs to; may be repeated.")
@click.pass_obj
def add(options: Globals, name: str, groups: tuple[str, ...]) -> None:
    """Add a user, or give one a new token: the old one ends."""
    from serving.local.apiserver.access import users
    from serving.local.apiserver.auth import TokenError

    layout = open_layout(options.data_dir)
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        token = users.add(layout.data_dir, name, groups, created=created)
    except (users.UserError, TokenError) as error:
        raise click.ClickException(str(error)) from None
    path = write_kubeconfig(layout, name, token)
    if options.output == "json":
        click.echo(msgspec.json.encode({"name": name, "token": token, "kubeconfig": str(path)}).decode())
        return
    click.echo(f"user {name} added")
    click.echo(f"  kubeconfig  {path}")
    click.echo(f"  token       {token}   (shown once; only its digest is kept)")
    click.echo(f"  next        kubectl create rolebinding {name} --clusterrole=edit --user={name} -n NAMESPACE")


@user_group.command("list")
@click.pass_obj
def list_users(options: Globals) -> None:
    """List users and their groups."""
    from serving.local.apiserver.access import users
    from serving.local.apiserver.auth import TokenError

    try:
        found = users.load(open_layout(options.data_dir).data_dir)
    except TokenError as error:
        raise click.ClickException(str(error)) from None
    if options.output == "json":
        rows = [{"name": n, "groups": list(u.groups), "created": u.created} for n, u in sorted(found.items())]
        click.echo(msgspec.json.encode(rows).decode())
        return
    width = max([4, *map(len, found)])
    click.echo(f"{'NAME':<{width}}  {'CREATED':<20}  GROUPS")
    for name, entry in sorted(found.items()):
        click.echo(f"{name:<{width}}  {entry.created:<20}  {','.join(entry.groups) or '-'}")


@user_group.command("remove")
@click.argument("name")
@click.pass_obj
def remove(options: Globals, name: str) -> None:
    """Remove a user: their token ends at once. Bindings that name them stay."""
    from serving.local.apiserver.access import users
    from serving.local.apiserver.auth import TokenError

    layout = open_layout(options.data_dir)
    try:
        users.remove(layout.data_dir, name)
    except (users.UserError, TokenError) as error:
        raise click.ClickException(str(error)) from None
    with contextlib.suppress(FileNotFoundError):
        kubeconfig_path(layout, name).unlink()
    click.echo(f"user {name} removed")


def kubeconfig_path(layout: Layout, name: str) -> Path:
    return layout.data_dir / "users" / f"{name}.kubeconfig"


def write_kubeconfig(layout: Layout, name: str, token: str) -> Path:
    """The user's kubeconfig, for the API server as it listens now (or will, when it has never run)."""
    from serving.local.apiserver.auth import write_private

    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": _clusters(layout),
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [
            {"name": "nodeless", "context": {"cluster": "nodeless", "user": name, "namespace": "default"}}
        ],
        "current-context": "nodeless",
    }
    path = kubeconfig_path(layout, name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(path, msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    return path


def refreshed_kubeconfig(layout: Layout, name: str) -> Path:
    """The user's kubeconfig, pointed at where the API server listens now. Raises ClickException."""
    from serving.local.apiserver.auth import write_private

    path = kubeconfig_path(layout, name)
    try:
        config = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise click.ClickException(
            f"no kubeconfig of user {name}; make one with `nodeless user add {name}`"
        ) from None
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{path} cannot be read: {error}") from None
    clusters = _clusters(layout)
    if clusters and config.get("clusters") != clusters:
        config["clusters"] = clusters
        write_private(path, msgspec.json.format(msgspec.json.encode(config)) + b"\n")
    return path


def _clusters(layout: Layout) -> list[Any]:
    try:
        clusters: list[Any] = msgspec.json.decode(layout.kubeconfig.read_bytes())["clusters"]
    except (FileNotFoundError, msgspec.DecodeError, KeyError):
        return []
    return clusters
