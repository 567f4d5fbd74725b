"""What users do with streams through kubectl: exec, cp, attach, run -it, port-forward and logs.

The same for every API server; `websockets` false makes kubectl speak SPDY, as all did before 1.31.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import yaml

TOOLBOX: Final = "dev.local/toolbox:latest"
WEB: Final = "dev.local/hello-static:latest"
SECONDS: Final = 60.0
_FORWARDING: Final = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) -> ")


def pod(name: str, node: str, script: str, *, image: str = TOOLBOX, **container: Any) -> dict[str, Any]:
    """Bound to a node by ourselves: there is no scheduler."""
    command = {"command": ["sh", "-c", script]} if script else {}
    main = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", **command, **container}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [main],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


class Streams:
    """One kubectl; everything here blocks."""

    def __init__(self, command: Sequence[str], *, websockets: bool) -> None:
        self._command = list(command)
        value = "true" if websockets else "false"
        self._environment = os.environ | {
            "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": value,
            "KUBECTL_PORT_FORWARD_WEBSOCKETS": value,
        }

    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._command, *arguments],
            input=stdin,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env=self._environment,
        )

    def ok(self, *arguments: str, stdin: bytes = b"") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def start_pod(self, body: dict[str, Any], *, until: str = "condition=Ready") -> str:
        self.ok("apply", "-f", "-", stdin=yaml.safe_dump(body).encode())
        name: str = body["metadata"]["name"]
        self.ok("wait", f"--for={until}", f"pod/{name}", "--timeout=40s")
        return name

    def delete(self, name: str) -> None:
        self.ok("delete", "pod", name, "--ignore-not-found", "--now")

    @contextlib.contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(
            [*self._command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextlib.contextmanager
    def forwarded(self, name: str, port: int) -> Iterator[int]:
        """The local port."""
        with self.started("port-forward", f"pod/{name}", f":{port}") as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = _FORWARDING.match(line)
            assert found, line + process.stdout.read()
            yield int(found[1])

    def in_terminal(self, *arguments: str, script: Sequence[tuple[bytes, bytes]]) -> tuple[int, bytes]:
        """kubectl in a terminal of 100 x 30; `script`: for each text that appears after the one before, what is
        typed. Enter is pressed while nothing happens. Its exit code and everything that appeared."""
        pid, master = pty.fork()
        if pid == 0:
            os.execvpe(self._command[0], [*self._command, *arguments], self._environment)
        try:
            subprocess.run(["stty", "rows", "30", "cols", "100"], stdin=master, check=True)
            seen, at, steps = b"", 0, list(script)
            deadline = time.monotonic() + SECONDS
            while True:
                assert time.monotonic() < deadline, seen
                if not select.select([master], [], [], 1.0)[0]:
                    os.write(master, b"\r")
                    continue
                try:
                    data = os.read(master, 4096)
                except OSError:  # it has ended
                    break
                if not data:
                    break
                seen += data
                while steps and (found := seen.find(steps[0][0], at)) >= 0:
                    text, typed = steps.pop(0)
                    at = found + len(text)
                    os.write(master, typed)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen
        finally:
            os.close(master)


def check_exec(kubectl: Streams, box: str) -> None:
    done = kubectl.run("exec", box, "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout) == (3, b"out\n")
    assert done.stderr == b"err\ncommand terminated with exit code 3\n"
    numbers = b"".join(b"%d\n" % number for number in range(200_000))
    summed = kubectl.ok("exec", "-i", box, "--", "sha256sum", stdin=numbers)
    assert summed.split()[0] == sha256(numbers).hexdigest()
    assert kubectl.ok("exec", box, "--", "seq", "0", "199999").encode() == numbers
    first = kubectl.run("exec", "-i", box, "--", "head", "-1", stdin=numbers)
    assert (first.returncode, first.stdout) == (0, b"0\n"), "a program need not read all of its input"
    missing = kubectl.run("exec", box, "--", "nothing")
    assert missing.returncode == 1
    assert b'error executing command in container: exec: "nothing": executable file not found' in missing.stderr
    nowhere = kubectl.run("exec", box, "-c", "other", "--", "ls")
    assert nowhere.returncode == 1
    assert b"container other is not valid for pod" in nowhere.stderr


def check_terminal(kubectl: Streams, box: str) -> None:
    code, seen = kubectl.in_terminal(
        "exec",
        "-it",
        box,
        "--",
        "sh",
        script=(
            (b"# ", b"stty size; tty\r"),
            (b"/dev/pts/", b""),
            (b"# ", b"cat\r"),
            (b"cat\r\n", b"\x03"),
            (b"# ", b"exit 4\r"),
        ),
    )
    text = seen.decode().replace("\r", "")
    assert code == 4, text
    assert "30 100" in text, "the size of the user's terminal is the program's"


def check_copy(kubectl: Streams, box: str, directory: Path) -> None:
    there, back = directory / "there", directory / "back"
    (there / "sub").mkdir(parents=True)
    (there / "small").write_text("data\n")
    (there / "sub" / "large").write_bytes(os.urandom(2_000_000))
    remote = f"/tmp/{directory.name}"
    kubectl.ok("exec", box, "--", "mkdir", "-p", remote)
    kubectl.ok("cp", str(there), f"{box}:{remote}/files")
    assert kubectl.ok("exec", box, "--", "cat", f"{remote}/files/small") == "data\n"
    kubectl.ok("cp", f"{box}:{remote}/files", str(back))
    for name in ("small", "sub/large"):
        assert (back / name).read_bytes() == (there / name).read_bytes()


def check_attach(kubectl: Streams, node: str, name: str) -> None:
    """Output from now on; input to the end, which with `stdinOnce` is the container's."""
    body = pod(name, node, "cat; echo at end", stdin=True, stdinOnce=True)
    body["spec"]["restartPolicy"] = "Never"
    kubectl.start_pod(body)
    try:
        done = kubectl.run("attach", "-i", name, stdin=b"one\ntwo\n")
        assert done.returncode == 0, done.stderr
        assert done.stdout == b"one\ntwo\nat end\n"
        kubectl.ok("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}", "--timeout=20s")
        assert kubectl.ok("logs", name) == "one\ntwo\nat end\n"
    finally:
        kubectl.delete(name)


def check_run_in_terminal(kubectl: Streams, node: str, name: str) -> None:
    overrides = f'{{"spec": {{"nodeName": "{node}", "terminationGracePeriodSeconds": 1}}}}'
    try:
        code, seen = kubectl.in_terminal(
            *(
                "run",
                name,
                "-it",
                "--rm",
                "--restart=Never",
                f"--image={TOOLBOX}",
                "--image-pull-policy=IfNotPresent",
            ),
            *(f"--overrides={overrides}", "--override-type=strategic"),
            script=((b"# ", b"tty\r"), (b"/dev/pts/", b"exit 6\r")),
        )
    finally:
        kubectl.delete(name)
    assert code == 6, seen


def check_port_forward(kubectl: Streams, node: str, name: str) -> None:
    """Also a server of many connections, and a port that nobody listens on."""
    body = pod(name, node, "", image=WEB, env=[{"name": "PORT", "value": "8080"}])
    body["spec"]["containers"][0]["ports"] = [{"containerPort": 8080}]
    kubectl.start_pod(body)
    try:
        with kubectl.forwarded(name, 8080) as port:
            for _ in range(20):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=SECONDS) as answer:
                    assert answer.read() == b"Hello World!\n"
        with kubectl.started("port-forward", f"pod/{name}", ":9999") as process:
            assert process.stdout is not None
            found = _FORWARDING.match(process.stdout.readline())
            assert found
            with socket.create_connection(("127.0.0.1", int(found[1])), timeout=SECONDS) as client:
                assert client.recv(1) == b""
            said = process.stdout.read()
            assert b"failed to connect to localhost:9999 inside the pod: connection refused" in said
    finally:
        kubectl.delete(name)


def check_logs(kubectl: Streams, node: str, name: str) -> None:
    body = pod(name, node, "seq 1 5; echo err >&2; sleep 1000")
    main = body["spec"]["containers"][0]
    again = "if test -e /data/ran; then sleep 1000; fi; echo first > /data/ran; cat /data/ran; exit 1"
    mounts = [{"name": "data", "mountPath": "/data"}]
    body["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    body["spec"]["containers"] = [
        main,
        {**main, "name": "second", "command": ["sh", "-c", again], "volumeMounts": mounts},
    ]
    body["spec"]["initContainers"] = [{**main, "name": "init", "command": ["sh", "-c", "echo from init"]}]
    kubectl.start_pod(body)
    try:
        both = ["1", "2", "3", "4", "5"]
        assert sorted(kubectl.ok("logs", name, "-c", "main").split()) == [*both, "err"]
        assert kubectl.ok("logs", name, "-c", "main", "--tail=1").count("\n") == 1
        assert kubectl.ok("logs", name, "-c", "main", "--limit-bytes=3") == "1\n2"
        stamped = kubectl.ok("logs", name, "-c", "main", "--timestamps").splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line) for line in stamped)
        assert kubectl.ok("logs", name, "-c", "main", "--since-time=2999-01-01T00:00:00Z") == ""
        assert kubectl.ok("logs", name, "-c", "main", "--since=1h").count("\n") == 6
        assert kubectl.ok("logs", name, "-c", "second", "--previous") == "first\n"
        every = kubectl.ok("logs", name, "--all-containers", "--prefix")
        assert f"[pod/{name}/init] from init" in every
        assert f"[pod/{name}/main] 5" in every
        refused = kubectl.run("logs", name, "-c", "main", "--previous")
        assert refused.returncode == 1
        assert b'previous terminated container "main" in pod' in refused.stderr
        with kubectl.started("logs", "-f", name, "-c", "main", "--tail=1") as following:
            assert following.stdout is not None
            assert following.stdout.readline().strip() in (b"5", b"err")
            kubectl.delete(name)
            assert following.stdout.read() == b""
            assert following.wait(SECONDS) == 0
    finally:
        kubectl.delete(name)
