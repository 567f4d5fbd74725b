"""Who listens to a running container's output besides its log: `attach`.

A listener that reads slowly slows the container down, as with other container runtimes; one that reads nothing for
`PATIENCE_SECONDS` is cut off.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

PATIENCE_SECONDS = 5.0


class Taps:
    """The listeners of one stream."""

    def __init__(self, watch: Callable[[int, Callable[[], None]], None], unwatch: Callable[[int], None]) -> None:
        self._watch = watch
        self._unwatch = unwatch
        self._sockets: list[socket.socket] = []

    def add(self, fd: int) -> None:
        """`fd` is one end of a socket pair, ours from now on."""
        tap = socket.socket(fileno=fd)
        tap.settimeout(PATIENCE_SECONDS)
        self._sockets.append(tap)
        self._watch(tap.fileno(), lambda: self._drop(tap))  # nobody writes to us: it becomes readable by its end

    def send(self, data: bytes) -> None:
        for tap in list(self._sockets):
            try:
                tap.sendall(data)
            except OSError:
                self._drop(tap)

    def close(self) -> None:
        for tap in list(self._sockets):
            self._drop(tap)

    def _drop(self, tap: socket.socket) -> None:
        if tap in self._sockets:
            self._sockets.remove(tap)
            self._unwatch(tap.fileno())
            tap.close()
