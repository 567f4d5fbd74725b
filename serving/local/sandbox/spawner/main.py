"""The spawner: waits on its control socket (stdin) and forks a shim for every connection that arrives there.

The node agent sends one byte with one end of a socket pair; the forked shim keeps it, the spawner forgets it. When
the node agent is gone the spawner ends; shims stay. Children are reaped by the kernel (SIGCHLD ignored).
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys

from serving.local.sandbox.spawner import linux, seccomp, shim

_MACHINE = os.uname().machine


def main() -> None:
    options = json.loads(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the supervisor to handle
    if options["isolate"] and not options["rootless"]:
        # Images are mounted here once for all pods; nothing of it is visible outside nor left behind.
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("", "/", "", linux.MS_SLAVE | linux.MS_REC)
        linux.mount("", "/", "", linux.MS_SHARED | linux.MS_REC)  # with children that are ready before their image
    if _MACHINE in seccomp.ARCHITECTURES:
        seccomp.cached_program(_MACHINE, frozenset())
    gc.disable()
    gc.collect()
    gc.freeze()
    control.sendall(b"+")
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            shim.run(fds[0], options)
        os.close(fds[0])


if __name__ == "__main__":
    main()
