"""What a container sees of the runtime contract, told over HTTP. Runs inside pods with Python's library only.

GET /runtime            what there is: environment, user, files, mounts, limits
GET /request            the request as it arrived
GET /fetch?url=         what another server answers, seen from here
GET /resolve?name=      addresses of a name
GET /wait?before=&after=&parts=  seconds before the first byte and between parts
GET /bloat?mb=          memory held while answering
GET /write?path=&mb=    write a file; what happened
GET /exit?code=         end the process
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import socketserver
import stat
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

FILES = (
    "/dev/fd", "/dev/full", "/dev/null", "/dev/ptmx", "/dev/random", "/dev/stdin", "/dev/stdout", "/dev/stderr",
    "/dev/tty", "/dev/urandom", "/dev/zero", "/dev/console", "/dev/shm", "/proc/self/fd", "/proc/self/fd/0",
    "/proc/self/fd/1", "/proc/self/fd/2", "/tmp", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname",
)  # fmt: skip
CGROUPS = {
    "memory": ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"),
    "quota": ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu.max"),
    "period": ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "/sys/fs/cgroup/cpu.max"),
    "shares": ("/sys/fs/cgroup/cpu/cpu.shares", "/sys/fs/cgroup/cpu.weight"),
}


def described(path: str) -> dict[str, str]:
    try:
        status = os.lstat(path)
    except OSError as error:
        return {"error": str(error.strerror)}
    link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    try:
        mode = stat.filemode(os.stat(path).st_mode)
    except OSError as error:
        mode = str(error.strerror)
    return {"mode": mode, "link": link}


def attempt(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except OSError as error:
        return {"error": str(error.strerror)}


def text(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def first(paths: Iterable[str]) -> Any:
    for path in paths:
        if os.path.exists(path):
            return {"path": path, "value": text(path), "write": attempt(lambda: write(path, 0))}  # noqa: B023
    return {"error": "missing"}


def status_lines(*names: str) -> dict[str, str]:
    rows = dict(line.split(":", 1) for line in text("/proc/self/status").splitlines())
    return {name: rows[name].strip() for name in names}


def runtime() -> dict[str, Any]:
    return {
        "env": dict(os.environ),
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "ids": [os.getresuid(), os.getresgid(), sorted(os.getgroups())],
        "files": {path: described(path) for path in FILES},
        "stdin": STDIN,
        "mounts": [line.split()[4:6] for line in text("/proc/self/mountinfo").splitlines()],
        "cgroups": {name: first(paths) for name, paths in CGROUPS.items()},
        "sysctl": attempt(lambda: open("/proc/sys/kernel/hostname", "w").write("x")),
        "status": status_lines("NoNewPrivs", "Seccomp", "CapEff", "CapBnd"),
        "hostname": socket.gethostname(),
        "hosts": text("/etc/hosts"),
        "resolv": text("/etc/resolv.conf"),
        "pid": os.getpid(),
    }


def fetch(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(url, timeout=15) as answer:
            return {"status": answer.status, "body": answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode()}
    except OSError as error:
        return {"error": str(error)}


def write(path: str, megabytes: int) -> dict[str, int]:
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    return {"written": megabytes}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/wait":
            self.wait(float(asked.get("before", 0)), float(asked.get("after", 0)), int(asked.get("parts", 2)))
            return
        if url.path == "/exit":
            os._exit(int(asked["code"]))
        handlers: dict[str, Callable[[], Any]] = {
            "/runtime": runtime,
            "/request": self.request_seen,
            "/fetch": lambda: fetch(asked["url"]),
            "/resolve": lambda: attempt(lambda: socket.gethostbyname_ex(asked["name"])[2]),
            "/write": lambda: attempt(lambda: write(asked["path"], int(asked.get("mb", 1)))),
            "/bloat": lambda: {"held": len(b"x" * (int(asked["mb"]) << 20))},
        }
        answer = handlers.get(url.path, lambda: {"hello": SERVICE})()
        self.reply(200, json.dumps(answer).encode())

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", 0))
        self.rfile.read(length)
        self.reply(200, json.dumps(self.request_seen()).encode())

    def request_seen(self) -> dict[str, Any]:
        return {"version": self.request_version, "path": self.path, "headers": list(self.headers.items())}

    def reply(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def wait(self, before: float, after: float, parts: int) -> None:
        time.sleep(before)
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(parts):
            if number:
                time.sleep(after)
            self.wfile.write(b"5\r\npart \r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """The container's output is what a test looks at."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128


def told(number: int, _: object) -> None:
    os.write(1, f"signal {number}\n".encode())
    with open("/dev/termination-log", "w") as file:
        file.write(f"signal {number}")
    os._exit(0)


STDIN = sys.stdin.read()
"""Empty: at its end from the start."""
SERVICE = os.environ.get("K_SERVICE", "")
signal.signal(signal.SIGTERM, told)
os.write(1, b"contract app is up\n")
time.sleep(float(os.environ.get("START_SECONDS", "0")))
Server(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
