"""Commands on Services, against an API server whose objects go away while they are looked at."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.cli.main import cli

_PODS = "/api/v1/namespaces/default/pods"
_STATUS = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


class _Server(BaseHTTPRequestHandler):
    """Two pods are listed, and one of them is gone when its log is asked for."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == _PODS:
            items = [{"metadata": {"name": name, "namespace": "default"}} for name in ("gone", "there")]
            self._answer(200, json.dumps({"kind": "PodList", "apiVersion": "v1", "items": items}))
        elif path == f"{_PODS}/there/log":
            self._answer(200, "hello\n")
        else:
            self._answer(404, json.dumps(_STATUS | {"message": 'pods "gone" not found'}))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Tests are quiet."""


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop() -> None:
    """A command has its loop to itself; reading the kubeconfig there holds nobody up."""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        path = tmp_path / "kubeconfig"
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        users = [{"name": "u", "user": {"token": "t"}}]
        body = {"clusters": [cluster], "users": users, "contexts": [context], "current-context": "c"}
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **body}))
        yield path
        server.shutdown()
        thread.join()


def test_logs_of_a_pod_that_has_just_gone(kubeconfig: Path) -> None:
    shown = CliRunner().invoke(cli, ["--kubeconfig", str(kubeconfig), "logs", "hello"])
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == "there  hello\n"
    assert shown.stderr == "gone is gone\n"
