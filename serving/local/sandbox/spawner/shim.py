"""One per pod: owns the namespaces, parents the containers, copies logs, records exits. Outlives its creators.

It has no thread, and a timer only while no node agent is connected; it wakes for its pipes, its children and
requests. State that a later node agent
needs: the socket `shim.sock` in the pod's state directory (connecting to it proves that the shim is alive), and
`containers/<name>-<attempt>/exit.json`, written before anybody is told of the exit.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import Any

from serving.local.sandbox.spawner import linux, mounts, netns, wire
from serving.local.sandbox.spawner.containers import Containers

_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR
SOCKET_NAME = "shim.sock"
_ORPHAN_CHECK_MS = 20_000.0


class Connection:
    """A node agent. Requests in, replies and events out."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = wire.Decoder()
        self.fds: list[int] = []

    def take(self, count: int) -> list[int]:
        """The oldest received descriptors. They come in the order of their messages."""
        taken, self.fds = self.fds[:count], self.fds[count:]
        return taken

    def send(self, message: wire.Message, fds: tuple[int, ...] = ()) -> None:
        """Blocks when the agent does not read, bounded by the socket's send time-out; a gone agent is no error."""
        data = wire.encode(message)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            sent = self.sock.sendmsg([data], rights)
            self.sock.sendall(data[sent:])
        except OSError:
            return  # its end is seen by the next poll; a later agent asks for the status


class Shim:
    def __init__(self, sock: socket.socket, options: dict[str, Any]) -> None:
        self._options = options
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._connections: list[Connection] = []
        self._listener: socket.socket | None = None
        self._quit = False
        self._abandoned = False
        self._socket_path = ""
        self._stack: tuple[int, ...] = ()
        """Keeps the namespace with the bridge alive for as long as this pod."""
        self._containers = Containers(self.watch, self.unwatch, self._broadcast, options)
        self._watch_children()
        self._accept(sock)

    # -- the loop
    def _watch_children(self) -> None:
        """Orphans of programs that were executed in a container become our children. They must be reaped at once:
        a zombie keeps its process namespace, and with it the container, from ending."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _wake)

        def reap() -> None:
            os.read(read, 4096)
            self._containers.reap_orphans()

        self.watch(read, reap)

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, _READABLE)

    def unwatch(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._handlers[fd]

    def serve(self) -> None:
        while not (self._quit and self._containers.idle()):
            if self._listener is None and not self._connections:
                self._containers.remove_cgroups()  # never became a pod, and nobody can make it one
                return
            ready = self._poll.poll(self._patience())
            if not ready and not os.path.exists(self._socket_path):
                self._abandon()
            for fd, _ in ready:
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler()
        self._broadcast({"event": "gone"})
        if self._abandoned:
            self._containers.remove_cgroups()

    def _patience(self) -> float | None:
        """Milliseconds. A pod with a node agent waits for ever; one without looks now and then whether anybody can
        still find it."""
        return None if self._connections else _ORPHAN_CHECK_MS

    def _abandon(self) -> None:
        """The state directory was deleted: no agent will ever adopt this pod."""
        self._quit = True
        self._abandoned = True
        self._containers.kill_all()

    # -- connections
    def _accept(self, sock: socket.socket) -> None:
        sock.settimeout(30.0)
        connection = Connection(sock)
        self._connections.append(connection)
        self.watch(sock.fileno(), lambda: self._receive(connection))

    def _on_listener(self) -> None:
        if self._listener is not None:
            sock, _ = self._listener.accept()
            self._accept(sock)

    def _receive(self, connection: Connection) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(connection.sock, 65536, wire.MAX_FDS, socket.MSG_CMSG_CLOEXEC)
            connection.fds += fds
            messages = connection.decoder.feed(data)
        except (OSError, ValueError):
            data, messages = b"", []
        for message in messages:
            self._handle(connection, message)
        if not data:
            self.unwatch(connection.sock.fileno())
            connection.sock.close()
            self._connections.remove(connection)

    def _broadcast(self, message: wire.Message) -> None:
        for connection in list(self._connections):
            connection.send(message)

    # -- requests
    def _handle(self, connection: Connection, message: wire.Message) -> None:
        def reply(result: dict[str, Any]) -> None:
            connection.send({"id": message["id"], **result})

        operation = message["op"]
        try:
            if operation == "start":
                self._containers.start(message["spec"], reply)
                return
            if operation == "exec":
                self._containers.execute(message, connection.take(message["fds"]), reply)
                return
            if operation == "attach":
                granted = self._containers.attach(message, connection.take(message["fds"]))
                connection.send({"id": message["id"], "result": None, "fds": len(granted)}, granted)
                return
            if operation == "socket":
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
                    connection.send({"id": message["id"], "result": None, "fds": 1}, (made.fileno(),))
                return
            if operation == "stack":
                connection.send({"id": message["id"], "result": None}, self._stack)
                return
            if operation == "network":
                self._stack, connection.fds = tuple(connection.fds), []
            reply({"result": self._simple(operation, message)})
        except OSError as error:
            reply({"error": {"reason": "CreateContainerError", "message": str(error)}})
        except (KeyError, ValueError) as error:
            reply({"error": {"reason": "InvalidRequest", "message": repr(error)}})

    def _simple(self, operation: str, message: wire.Message) -> Any:
        if operation == "network":
            netns.configure(
                interface=message["interface"],
                address=message["address"],
                gateway=message["gateway"],
                gateway_mac=message["gateway_mac"],
            )
        elif operation == "warm":
            self._containers.warm(message["cgroup"])
        elif operation == "release-images":
            for point in message["points"]:
                mounts.release_image(point)
        elif operation == "pod":
            self._become_pod(message)
        elif operation == "signal":
            self._containers.signal(message["name"], message["signum"])
        elif operation == "kill":
            self._containers.kill(message["name"])
        elif operation == "exec-kill":
            self._containers.kill_exec(message["exec"])
        elif operation == "close-stdin":
            self._containers.close_stdin(message["name"])
        elif operation == "forget":
            self._containers.forget(message["name"], message["attempt"])
        elif operation == "seen":
            self._containers.seen(message["name"], message["attempt"])
        elif operation == "status":
            return self._containers.status()
        elif operation == "quit":
            self._quit = True
            self._containers.kill_all()
        else:
            raise ValueError(f"unknown operation {operation}")
        return None

    def _become_pod(self, message: wire.Message) -> None:
        if self._options["isolate"]:
            socket.sethostname(message["hostname"])
        os.makedirs(message["state_dir"], mode=0o700, exist_ok=True)
        directory = os.open(message["state_dir"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            # Through the directory's descriptor: a socket path has at most 107 bytes, a data directory has not.
            listener.bind(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
            listener.listen(8)
        finally:
            os.close(directory)
        self._listener = listener
        self._socket_path = os.path.join(message["state_dir"], SOCKET_NAME)
        self.watch(listener.fileno(), self._on_listener)


def run(fd: int, options: dict[str, Any]) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        for stream in (1, 2):  # the spawner's belong to the node agent; holding them open would outlive it
            os.dup2(0, stream)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever cleans up by SIGTERM means processes that must end
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        announcement: wire.Message = {"event": "ready", "pid": os.getpid()}
        fds: tuple[int, ...] = ()
        if options["isolate"]:
            _isolate(rootless=options["rootless"])
            fds = (os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC),)
        shim = Shim(sock, options)
        Connection(sock).send(announcement, fds)
        for namespace in fds:
            os.close(namespace)
        shim.serve()
        status = 0
    except BaseException as error:
        _last_words(fd, error)
    finally:
        os._exit(status)


def _wake(_signum: int, _frame: object) -> None:
    """The wake-up descriptor does the work."""


def _isolate(*, rootless: bool) -> None:
    flags = linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
    if rootless:
        uid, gid = os.geteuid(), os.getegid()
        linux.unshare(flags | linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        for name, content in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(content)
    else:
        linux.unshare(flags)
    # A container's root must not be able to look into this process by /proc.
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    netns.prepare()


def _last_words(fd: int, error: BaseException) -> None:
    words = {"event": "failed", "message": f"{type(error).__name__}: {error}"}
    try:
        os.write(fd, wire.encode(json.loads(json.dumps(words))))
    except OSError:
        return
