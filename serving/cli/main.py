"""`nodeless`: commands are imported only when they run, so that a server does not load a terminal library."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import click

from serving.local.layout import default_data_dir

_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "up": ("serving.cli.up:up", "Run everything on this machine until Ctrl-C."),
    "down": ("serving.cli.up:down", "Stop what `up` started, also after a crash."),
    "status": ("serving.cli.status:status", "Processes, addresses and sandbox of this machine's stack."),
    "env": ("serving.cli.status:env", "Print shell lines that point kubectl at the stack."),
    "doctor": ("serving.cli.doctor:doctor", "Check what this machine can do, and say how to enable the rest."),
    "deploy": ("serving.cli.deploy:deploy", "Create or update a Service and wait until it is Ready."),
    "list": ("serving.cli.services:list_services", "List Services."),
    "describe": ("serving.cli.services:describe", "Show a Service with its revisions, pods and conditions."),
    "logs": ("serving.cli.services:logs", "Print the logs of a Service's pods."),
    "top": ("serving.cli.top:top", "Live view of revisions: replicas, concurrency, held requests."),
    "delete": ("serving.cli.services:delete", "Delete a Service."),
    "user": ("serving.cli.user:user_group", "Add, list and remove users of this machine's stack."),
    "image": ("serving.cli.image:image_group", "Import, build, list and remove images of the local store."),
    "plan": ("serving.cli.plan:plan", "Find the cheapest plan that keeps a cold-start SLA, from a log."),
    "catalog": ("serving.cli.plan:catalog", "List what pods can run on, and its price."),
    "demo": ("serving.cli.demo:demo", "Deploy a hello service and watch it wake from zero and scale."),
    "apiserver": ("serving.cli.processes:apiserver", "Process: the embedded API server."),
    "webhook": ("serving.cli.processes:webhook", "Process: defaulting and validating admission."),
    "controller": ("serving.cli.processes:controller", "Process: reconcilers, autoscaler and pool."),
    "gateway": ("serving.cli.processes:gateway", "Process: gateway agent and its Envoy."),
    "node": ("serving.cli.processes:node", "Process: the node agent of the local pool."),
}


class LazyGroup(click.Group):
    """A group whose commands are `module:attribute` strings, loaded on use. Help comes from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, attribute = target[0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_text) for name, (_, help_text) in _COMMANDS.items()])


class Globals:
    """Options that every command sees as `ctx.obj`."""

    def __init__(self, *, data_dir: Path, output: str, kubeconfig: Path | None) -> None:
        self.data_dir = data_dir
        self.output = output
        self.kubeconfig = kubeconfig


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data_dir,
    show_default="$NODELESS_DATA_DIR or the XDG data directory",
    help="State of this machine's stack.",
)
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", help="How to print results.")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Talk to this cluster instead of the local stack.",
)
@click.version_option(package_name="nodeless-serving")
@click.pass_context
def cli(ctx: click.Context, data_dir: Path, output: str, kubeconfig: Path | None) -> None:
    """Knative-compatible, scale-to-zero HTTP serving for serverless pods."""
    ctx.obj = Globals(data_dir=data_dir.expanduser().absolute(), output=output, kubeconfig=kubeconfig)


def main() -> None:
    cli(prog_name="nodeless")


if __name__ == "__main__":
    main()
