"""Ports for pods that share the machine's network: one each, free when handed out."""

from __future__ import annotations

import socket
from collections.abc import Collection

FIRST, LAST = 20000, 29999
"""Below the usual range of ephemeral ports, so that no outgoing connection sits on one by chance."""


def is_free(port: int) -> bool:
    """Nobody listens on it, on any address."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
        except OSError:
            if family == socket.AF_INET:
                return False
            if _has_ipv6():
                return False
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def choose(taken: Collection[int], *, after: int) -> int:
    """The next free port after `after`, in turn. Raises LookupError when there is none."""
    size = LAST - FIRST + 1
    start = after - FIRST if FIRST <= after <= LAST else size - 1
    for step in range(1, size + 1):
        port = FIRST + (start + step) % size
        if port not in taken and is_free(port):
            return port
    raise LookupError(f"every port from {FIRST} to {LAST} is taken")
