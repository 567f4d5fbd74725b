"""`nodeless up` and `down` of an ordinary user run inside the stack's own user, network and mount namespaces.

The command executes itself again in there (same pid), behind one `pasta` that opens the stack's ports on this
machine's loopback. Data and run directory are the same inside and outside, so every other command works from
outside through their Unix sockets.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from serving.local.layout import RUN_DIR_VARIABLE, Layout
from serving.local.network import rootless
from serving.local.network.names import NetworkError
from serving.local.network.rootless_launch import ensure


def forwarded_ports(layout: Layout) -> Sequence[int]:
    """Ports of this machine that are open for the stack's namespaces; empty when there are none."""
    state = rootless.load(_state_dir(layout))
    return () if state is None else state.ports


def enter(layout: Layout, arguments: Sequence[str], *, ports: Sequence[int]) -> None:
    """Execute `nodeless ARGUMENTS` inside, with these ports open. Returns where there is nothing to enter: with
    root or already inside, and where this machine does not allow it, which is told on stderr."""
    if os.geteuid() == 0:
        return
    command = rootless.rootless_reexec_command(
        [sys.executable, "-m", "serving.cli.main", "--data-dir", str(layout.data_dir), *arguments],
        published_ports=ports,
        data_dir=_state_dir(layout),
    )
    if command is None:
        click.echo(f"pods get no network of their own: {rootless.rootless_support().why}", err=True)
        return
    try:
        ensure(_state_dir(layout), tuple(ports))
    except (NetworkError, OSError) as error:
        click.echo(f"pods get no network of their own: {error}", err=True)
        return
    sys.stdout.flush()
    os.environ[RUN_DIR_VARIABLE] = str(layout.run_dir)
    os.execv(command[0], command)  # noqa: S606


def exists(layout: Layout) -> bool:
    """Whether there are namespaces of a stack that runs or was killed."""
    return rootless.load(_state_dir(layout)) is not None


def leave(layout: Layout) -> None:
    """End the namespaces, where there are any. No pod may be left in them."""
    rootless.release(_state_dir(layout))


def _state_dir(layout: Layout) -> Path:
    """Where the pod network looks for them, too."""
    return layout.data_dir / "sandboxes"
