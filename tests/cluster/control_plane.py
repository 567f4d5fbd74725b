"""etcd, kube-apiserver and kube-controller-manager on loopback: TLS, bearer tokens, RBAC, a directory of its own.

There is no scheduler and no kubelet: nodeless places its own pods, and its node agent registers as a node.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import random
import secrets
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.pki import Authority

START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 15.0
ADMIN: Final = "admin"
SERVICE_CIDR: Final = "10.96.0.0/16"
_CONTROLLER_MANAGER: Final = "system:kube-controller-manager"
_TRIES: Final = 5
_PORTS: Final = range(10_000, 30_000)
"""Below the ephemeral ports, which any client may take at any time, and below the node ports of Services."""
_PR_SET_PDEATHSIG: Final = 1


class ControlPlane:
    """One control plane in one directory. `start`, then `stop`; both may be called once."""

    def __init__(self, *, assets: Path, directory: Path) -> None:
        self.directory = directory
        self.assets = assets
        self.url = ""
        self.tokens = {ADMIN: secrets.token_hex(16), _CONTROLLER_MANAGER: secrets.token_hex(16)}
        self.restarts: list[tuple[float, float]] = []
        """Begin and end of each start of the API server but the first, Unix seconds."""
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._etcd = ""
        directory.mkdir(parents=True, exist_ok=True)
        self.logs = directory / "logs"
        self.logs.mkdir(exist_ok=True)
        self.authority = Authority(directory / "pki")

    # life

    def start(self) -> None:
        """Return when the API server is ready and hands out service accounts. Raises AssertionError with logs."""
        self._write_credentials()
        try:
            self._start_on_free_ports("etcd", self._etcd_command, self._etcd_ready)
            self._start_on_free_ports("kube-apiserver", self._first_apiserver_command, self._apiserver_ready)
            self._write_kubeconfig(self.kubeconfig, ADMIN)
            self._write_kubeconfig(self.directory / "controller-manager.kubeconfig", _CONTROLLER_MANAGER)
            process = self._spawn("kube-controller-manager", self._controller_manager_command())
            self._wait("kube-controller-manager", process, self._service_accounts_work)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes, the last one started first."""
        while self._processes:
            name, process = self._processes.pop()
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
                raise AssertionError(f"{name} did not end in {STOP_SECONDS:g} s\n{self.log_tail(name)}") from None

    def stop_api_server(self) -> None:
        """Kill kube-apiserver; its address is refused until `start_api_server`."""
        (process,) = (process for name, process in self._processes if name == "kube-apiserver")
        process.kill()
        process.wait(STOP_SECONDS)

    def start_api_server(self) -> None:
        """Run it again where it was. Until it is ready it refuses what it will grant: it knows no roles yet."""
        began = time.time()
        index = [name for name, _ in self._processes].index("kube-apiserver")
        process = self._spawn("kube-apiserver", self._apiserver_command())
        self._processes[index] = self._processes.pop()
        self._wait("kube-apiserver", process, self._apiserver_ready)
        self.restarts.append((began, time.time()))

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator."""
        return self.directory / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """One JSON line for each request of nodeless' service accounts."""
        return self.logs / "audit.log"

    def write_kubeconfig(self, path: Path, *, user: str, credentials: dict[str, str]) -> Path:
        """A kubeconfig with e.g. `{"token": ...}`; `user` is only its name there."""
        authority = self.authority.certificate.read_text()
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": self.url, "certificate-authority-data": _base64(authority)},
                }
            ],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
            "current-context": "test",
        }
        path.touch(0o600)
        path.write_text(yaml.safe_dump(body))
        return path

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Any:
        """One request as the administrator; again when the server asks for that. Raises urllib's HTTPError."""
        headers = {
            "Authorization": f"Bearer {self.tokens[ADMIN]}",
            "Content-Type": content_type,
            "Accept": accept,
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        try:
            with urllib.request.urlopen(request, timeout=10, context=context) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.TOO_MANY_REQUESTS:
                raise
            # E.g. the storage of a new kind is being made.
            time.sleep(float(error.headers["Retry-After"]))
            return self.request(method, path, body, content_type=content_type, accept=accept)
        try:
            return json.loads(text)
        except ValueError:
            return text.decode()

    def log_tail(self, name: str, lines: int = 15) -> str:
        log = (self.logs / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join([f"--- {name}.log", *log[-lines:]])

    # processes

    def _start_on_free_ports(self, name: str, command: Any, ready: Any) -> None:
        """A port that was free may be taken a moment later; then the process says so and ends."""
        for _ in range(_TRIES - 1):
            process = self._spawn(name, command())
            try:
                self._wait(name, process, ready)
            except AssertionError:
                if "address already in use" not in (self.logs / f"{name}.log").read_text():
                    raise
                self._processes.pop()
            else:
                return
        self._wait(name, self._spawn(name, command()), ready)

    def _spawn(self, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self.assets / name), *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
                start_new_session=True,
            )
        self._processes.append((name, process))
        return process

    def _wait(self, name: str, process: subprocess.Popen[bytes], ready: Any) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None:
                raise AssertionError(f"{name} ended with {process.returncode}\n{self.log_tail(name)}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} was not ready in {START_SECONDS:g} s\n{self.log_tail(name)}")
            time.sleep(0.05)

    def _etcd_command(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{port}" for port in _free_ports(2))
        self._etcd = client
        return [
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _etcd_ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self._etcd}/readyz", timeout=5) as response:
            return bool(response.status == 200)
        return False

    def _first_apiserver_command(self) -> list[str]:
        self.url = f"https://127.0.0.1:{_free_ports(1)[0]}"
        return self._apiserver_command()

    def _apiserver_command(self) -> list[str]:
        port = self.url.rpartition(":")[2]
        pki = self.authority.directory
        return [
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # it would refuse its own loopback address again and again
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--etcd-servers={self._etcd}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--client-ca-file={self.authority.certificate}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'service-accounts.key'}",
            f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
            f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP,Hostname",
            "--allow-privileged=true",
            f"--audit-policy-file={self.directory / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
        ]

    def _apiserver_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.request("GET", "/readyz") == "ok")
        return False

    def _controller_manager_command(self) -> list[str]:
        pki = self.authority.directory
        kubeconfig = self.directory / "controller-manager.kubeconfig"
        return [
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={pki / 'service-accounts.key'}",
            f"--root-ca-file={self.authority.certificate}",
            f"--cluster-signing-cert-file={pki / 'ca.crt'}",
            f"--cluster-signing-key-file={pki / 'ca.key'}",
        ]

    def _service_accounts_work(self) -> bool:
        with contextlib.suppress(urllib.error.HTTPError):
            self.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")
            return True
        return False

    # credentials

    def _write_credentials(self) -> None:
        hosts = ("127.0.0.1", "localhost", "kubernetes.default.svc", "10.96.0.1")
        self.authority.issue("apiserver", user="kube-apiserver", hosts=hosts)
        self.authority.issue("kubelet-client", user="kube-apiserver-kubelet-client", group="system:masters")
        self.authority.signing_key("service-accounts")
        tokens = self.directory / "tokens.csv"
        tokens.touch(0o600)
        tokens.write_text(
            f'{self.tokens[ADMIN]},{ADMIN},{ADMIN},"system:masters"\n'
            f"{self.tokens[_CONTROLLER_MANAGER]},{_CONTROLLER_MANAGER},{_CONTROLLER_MANAGER}\n"
        )

        rules = [
            {"level": "Metadata", "userGroups": ["system:serviceaccounts:knative-serving"]},
            {"level": "None"},
        ]
        policy = {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "rules": rules,
        }
        (self.directory / "audit-policy.yaml").write_text(yaml.safe_dump(policy))

    def _write_kubeconfig(self, path: Path, user: str) -> None:
        self.write_kubeconfig(path, user=user, credentials={"token": self.tokens[user]})


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def end_with_parent() -> None:
    """For a child between fork and exec: a test run that is killed must leave nothing behind, and a child must
    hear the signals that its parent waits for."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
