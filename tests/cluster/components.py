"""nodeless' processes, out of cluster on a real control plane, each with the token of its own service account.

A missing grant therefore shows, and so does whatever only the embedded API server would have let pass.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from serving.local.supervisor import READY_FD_VARIABLE
from tests.cluster.control_plane import ControlPlane, end_with_parent
from tests.cluster.install import service_account_files, service_account_kubeconfig, set_domain

START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 30.0
NODELESS: Final = (sys.executable, "-m", "serving.cli.main")
NODE: Final = "machine"
SERVICE_ACCOUNT_FILES: Final = Path("/run/secrets/kubernetes.io/serviceaccount")


class Components:
    """Processes by name. What `start` starts, `stop` ends, the last one first."""

    def __init__(self, control_plane: ControlPlane, directory: Path) -> None:
        self.control_plane = control_plane
        self.directory = directory
        self.facts: dict[str, dict[str, Any]] = {}
        """What each process said when it was ready, e.g. its ports."""
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def start_all(self, *, domain: str, sandbox: str = "auto", gateway_port: int = 0) -> None:
        """Webhook, controller, gateway and a node agent, all on one data directory as on one machine."""
        self.start("webhook", "--port", "0", "--register")
        set_domain(self.control_plane, domain)  # which the webhook checks
        self.start_controller()
        ports = ("--port", str(gateway_port), "--local-port", "0")
        api = self.control_plane.url.removeprefix("https://")
        self.start("gateway", "--name", "test", *ports, "--node", NODE, "--pod-api", api)
        self.start("node", "--name", NODE, "--sandbox", sandbox, "--stop-pods")

    def start_controller(self) -> None:
        images = self.data_dir / "images"
        listen = f"unix:{self.directory / 'reports'}"
        self.start("controller", "--listen", listen, "--identity", "test", "--images", str(images))

    def start(
        self,
        name: str,
        *options: str,
        account: str = "",
        command: str = "",
        in_pod: bool = False,
        stands_by: bool = False,
    ) -> None:
        """Run `nodeless NAME` with the service account's kubeconfig until it is ready. `account` and `command`:
        those of another name, for a second replica. `in_pod`: without a kubeconfig, with the files and variables
        that a pod has (needs root). `stands_by`: it is not going to be ready."""
        base = [*NODELESS, "--data-dir", str(self.data_dir)]
        environment: dict[str, str] = {}
        if in_pod:
            files = service_account_files(self.control_plane, account or name)
            base = [*_with_files(files, SERVICE_ACCOUNT_FILES), *base]
            host, port = self.control_plane.url.removeprefix("https://").split(":")
            environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        else:
            base += ["--kubeconfig", str(service_account_kubeconfig(self.control_plane, account or name))]
        reader, writer = os.pipe()
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [*base, command or name, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writer],
                env={**os.environ, **environment, READY_FD_VARIABLE: str(writer)},
                preexec_fn=end_with_parent,
                start_new_session=True,
            )
        os.close(writer)
        if stands_by:
            os.close(reader)
            return
        with os.fdopen(reader, "rb", 0) as pipe, selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            line = pipe.readline() if selector.select(START_SECONDS) else b""
        if not line:
            raise AssertionError(f"{name} was not ready in {START_SECONDS:g} s, or ended\n{self.log_tail(name)}")
        self.facts[name] = json.loads(line)

    def stop(self, *names: str) -> None:
        """End these, or all."""
        for name in names or list(reversed(self._running)):
            process = self._running.pop(name)
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
                raise AssertionError(f"{name} did not end in time\n{self.log_tail(name)}") from None

    def close(self) -> None:
        """Stop all, and remove what only an orderly stop of the whole stack removes."""
        self.stop()
        if self.data_dir.exists():
            self.cli("down")

    def kill(self, name: str) -> None:
        """End it without a chance to clean up."""
        process = self._running.pop(name)
        process.kill()
        process.wait(STOP_SECONDS)

    def cli(self, *arguments: str) -> str:
        """A `nodeless` command on the node agent's data directory, e.g. `image build`. Returns stdout."""
        done = subprocess.run(
            [*NODELESS, "--data-dir", str(self.data_dir), *arguments],
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    @property
    def url(self) -> str:
        """Where the gateway's public entrance listens."""
        return f"http://127.0.0.1:{self.facts['gateway']['port']}"

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def log_tail(self, name: str = "", lines: int = 25) -> str:
        """The end of one log, or of all."""
        names = [name] if name else list(self.facts)
        return "\n".join(
            "\n".join([f"--- {one}.log", *self.log(one).read_text(errors="replace").splitlines()[-lines:]])
            for one in names
        )


def _with_files(source: Path, target: Path) -> list[str]:
    """What to put before a command that shall see the files of `source` in `target`, which is below /run."""
    script = 'mount -t tmpfs none /run && mkdir -p "$2" && cp "$1"/* "$2" && shift 2 && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", str(source), str(target)]
