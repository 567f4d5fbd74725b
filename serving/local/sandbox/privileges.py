"""Whether this process is root for the whole machine, or only inside a user namespace."""

from __future__ import annotations

import os
from pathlib import Path

_WHOLE_RANGE = "0 0 4294967295"


def in_user_namespace(uid_map: str | None = None) -> bool:
    text = Path("/proc/self/uid_map").read_text() if uid_map is None else uid_map
    return " ".join(text.split()) != _WHOLE_RANGE


def is_root() -> bool:
    """Root of the machine."""
    return os.geteuid() == 0 and not in_user_namespace()


def is_namespace_root() -> bool:
    """Root inside a user namespace: what the re-executed stack of an ordinary user is."""
    return os.geteuid() == 0 and in_user_namespace()
