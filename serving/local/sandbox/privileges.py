"""Whether this process is root for the whole machine, or only inside a user namespace."""

from __future__ import annotations

import os

from serving.local.network.rootless import inside


def is_root() -> bool:
    """Root of the machine."""
    return os.geteuid() == 0 and not inside()
