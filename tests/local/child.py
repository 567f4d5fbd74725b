"""A child of the supervisor's tests: says that it is ready and follows the orders of its arguments."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from serving.local.supervisor import notify_ready


def stop_slowly() -> None:
    time.sleep(1)
    sys.exit(0)


def main() -> None:
    order, directory = sys.argv[1], Path(sys.argv[2])
    if order == "slow to stop":
        signal.signal(signal.SIGTERM, lambda *_: stop_slowly())
    if order == "fails":
        sys.stderr.write("no luck today\n")
        sys.exit(3)
    if order == "babbles":
        os.write(int(os.environ["NODELESS_READY_FD"]), b"hello\n")
    notify_ready(pid=os.getpid())
    (directory / f"{os.getpid()}.pid").touch()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
