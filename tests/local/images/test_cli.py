"""`nodeless image` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serving.cli.main import cli

from .kit import FakeImage, directory, entry, tar, write_docker_archive, write_layout

LAYER = tar([directory("bin"), entry("bin/run", b"x", mode=0o755)])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/file").write_text("x")
    return tmp_path


def nodeless(home: Path, *arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, ["--data-dir", str(home / "data"), *arguments], input=stdin)


def test_build_list_and_remove(home: Path) -> None:
    built = nodeless(home, "image", "build", str(home / "app"), "-t", "app", "--entrypoint", "/file 'a b'")
    assert built.exit_code == 0, built.output
    assert built.output.startswith("index.docker.io/library/app:latest  sha256:")
    listed = nodeless(home, "image", "list")
    assert listed.output.splitlines()[0].split() == ["NAME", "DIGEST", "ORIGIN", "SIZE", "UNPACKED", "SINCE"]
    assert listed.output.splitlines()[1].startswith("app:latest ")
    (found,) = json.loads(nodeless(home, "-o", "json", "image", "list").output)
    assert (found["name"], found["origin"]) == ("index.docker.io/library/app:latest", "built")
    assert nodeless(home, "image", "rm", "app").output == "removed app\n"
    assert nodeless(home, "image", "list").output.startswith("no images; make one with ")


def test_import_finds_out_what_a_path_is(home: Path) -> None:
    layout = write_layout(home / "layout", {"v1": FakeImage([LAYER])})
    archive = write_docker_archive(home / "image.tar", [LAYER], ["hello:v1"])
    for name, source in (("one", layout), ("two", archive), ("three", home / "app"), ("four", f"oci:{layout}:v1")):
        imported = nodeless(home, "-o", "json", "image", "import", str(source), "-t", name)
        assert imported.exit_code == 0, imported.output
        assert json.loads(imported.output)["origin"] == "imported"
    names = [image["name"] for image in json.loads(nodeless(home, "-o", "json", "image", "list").output)]
    assert [name for name in names if name.startswith("index")] == [
        f"index.docker.io/library/{name}:latest" for name in ("four", "one", "three", "two")
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["import", "No Such"], "Error: could not parse reference: No Such; a reference is like hello,"),
        (["import", "/nowhere/x", "-t", "app"], "nowhere/x: No such file or directory"),
        (["import", "dir:/tmp"], "a name for the image is needed (-t NAME)"),
        (["import", "hello", "--username", "ann"], "--username and --password-stdin go together"),
        (["build"], "give either DIRECTORY or --example"),
        (["build", "{home}/app"], "the image needs a name: -t NAME"),
        (["build", "{home}/nope", "-t", "app"], "nope' does not exist"),
        (["build", "{home}/app", "-t", "app", "--env", "novalue"], "'novalue' is not NAME=VALUE"),
        (["build", "{home}/app", "-t", "app", "--cmd", "'open"], "No closing quotation"),
        (["build", "{home}/app", "-t", "app", "--port", "0"], "0 is not in the range"),
        (["rm", "absent"], "Error: absent is not in the image store"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_with_the_fix(home: Path, arguments: list[str], problem: str) -> None:
    result = nodeless(home, "image", *(argument.format(home=home) for argument in arguments))
    assert result.exit_code != 0
    assert problem in result.output
    assert "Traceback" not in result.output


def test_every_command_explains_itself(home: Path) -> None:
    for command in ("import", "build", "list", "rm"):
        result = nodeless(home, "image", command, "--help")
        assert result.exit_code == 0
        assert "Usage: " in result.output
