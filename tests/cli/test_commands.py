"""The command line as a whole: help, completion, generated pages, and errors of one line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from serving.cli.main import _COMMANDS, cli

DOCS = Path(__file__).parents[2] / "docs"


def walk(group: click.Group, path: str = "nodeless") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from walk(command, f"{path} {name}")


EVERY = dict(walk(cli))


def run(*arguments: str, data_dir: Path) -> Result:
    return CliRunner().invoke(cli, ["--data-dir", str(data_dir), *arguments])


@pytest.mark.parametrize("path", EVERY)
def test_help_is_complete(path: str) -> None:
    command = EVERY[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{path} {parameter.opts}"
    shown = CliRunner().invoke(cli, [*path.split()[1:], "--help"])
    assert shown.exit_code == 0
    assert command.help.split("\n")[0][:20] in shown.output


def test_the_list_of_commands_has_each_with_a_line() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    for name, (_, line) in _COMMANDS.items():
        assert f"  {name} " in shown
        assert line.split()[0] in shown


def test_servers_do_not_load_the_terminal_library() -> None:
    code = "import sys, serving.cli.main, serving.cli.processes; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("nodeless ", {"up", "deploy", "doctor", "top"}),
        ("nodeless d", {"down", "doctor", "deploy", "describe", "delete", "demo"}),
        ("nodeless image ", {"import", "build", "list", "rm"}),
        ("nodeless up --sandbox ", {"auto", "namespace", "process"}),
        ("nodeless deploy --conc", {"--concurrency", "--concurrency-target"}),
    ],
)
def test_shell_completion(words: str, expected: set[str]) -> None:
    environment = os.environ | {
        "_NODELESS_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    program = "from serving.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    offered = {line.split(",", 1)[1] for line in done.stdout.splitlines()}
    assert expected <= offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    environment = os.environ | {"_NODELESS_COMPLETE": f"{shell}_source"}
    program = "from serving.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    if shell == "bash" and "bash" in done.stderr.lower():
        pytest.skip(f"no usable bash here: {done.stderr.strip()}")
    assert "_NODELESS_COMPLETE" in done.stdout


@pytest.mark.parametrize("script", ["generate_cli", "generate_configuration"])
def test_generated_page_is_current(script: str) -> None:
    spec = importlib.util.spec_from_file_location(script, DOCS / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), f"stale: run `python docs/{script}.py`"


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["status"], ["env"], ["top"], ["describe", "x"], ["logs", "x"], ["delete", "x"],
     ["deploy", "x", "--image", "i"]],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_nothing_runs(arguments: list[str], tmp_path: Path) -> None:
    result = run(*arguments, data_dir=tmp_path / "none")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = result.output.splitlines()
    assert line.startswith(f"Error: nothing runs on {tmp_path / 'none'}; start it with `nodeless up`")
    assert not (tmp_path / "none").exists()


def test_down_where_nothing_was(tmp_path: Path) -> None:
    result = run("down", data_dir=tmp_path / "none")
    assert result.exit_code == 1
    assert "nothing is known about" in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["deploy", "x"], "Missing option '--image'"),
        (["deploy", "x", "--image", "i", "--env", "A"], "'A': must be NAME=VALUE"),
        (["deploy", "x", "--image", "i", "--port", "0"], "0 is not in the range 1<=x<=65535"),
        (["up", "--sandbox", "vm"], "'vm' is not one of 'auto', 'namespace', 'process'"),
        (["up", "--port", "70000"], "70000 is not in the range"),
        (["image", "build"], "give either DIRECTORY or --example"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use(arguments: list[str], text: str, tmp_path: Path) -> None:
    result = run(*arguments, data_dir=tmp_path / "none")
    assert result.exit_code == 2
    assert text in result.output
    assert not (tmp_path / "none").exists()


def test_a_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("up", data_dir=tmp_path / "file" / "below")
    assert result.exit_code == 1
    assert "give --data-dir" in result.output


def test_images_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["--data-dir", str(tmp_path), "-o", "json", "image", "list"])
    assert result.exit_code == 0
    assert json.loads(result.output) == []
