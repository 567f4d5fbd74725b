"""A terminal for a program: made by the program's own process, so that it is one of the container's own."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios

_GET_PEER = 0x5441
"""TIOCGPTPEER: the other end without its path. Needs Linux 4.13."""
_SET_LOCK = 0x40045431
"""TIOCSPTLCK."""
_PATH = "/dev/ptmx"


def take(link: int) -> None:
    """Make a terminal and give its master side away over the socket `link`; the other side becomes the controlling
    terminal, stdin, stdout and stderr. Raises OSError."""
    if os.getpid() != os.getsid(0):
        os.setsid()
    master = os.open(_PATH, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, _SET_LOCK, struct.pack("i", 0))
    peer = fcntl.ioctl(master, _GET_PEER, os.O_RDWR | os.O_NOCTTY)
    with socket.socket(fileno=os.dup(link)) as sender:
        socket.send_fds(sender, [b"+"], [master])
    os.close(master)
    fcntl.ioctl(peer, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(peer, fd)
    if peer > 2:
        os.close(peer)


def receive(link: socket.socket) -> int:
    """The master side that `take` gave away; -1 when the program's process ended before. Does not wait."""
    link.setblocking(False)
    try:
        _, fds, _, _ = socket.recv_fds(link, 1, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return -1
    return fds[0] if fds else -1
