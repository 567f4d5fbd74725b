"""`nodeless user`, on a data directory of its own."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from serving.cli.main import cli
from serving.local.apiserver.access import users
from serving.local.layout import open_layout


def run(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--data-dir", str(directory), *arguments])


def test_a_user_is_added_listed_and_removed(tmp_path: Path) -> None:
    added = json.loads(run(tmp_path, "-o", "json", "user", "add", "alice", "--group", "devs").output)
    path = Path(added["kubeconfig"])
    assert path.stat().st_mode & 0o777 == 0o600
    config = json.loads(path.read_text())
    assert config["users"] == [{"name": "alice", "user": {"token": added["token"]}}]
    stored = users.load(tmp_path)["alice"]
    assert (stored.groups, stored.sha256) == (("devs",), users.digest(added["token"]))
    assert "alice" in run(tmp_path, "user", "list").output
    assert json.loads(run(tmp_path, "-o", "json", "user", "list").output)[0]["groups"] == ["devs"]
    assert run(tmp_path, "user", "remove", "alice").exit_code == 0
    assert not path.exists()
    assert users.load(tmp_path) == {}


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    for arguments, text in [
        (("add", "a b"), "user name 'a b'"),
        (("add", "a", "--group", "system:x"), "server's own"),
        (("remove", "nobody"), "no user 'nobody'"),
    ]:
        result = run(tmp_path, "user", *arguments)
        assert result.exit_code == 1
        assert text in result.output


def test_env_points_a_user_at_the_server_as_it_listens_now(tmp_path: Path) -> None:
    run(tmp_path, "user", "add", "alice")
    layout = open_layout(tmp_path)
    clusters = [{"name": "nodeless", "cluster": {"server": "https://127.0.0.1:1"}}]
    layout.kubeconfig.write_text(json.dumps({"clusters": clusters}))
    layout.token.write_text("x")
    layout.api_socket.touch()
    result = run(tmp_path, "-o", "json", "env", "--user", "alice")
    path = Path(json.loads(result.output)["KUBECONFIG"])
    assert json.loads(path.read_text())["clusters"] == clusters
    assert "nodeless user add bob" in run(tmp_path, "env", "--user", "bob").output
    layout.api_socket.unlink()
    layout.run_dir.rmdir()
